"""Measure a checkpoint: ``python evaluate.py checkpoint=runs/real/best data.manifest=PATH``."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig

from index.candidates import mean_vector, write_faiss
from retrieval.build import load_songs
from retrieval.checkpoint import load_model
from retrieval.data.manifest import FORMS, KINDS, manifest_digest
from retrieval.errors import LongplayError, ManifestError
from retrieval.evaluation import evaluate_scores
from retrieval.report import plot_recall, print_report, write_json
from retrieval.scoring import encode_songs, relevance, score_songs
from retrieval.settings import check_given


def run(cfg: DictConfig) -> Path:
    """Evaluate as configured; returns the folder of the results."""
    check_given(cfg)
    model = load_model(None if cfg.checkpoint == "default" else cfg.checkpoint)
    songs = load_songs(
        cfg.data.manifest,
        cfg.data.cache,
        model.net,
        keep=lambda song: bool(song.captions) and cfg.split in ("all", song.split),
        show_progress=True,
    )
    kinds = ("all", *KINDS, *FORMS[1:])
    if cfg.captions not in kinds:
        raise ManifestError(f"captions: got {cfg.captions!r}, expected one of {', '.join(kinds)}")
    scores, text_song, captions = score_songs(
        model, songs, list(cfg.poolings), lambda c: cfg.captions in ("all", c.kind, c.form)
    )
    relevant = relevance(captions, text_song, songs)
    results = {
        pooling: evaluate_scores(
            matrix, text_song, relevance=relevant, n_bootstrap=cfg.bootstrap, seed=cfg.seed
        )
        for pooling, matrix in scores.items()
    }
    context = {
        "checkpoint": str(cfg.checkpoint),
        "model_digest": model.digest,
        "manifest_sha256": manifest_digest(cfg.data.manifest),
        "split": cfg.split,
        "captions": cfg.captions,
        "songs": len(songs),
        "texts": len(captions),
    }
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    print_report(results)
    write_json(results, out / "recall.json", context)
    plot_recall(results, out / "recall.png")
    print(f"written: {out / 'recall.json'}, {out / 'recall.png'}")
    if cfg.index.export_faiss:
        vectors = [mean_vector(embedded) for embedded in encode_songs(model, songs)]
        write_faiss(cfg.index.export_faiss, np.stack(vectors), range(len(vectors)))
        print(f"written: {cfg.index.export_faiss} ({len(vectors)} songs, rows of the manifest)")
    return out


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
