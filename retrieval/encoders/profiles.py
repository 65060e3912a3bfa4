"""Key and tempo of a clip by fixed rules: what few songs cannot teach a network.

A network that may learn its training songs by heart has no reason to hear their keys, and one that
was trained on 486 songs told the keys of others seldom (``docs/experiments.md``, experiments 7 and
10). So these numbers stand beside the learned frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# How well each tone fits C major and C minor: probe-tone ratings of Krumhansl and Kessler 1982
# (Psychological Review 89, table as in Krumhansl 1990, p. 30).
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
KEYS = 24
#: Above the fourth octave partials outweigh the tones that they belong to.
_OCTAVES = 4
#: Levels (in 20 dB) below a frame's loudest that count: 30 dB, above what the window leaks.
_REACH = 1.5
#: Turns correlations into a choice: 0.1 more is e times as likely.
_SHARPNESS = 10.0

#: Tempos from 40 beats a minute up, 24 to the octave (3 % apart).
_SLOWEST_BPM, _PER_OCTAVE, _TEMPOS = 40.0, 24, 62
#: Low and high bands apart: the drum and the bass, the chords and the hats.
_BANDS = 2
#: Columns within which an onset must stand out: half a second of 20 ms.
_AROUND = 25
WIDTH = 2 * KEYS + _BANDS * _TEMPOS


class Profiles(nn.Module):
    """Packed clips of a :class:`~retrieval.encoders.spectrum.Spectrum` -> ``[n, WIDTH]``.

    Nothing here is learned. Every number is about -3..3, as the frames are that it stands beside.

    Args:
        column_s: time from one mel column to the next, in seconds.
    """

    def __init__(self, column_s: float):
        super().__init__()
        bpm = _SLOWEST_BPM * 2 ** (torch.arange(_TEMPOS, dtype=torch.float64) / _PER_OCTAVE)
        self.register_buffer("key_templates", key_templates(), persistent=False)
        self.register_buffer("lags", (60 / bpm / column_s).float(), persistent=False)
        self.key_templates: Tensor
        self.lags: Tensor

    def forward(self, mel: Tensor, semitones: Tensor) -> Tensor:
        """``[n, mels, columns]`` and ``[n, frames, bands]``, the first band a C."""
        keys = key_likeness(semitones.float(), self.key_templates)
        tempos = tempo_likeness(mel.float(), self.lags)
        chosen = torch.softmax(_SHARPNESS * keys, dim=-1)
        return torch.cat([4 * keys, 6 * chosen, 6 * tempos], dim=-1)


def key_templates() -> Tensor:
    """Standardised profiles of the 24 keys, ``[24, 12]``: majors from C, then minors."""
    profiles = torch.tensor([_MAJOR, _MINOR])
    mean, std = profiles.mean(dim=1, keepdim=True), profiles.std(dim=1, keepdim=True, correction=0)
    major, minor = (profiles - mean) / std
    return torch.stack([p.roll(tonic) for p in (major, minor) for tonic in range(12)])


def key_likeness(semitones: Tensor, templates: Tensor) -> Tensor:
    """Correlation of a clip's pitch classes with every key (the Krumhansl-Schmuckler rule).

    Args:
        semitones: levels ``[n, frames, bands]``; only what stands above a frame's mean, and is
            near its loudest, counts, so that loudness, noise and leakage do not.
        templates: of :func:`key_templates`.

    Returns:
        ``[n, 24]``, -1..1; zeros for a clip without any tone.
    """
    faintest = torch.maximum(
        semitones.mean(dim=-1, keepdim=True), semitones.amax(dim=-1, keepdim=True) - _REACH
    )
    above = (semitones - faintest).clamp(min=0).mean(dim=1)
    classes = above.unflatten(-1, (-1, 12))[:, :_OCTAVES].mean(dim=1)
    classes = classes - classes.mean(dim=-1, keepdim=True)
    classes = classes / classes.std(dim=-1, keepdim=True, correction=0).clamp(min=1e-3)
    return classes @ templates.T / 12


def tempo_likeness(mel: Tensor, lags: Tensor) -> Tensor:
    """How much the onsets of a clip repeat after each lag: a tempogram by autocorrelation.

    Args:
        mel: levels ``[n, mels, columns]``.
        lags: of the tempos, in columns, falling.

    Returns:
        ``[n, 2 * lags]`` for low and high bands, -1..1; zeros for a clip without onsets.
    """
    onset = mel.diff(dim=-1).clamp(min=0).unflatten(1, (_BANDS, -1)).mean(dim=2)
    onset = onset - F.avg_pool1d(onset, _AROUND, 1, _AROUND // 2, count_include_pad=False)
    columns = onset.shape[-1]
    spectrum = torch.fft.rfft(onset, 2 * columns)  # padded, so that nothing wraps around
    alike = torch.fft.irfft(spectrum.abs().square(), 2 * columns)[..., :columns]
    alike = alike / alike[..., :1].clamp(min=1e-6)
    low = lags.long().clamp(max=columns - 2)
    part = (lags - low).clamp(max=1)
    return torch.lerp(alike[..., low], alike[..., low + 1], part).flatten(1)
