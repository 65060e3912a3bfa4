"""Two songs at once: more combinations of instruments than a corpus has."""

from __future__ import annotations

import torch
from torch import Tensor

from retrieval.data.labels import LabelSet
from retrieval.encoders.base import AudioEncoder

_LEVEL_DB = 8.0  # the second song is at most so much louder or softer than it was


def mix_clips(
    audio: AudioEncoder, prepared: Tensor, target: Tensor, labels: LabelSet, share: float
) -> tuple[Tensor, Tensor]:
    """The first clips with as many of the next ones sounding at the same time.

    What holds at any time only once, such as a key, nobody knows of two songs at once; of the other
    kinds (instruments) a blend has what either has. After mixup (arXiv 1710.09412), with the union
    of targets in place of their mean, since a softer instrument is still there.

    Args:
        audio: blends the clips.
        prepared: ``[n, ...]``, clips of unrelated songs.
        target: ``[n, labels]`` of :meth:`retrieval.data.labels.LabelSet.target`.
        labels: gives the columns their kinds.
        share: of the clips that become blends, 0 to 0.5.

    Returns:
        Clips and targets; what was given is not changed.
    """
    m = int(len(prepared) * share)
    first, second = slice(0, m), slice(m, 2 * m)
    level_db = _LEVEL_DB * (2 * torch.rand(m, device=prepared.device) - 1)
    blended = audio.blend(prepared[first], prepared[second], level_db)
    once = torch.tensor([kind.exclusive for kind in labels.kinds for _ in kind.names])
    both = torch.maximum(target[first], target[second])
    both = both.masked_fill(once.to(target.device), float("nan"))
    # Not joined with `cat`, which takes no float16 under autocast on a CPU.
    prepared, target = prepared.clone(), target.clone()
    prepared[first], target[first] = blended, both
    return prepared, target
