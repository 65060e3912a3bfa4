"""Kaldi's log-mel filter bank in torch, as the published audio transformers were trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

#: Kaldi's defaults (src/feat/feature-window.h, mel-computations.h), as torchaudio's
#: ``compliance.kaldi.fbank`` has them too.
_WINDOW_MS, _HOP_MS = 25, 10
_PREEMPHASIS = 0.97
_LOWEST_HZ = 20.0
_POVEY = 0.85
_FLOOR = torch.finfo(torch.float32).eps


def frame_count(samples: int, sample_rate_hz: int) -> int:
    """Whole windows in so many samples (Kaldi's ``snip_edges``)."""
    window, hop = sample_rate_hz * _WINDOW_MS // 1000, sample_rate_hz * _HOP_MS // 1000
    return max((samples - window) // hop + 1, 0)


def log_mel(clips: Tensor, sample_rate_hz: int, n_mels: int) -> Tensor:
    """Natural logarithm of mel powers; each window without its mean, pre-emphasised, Povey's.

    Args:
        clips: float32 ``[n, samples]`` on Kaldi's scale, that is -32768 to 32767.
        sample_rate_hz: their rate.
        n_mels: mel bands from 20 Hz to half the rate.

    Returns:
        float32 ``[n, frames, n_mels]``, one frame every 10 ms, none that reaches over the end.
    """
    window, hop = sample_rate_hz * _WINDOW_MS // 1000, sample_rate_hz * _HOP_MS // 1000
    n_fft = 1 << (window - 1).bit_length()
    frames = clips.unfold(-1, window, hop)  # [n, frames, window]
    frames = frames - frames.mean(dim=-1, keepdim=True)
    before = F.pad(frames, (1, 0), mode="replicate")[..., :-1]
    frames = frames - _PREEMPHASIS * before
    taper = torch.hann_window(window, periodic=False, dtype=torch.float64) ** _POVEY
    spectrum = torch.fft.rfft(frames * taper.to(frames), n=n_fft)
    power = spectrum.real.square() + spectrum.imag.square()
    bank = mel_filters(sample_rate_hz, n_fft, n_mels).to(power)
    return (power @ bank).clamp(min=_FLOOR).log()


def mel_filters(sample_rate_hz: int, n_fft: int, n_mels: int) -> Tensor:
    """Kaldi's filters, triangles on the mel scale 1127 ln(1 + f / 700): ``[n_fft/2 + 1, n_mels]``.

    The bin at half the rate belongs to no filter.
    """
    hz = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate_hz / n_fft
    mel = 1127.0 * torch.log1p(hz / 700.0)
    low, high = (1127.0 * math.log1p(f / 700.0) for f in (_LOWEST_HZ, sample_rate_hz / 2))
    edges = low + (high - low) * torch.arange(n_mels + 2, dtype=torch.float64) / (n_mels + 1)
    rise = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rise, fall).clamp(min=0)
    filters[-1] = 0
    return filters
