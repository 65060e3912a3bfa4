"""CLAP's log-mel features for many clips at once: no parameters, nothing random."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.spectrum import in_cache, triangular_filters
from retrieval.errors import ConfigError

SCALES = ("slaney", "htk")
#: Least mel power, -100 dB: as CLAP's feature extractors have it.
_FLOOR_POWER = 1e-10
# Slaney's mel scale (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above.
_LINEAR_HZ = 200 / 3
_CORNER_HZ = 1000.0
_CORNER_MEL = _CORNER_HZ / _LINEAR_HZ
_LOG_STEP = 27 / math.log(6.4)


@dataclass(frozen=True)
class LogMelSettings:
    """What determines CLAP's features.

    The defaults are those of all published LAION-CLAP models. ``scale`` tells the two filter
    banks apart: ``slaney`` (librosa's: triangles of equal area) for models without feature
    fusion, ``htk`` (torchaudio's: triangles that peak at 1) for models with it.

    Attributes:
        sample_rate_hz: rate of the waveforms.
        clip_s: clip length in seconds.
        n_fft: window in samples.
        hop: samples between frames.
        n_mels: mel bands.
        low_hz: where the lowest band begins.
        high_hz: where the highest band ends.
        scale: ``slaney`` or ``htk``.
    """

    sample_rate_hz: int = 48_000
    clip_s: float = 10.0
    n_fft: int = 1024
    hop: int = 480
    n_mels: int = 64
    low_hz: float = 50.0
    high_hz: float = 14_000.0
    scale: str = "slaney"

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ConfigError(f"scale: got {self.scale!r}, expected {' or '.join(SCALES)}")

    @classmethod
    def of_extractor(cls, extractor: Any, scale: str) -> LogMelSettings:
        """The settings of a transformers ``ClapFeatureExtractor``."""
        return cls(
            sample_rate_hz=int(extractor.sampling_rate),
            clip_s=float(extractor.max_length_s),
            n_fft=int(extractor.fft_window_size),
            hop=int(extractor.hop_length),
            n_mels=int(extractor.feature_size),
            low_hz=float(extractor.frequency_min),
            high_hz=float(extractor.frequency_max),
            scale=scale,
        )


def mel_filters(settings: LogMelSettings) -> Tensor:
    """The filter bank of either scale, float32 ``[n_fft // 2 + 1, n_mels]``."""
    edges_hz = torch.tensor([settings.low_hz, settings.high_hz], dtype=torch.float64)
    low, high = _to_mel(edges_hz, settings.scale).tolist()
    mels = torch.linspace(low, high, settings.n_mels + 2, dtype=torch.float64)
    edges = _to_hz(mels, settings.scale)
    half = settings.sample_rate_hz // 2
    bins = torch.linspace(0.0, half, settings.n_fft // 2 + 1, dtype=torch.float64)
    filters = triangular_filters(bins, edges)
    if settings.scale == "slaney":
        filters = filters * (2.0 / (edges[2:] - edges[:-2]))
    return filters.float()


def _to_mel(hz: Tensor, scale: str) -> Tensor:
    if scale == "htk":  # O'Shaughnessy's formula
        return 2595.0 * torch.log10(1.0 + hz / 700.0)
    above = _CORNER_MEL + torch.log(hz.clamp(min=_CORNER_HZ) / _CORNER_HZ) * _LOG_STEP
    return torch.where(hz < _CORNER_HZ, hz / _LINEAR_HZ, above)


def _to_hz(mel: Tensor, scale: str) -> Tensor:
    if scale == "htk":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _CORNER_HZ * torch.exp((mel - _CORNER_MEL).clamp(min=0) / _LOG_STEP)
    return torch.where(mel < _CORNER_MEL, mel * _LINEAR_HZ, above)


class ClapLogMel(nn.Module):
    """Log-mel spectrograms as ``ClapFeatureExtractor`` computes them, in float32 and at once.

    The extractor goes frame by frame in float64. The two differ by float32's rounding of the
    Fourier transform: below 0.005 dB for bands within 80 dB of the loudest band of their frame,
    below 1 dB for those far under it (the lowest value is -100 dB).

    Clips have exactly the length that the model reads, so nothing is cropped or repeated; the
    four channels of a model with feature fusion would be four times the one given here.

    A clip's features are the same bits alone and in any batch: each frame's transform stands by
    itself, and the product with the filters is made clip by clip.
    """

    def __init__(self, settings: LogMelSettings):
        super().__init__()
        self.settings = settings
        filters = mel_filters(settings)
        # Bins above the highest band carry nothing: at 48 kHz, 42 % of them.
        used = int(filters.sum(dim=1).nonzero().max()) + 1
        self.register_buffer("filters", filters[:used].contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(settings.n_fft), persistent=False)
        self.filters: Tensor
        self.window: Tensor

    def forward(self, clips: Tensor) -> Tensor:
        """Float32 ``[n, clip_samples]`` -> dB ``[n, 1, clip_samples // hop + 1, n_mels]``."""
        return torch.cat([self._levels(part) for part in in_cache(clips)]).unsqueeze(1)

    def _levels(self, clips: Tensor) -> Tensor:
        n_fft, hop = self.settings.n_fft, self.settings.hop
        margin = n_fft // 2
        padded = F.pad(clips[:, None], (margin, margin), mode="reflect")[:, 0]
        frames = padded.unfold(-1, n_fft, hop) * self.window
        spectrum = torch.fft.rfft(frames)[..., : len(self.filters)]
        power = spectrum.real.square() + spectrum.imag.square()  # [n, frames, bins]
        bands = torch.stack([part @ self.filters for part in power])
        return 10.0 * torch.log10(bands.clamp(min=_FLOOR_POWER))
