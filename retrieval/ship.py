"""``python -m retrieval.ship``: a trained checkpoint -> a small one to give away."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from retrieval.checkpoint import CARD, load_model, read_config, save_checkpoint
from retrieval.errors import CheckpointError, LongplayError

#: Facts of training that stay in ``config.json``.
_KEPT = ("data", "settings", "step", "val_recall")


def ship(source: Path, out: Path, card: Path | None) -> Path:
    """Write a checkpoint's weights in float16, with a card written by people.

    Args:
        source: folder of the trained checkpoint.
        out: folder to write.
        card: text put before the facts that training wrote; None keeps those alone.

    Raises:
        CheckpointError: the checkpoint or the card cannot be read.
    """
    config, model = read_config(source), load_model(source)
    try:
        facts = (source / CARD).read_text(encoding="utf-8")
        told = card.read_text(encoding="utf-8").rstrip() + "\n\n" if card else ""
    except OSError as error:
        raise CheckpointError(f"{error.filename}: cannot be read ({error.strerror})") from error
    facts = facts.replace("# ", "## Training run: ", 1) if told else facts
    kept = {name: config[name] for name in _KEPT if name in config}
    return save_checkpoint(model.net, out, kept, told + facts, torch.float16)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.ship",
        description="Write a trained checkpoint in half the size, with a card.",
        epilog="example: python -m retrieval.ship runs/default/best my-model --card card.md",
    )
    parser.add_argument("source", type=Path, help="folder of the trained checkpoint")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--card", type=Path, help="text of the card, put before training's facts")
    args = parser.parse_args(arguments)
    try:
        folder = ship(args.source.expanduser(), args.out.expanduser(), args.card)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
