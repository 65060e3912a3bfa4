"""``python -m retrieval.average``: the mean of several checkpoints' weights.

Networks that were trained on from the same weights lie in one valley of the loss, and the mean of
their weights often does better than each (model soups, arXiv 2203.05482). Of networks that share
only a part's past, only that part can be averaged (``--only audio``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from retrieval.build import copy_weights
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.errors import CheckpointError, ConfigError, LongplayError
from retrieval.model import CoLLAP


def average(sources: Sequence[Path], out: Path, only: str | None = None) -> Path:
    """Write the mean of checkpoints' weights, without experts, narrow space and bank.

    It is there to be trained on from (``train.py init=``), which makes those anew.

    Args:
        sources: at least two folders; what is not averaged is the first one's.
        out: folder to write.
        only: a part of the network, such as ``audio``; None for all of it.

    Raises:
        CheckpointError: a checkpoint cannot be read, or has other weights than the first.
        ConfigError: fewer than two checkpoints, or no such part.
    """
    if len(sources) < 2:
        raise ConfigError(f"average: got {len(sources)} checkpoint, expected at least 2")
    nets = [load_model(source).net for source in sources]
    # What was fitted to one network means nothing beside another.
    bare = replace(nets[0].config, gist=None, naming=None, narrow=None, querybank=None)
    mean = CoLLAP(bare).eval()
    copy_weights(nets[0], mean)
    state = mean.state_dict()
    names = [n for n in state if only is None or n.startswith(f"{only}.")]
    if not names:
        parts = sorted({name.split(".")[0] for name in state})
        raise ConfigError(f"only: got {only!r}, expected one of {', '.join(parts)}")
    if any(name.startswith("captioner.") for name in names):
        _check_words(sources, nets)
    states = [net.state_dict() for net in nets]
    for name in names:
        if state[name].is_floating_point():
            state[name] = _mean(name, sources, states)
    mean.load_state_dict(state)
    told = [
        f"- {source.name if source.name != 'best' else source.parent.name}" for source in sources
    ]
    card = "\n".join([f"# Mean of {only or 'all weights'}", "", *told, ""])
    return save_checkpoint(mean, out, {}, card)


def _check_words(sources: Sequence[Path], nets: Sequence[CoLLAP]) -> None:
    """A row of the generator head is a word: the same one in every checkpoint."""
    words = [net.config.captioner and net.config.captioner.vocabulary for net in nets]
    for source, own in zip(sources, words, strict=True):
        if own != words[0]:
            raise CheckpointError(
                f"checkpoint {source}: writes with other words than {sources[0]}, so their "
                "generator heads have no mean; average one part (only), such as audio"
            )


def _mean(name: str, sources: Sequence[Path], states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    first = states[0][name]
    for source, state in zip(sources, states, strict=True):
        if name not in state or state[name].shape != first.shape:
            raise CheckpointError(
                f"checkpoint {source}: {name} is not like that of {sources[0]}; only networks of "
                "one architecture have a mean"
            )
    return torch.stack([state[name].double() for state in states]).mean(dim=0).to(first.dtype)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.average",
        description="Write the mean of checkpoints' weights, to be trained on from.",
        epilog="example: python -m retrieval.average runs/mean runs/one/best runs/two/best",
    )
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("sources", type=Path, nargs="+", help="folders of checkpoints")
    parser.add_argument("--only", metavar="PART",
                        help="average this part of the network (audio, say); the rest is the "
                             "first checkpoint's")  # fmt: skip
    args = parser.parse_args(arguments)
    try:
        folder = average([path.expanduser() for path in args.sources], args.out.expanduser(),
                         args.only)  # fmt: skip
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"next: python train.py experiment=default init={folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
