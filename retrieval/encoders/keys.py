"""What key a clip is in, heard alike in all twelve transpositions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CHANNELS = 32
#: Numbers a pitch class that the rest of the network sees; many would let it learn songs by heart.
_KEPT = 4


class KeyHearing(nn.Module):
    """Semitone profile of a clip -> a vector that knows its tonic and mode.

    Octaves are folded into the twelve pitch classes, and circular convolutions over these share
    what they learn among all keys: a pattern learned in C major is known in F sharp major (the idea
    of key profiles that are rotated, Krumhansl 1990, with learned profiles).

    Args:
        width: of the vector.
    """

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv1d(2, _CHANNELS, 12)
        self.second = nn.Conv1d(_CHANNELS, _KEPT, 12)
        self.leave = nn.Linear(12 * _KEPT, width)

    def forward(self, profile: Tensor) -> Tensor:
        """``[n, bands]``, the first a C and mean 0 -> ``[n, width]``.

        The bass is told apart from the rest: the lowest two octaves are a channel of their own.
        """
        octaves = profile.unflatten(-1, (-1, 12))
        classes = torch.stack([octaves.mean(dim=1), octaves[:, :2].mean(dim=1)], dim=1)
        classes = classes - classes.mean(dim=-1, keepdim=True)
        x = classes / classes.std(dim=-1, keepdim=True).clamp(min=1e-3)
        x = F.gelu(self.first(_around(x)))
        return self.leave(self.second(_around(x)).flatten(1))


def _around(x: Tensor) -> Tensor:
    """Pitch classes ``[n, channels, 12]`` and round the circle again: ``[..., 23]``."""
    return F.pad(x, (0, 11), mode="circular")
