"""What key a clip is in, heard alike in all twelve transpositions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Two octaves and a fifth upward: a tone's first five partials lie within.
_PARTIALS = 32
_TONES = 16
_CHANNELS = 48
#: Numbers a pitch class that the rest of the network sees; many would let it learn songs by heart.
_KEPT = 4


class KeyHearing(nn.Module):
    """Semitone levels of a clip's frames -> a vector that knows its tonic and mode.

    Frame by frame a convolution along pitch tells tones from their partials; the tones are
    averaged over the clip, octaves are folded into the twelve pitch classes, and circular
    convolutions over these share what they learn among all keys: a pattern learned in C major is
    known in F sharp major (the idea of key profiles that are rotated, Krumhansl 1990, with learned
    profiles).

    Args:
        width: of the vector.
    """

    def __init__(self, width: int):
        super().__init__()
        self.tones = nn.Conv1d(1, _TONES, _PARTIALS)
        self.first = nn.Conv1d(2 * _TONES, _CHANNELS, 12)
        self.second = nn.Conv1d(_CHANNELS, _KEPT, 12)
        self.leave = nn.Linear(12 * _KEPT, width)

    def forward(self, levels: Tensor) -> Tensor:
        """``[n, frames, bands]``, the first band a C -> ``[n, width]``.

        The bass is told apart from the rest: the lowest two octaves are channels of their own.
        """
        n, frames, bands = levels.shape
        levels = levels - levels.mean(dim=-1, keepdim=True)  # neither loudness nor silence counts
        above = F.pad(levels.reshape(n * frames, 1, bands), (0, _PARTIALS - 1))
        tones = F.gelu(self.tones(above)).reshape(n, frames, -1, bands).mean(dim=1)
        octaves = tones.unflatten(-1, (-1, 12))
        classes = torch.cat([octaves.mean(dim=2), octaves[:, :, :2].mean(dim=2)], dim=1)
        return self.leave(self.hear(classes).flatten(1))

    def hear(self, classes: Tensor) -> Tensor:
        """Pitch classes ``[n, channels, 12]`` -> ``[n, kept, 12]``; rolled ones come out rolled."""
        classes = classes - classes.mean(dim=-1, keepdim=True)
        x = classes / classes.std(dim=-1, keepdim=True).clamp(min=1e-3)
        x = F.gelu(self.first(_around(x)))
        return self.second(_around(x))


def _around(x: Tensor) -> Tensor:
    """Pitch classes ``[n, channels, 12]`` and round the circle again: ``[..., 23]``."""
    return F.pad(x, (0, 11), mode="circular")
