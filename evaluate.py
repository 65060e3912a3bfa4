"""Measure checkpoints: ``python evaluate.py suite=fusion checkpoint=runs/real/best ...``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
from omegaconf import DictConfig

from index.export import mean_vector, write_faiss
from retrieval.build import load_songs, manifest_list
from retrieval.checkpoint import load_model
from retrieval.data.manifest import manifest_digest
from retrieval.errors import ConfigError, LongplayError
from retrieval.report import print_tables, save_picture, write_json
from retrieval.scoring import encode_songs
from retrieval.settings import check_given
from retrieval.suites import SUITES, Settings, Task


def make_tasks(cfg: DictConfig) -> list[Task]:
    """A pool for each manifest, with its checkpoint; one checkpoint may serve several."""
    manifests, checkpoints = manifest_list(cfg.data.manifest), manifest_list(cfg.checkpoint)
    if len(checkpoints) == 1:
        checkpoints = checkpoints * len(manifests)
    if len(checkpoints) != len(manifests):
        raise ConfigError(
            f"checkpoint: got {len(checkpoints)}, expected one, or one for each of the "
            f"{len(manifests)} manifests (folds)"
        )
    tasks = []
    for checkpoint, manifest in zip(checkpoints, manifests, strict=True):
        model = load_model(None if checkpoint == "default" else checkpoint)
        songs = load_songs(
            manifest,
            cfg.data.cache,
            model.net,
            keep=lambda song: bool(song.captions) and cfg.split in ("all", song.split),
            show_progress=True,
        )
        tasks.append(Task(model, songs))
    return tasks


def run(cfg: DictConfig) -> Path:
    """Evaluate as configured; returns the folder of the results."""
    check_given(cfg)
    if cfg.suite not in SUITES:
        raise ConfigError(f"suite: got {cfg.suite!r}, expected one of {', '.join(SUITES)}")
    tasks = make_tasks(cfg)
    outcome = _measure(cfg, tasks)
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    print_tables(outcome.tables)
    context = {
        "suite": cfg.suite,
        "checkpoint": manifest_list(cfg.checkpoint),
        "model_digest": [task.model.digest for task in tasks],
        "manifest_sha256": list(map(manifest_digest, manifest_list(cfg.data.manifest))),
        "split": cfg.split,
        "captions": cfg.captions,
        "songs": [len(task.songs) for task in tasks],
    }
    written = [out / f"{cfg.suite}.json"]
    write_json(outcome.figures, written[0], context)
    if outcome.draw:
        written.append(out / f"{cfg.suite}.png")
        save_picture(outcome.draw, written[1])
    print(f"written: {', '.join(map(str, written))}")
    if cfg.index.export_faiss:
        vectors = [mean_vector(e) for e in encode_songs(tasks[0].model, tasks[0].songs)]
        write_faiss(cfg.index.export_faiss, np.stack(vectors), range(len(vectors)))
        print(f"written: {cfg.index.export_faiss} ({len(vectors)} songs, rows of the manifest)")
    return out


def _measure(cfg: DictConfig, tasks: list[Task]) -> Any:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed} songs and texts"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"suite {cfg.suite}:", total=None)
        settings = Settings(
            cfg.captions,
            tuple(cfg.poolings),
            cfg.bootstrap,
            cfg.seed,
            cfg.songs,
            lambda: progress.advance(bar),
        )
        return SUITES[cfg.suite](tasks, settings)


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    """Command line."""
    try:
        run(cfg)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
