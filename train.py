"""Train a model: ``python train.py experiment=real data.manifest=PATH`` (settings in conf/)."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any, cast

import hydra
import lightning as L
from omegaconf import DictConfig, OmegaConf

from retrieval.build import (
    build_net,
    caption_vocabulary,
    load_songs,
    manifest_list,
    trained_parameters,
    training_songs,
    warm_passages,
)
from retrieval.card import make_card
from retrieval.checkpoint import save_checkpoint
from retrieval.data.batches import TrainSteps
from retrieval.data.labels import LabelSet
from retrieval.data.manifest import manifest_digest
from retrieval.data.order import share_out
from retrieval.errors import ConfigError, LongplayError
from retrieval.finish import finished
from retrieval.settings import check_given, make
from retrieval.training import (
    BestCheckpoint,
    LitCoLLAP,
    ResumePoint,
    train_loader,
    trainer_settings,
    val_loader,
)

# Hints about data loading that do not fit batches made from a cache.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*")


def portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the folders of this machine, to keep in a checkpoint."""
    settings = {**settings, "init": init_name(settings["init"])}
    kept = {name: dict(v) if isinstance(v, dict) else v for name, v in settings.items()}
    del kept["paths"], kept["data"]["manifest"], kept["data"]["cache"], kept["trainer"]["logger"]
    return kept


def init_name(init: str | None) -> str | None:
    """What a checkpoint's card calls the one it started from: ``pretrain/best``."""
    return "/".join(Path(init).parts[-2:]) if init else None


def run(cfg: DictConfig) -> Path:
    """Train as configured; returns the folder of the best checkpoint."""
    check_given(cfg)
    L.seed_everything(cfg.seed, verbose=False)
    out = Path(cfg.paths.runs) / cfg.name
    out.mkdir(parents=True, exist_ok=True)
    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    OmegaConf.save(cfg, out / "config.yaml", resolve=True)
    manifests = manifest_list(cfg.data.manifest)
    lines = training_songs(manifests)
    net = build_net(
        settings,
        lambda text: caption_vocabulary(lines, text),
        any(caption.sections for song in lines for caption in song.captions),
    )
    collections = [load_songs(m, cfg.data.cache, net, show_progress=True) for m in manifests]
    losses = make(cfg.losses)
    if losses.reads_texts:
        warm_passages(net, lines, cfg.data.cache, cfg.data.workers, show_progress=True)
    net.train()  # Lightning keeps the mode that it finds
    songs = [song for collection in collections for song in collection]
    parts = share_out(
        [[s for s in c if s.song.split in ("train", None)] for c in collections],
        cfg.data.shares,
        cfg.data.batch_size,
    )
    val = [s for s in songs if s.song.split == "val" and s.song.captions]
    if len(val) < 2:
        raise ConfigError(
            f"data.manifest: {len(val)} usable songs with captions have split 'val', expected at "
            "least 2; training stops by recall on them"
        )
    facts = {
        "data": {"manifest_sha256": list(map(manifest_digest, manifests)), "songs": len(songs)},
        "settings": portable(settings),
    }

    def save(step: int, recall: float) -> None:
        used = [s.song for s in songs if s.song.split != "test"]
        told = [song for part in parts for song in part.songs]
        wanted = ("gist", "naming", "narrow", "querybank")
        if named := ", ".join(name for name in wanted if getattr(net.config, name)):
            # It may take minutes.
            print(f"step {step} is kept: fitting {named} to {len(told)} songs", flush=True)
        whole = finished(net, told)
        card = make_card(whole, cfg.name, used, step, recall, init_name(cfg.init))
        save_checkpoint(whole, out / "best", {**facts, "step": step, "val_recall": recall}, card)

    resume, best = ResumePoint(out / "last.ckpt"), BestCheckpoint(save, cfg.patience)
    trainer = make(
        trainer_settings(cfg.trainer),
        callbacks=[best, resume],
        max_epochs=-(-cfg.steps // cfg.steps_per_val),
    )
    labels = LabelSet.from_songs(lines)
    steps = TrainSteps(
        parts,
        net,
        cfg.data.train_clips,
        cfg.seed,
        trainer.global_rank,
        trainer.world_size,
        make(cfg.data.augment),
        labels,
        make(cfg.data.extras),
        texts=losses.reads_texts,
        resident=cfg.data.resident,
        alike=cfg.data.alike,
    )
    module = LitCoLLAP(
        net,
        make(cfg.optimizer),
        make(cfg.scheduler),
        losses,
        val,
        cfg.seed,
        labels,
        cfg.tower_lr,
        cfg.scale_lr,
        steps.resident,
        cfg.mix,
    )
    print(f"parameters trained: {trained_parameters(net)}")
    print(f"training: {len(steps.songs)} songs, validation: {len(val)} songs, output: {out}")
    trainer.fit(
        module,
        train_loader(steps, cfg.steps_per_val, cfg.data.workers, lambda: trainer.global_step),
        val_loader(),
        ckpt_path=resume.path if cfg.resume and resume.path.exists() else None,
        weights_only=True,
    )
    print(f"best: {out / 'best'} (step {best.best_step}, of {trainer.global_step})")
    print(f"next: python evaluate.py checkpoint={out / 'best'} data.manifest={manifests[0]}")
    return out / "best"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Command line."""
    try:
        run(cfg)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
