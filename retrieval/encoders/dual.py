"""`dual`: two audio encoders side by side, as in CoLLAP (arXiv 2410.02271: Whisper and BEATs)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders.base import AudioEncoder
from retrieval.errors import ConfigError


@dataclass(frozen=True)
class DualConfig:
    """Settings of two encoders that hear the same clips.

    Attributes:
        first: settings of one encoder, ``{"name": "whisper", ...}``.
        second: settings of the other.
        frame_rate_hz: frames a second of the result; None for the slower encoder's.
        frozen: True or False for both; None leaves that to each encoder's own settings.
    """

    first: Mapping[str, Any] = field(default_factory=lambda: {"name": "whisper"})
    second: Mapping[str, Any] = field(default_factory=lambda: {"name": "beats"})
    frame_rate_hz: float | None = None
    frozen: bool | None = None

    def __post_init__(self) -> None:
        if self.frame_rate_hz is not None and not 0.1 <= self.frame_rate_hz <= 1000:
            raise ConfigError(
                f"frame_rate_hz: got {self.frame_rate_hz}, expected 0.1 to 1000, or null"
            )


class DualEncoder(AudioEncoder):
    """Frames of two encoders, brought to one frame rate and laid side by side.

    Clips come at the higher of the two sample rates; the other encoder hears them resampled. Either
    may be frozen or trained. Clips are not varied in training, so that both hear the same.
    """

    def __init__(self, config: DualConfig):
        super().__init__()
        # The table of encoders holds this one too.
        from retrieval.encoders import build_audio_encoder

        self.config = config
        change = {} if config.frozen is None else {"frozen": config.frozen}
        self.first = build_audio_encoder({**config.first, **change})
        self.second = build_audio_encoder({**config.second, **change})
        if self.first.clip_s != self.second.clip_s:
            raise ConfigError(
                f"encoder.second.clip_s: got clips of {self.second.clip_s} s, expected "
                f"{self.first.clip_s} as for encoder.first; both hear the same clips"
            )
        self.clip_s = self.first.clip_s
        self.sample_rate_hz = max(part.sample_rate_hz for part in self.parts)
        self.d_audio = sum(part.d_audio for part in self.parts)
        self.frozen = all(part.frozen for part in self.parts)
        self.train(self.training)

    @property
    def parts(self) -> tuple[AudioEncoder, AudioEncoder]:
        """The two encoders."""
        return self.first, self.second

    @property
    def d_encoded(self) -> int:
        """Both encoders' widths before they finish."""
        return sum(part.d_encoded for part in self.parts)

    def front_end(self, clips: Tensor) -> Tensor:
        """What both prepare of float32 ``[n, clip_samples]``, flat and in one row: ``[n, ...]``."""
        prepared = (
            part.prepare(resample(clips, self.sample_rate_hz, part.sample_rate_hz))
            for part in self.parts
        )
        return torch.cat([p.flatten(1).float() for p in prepared], dim=1)

    def encode(self, features: Tensor) -> Tensor:
        """Of :meth:`front_end` -> frames of both, ``[n, frames, d_encoded]``."""
        sizes = [shape.numel() for shape in self._shapes]
        frames = []
        for part, shape, flat in zip(
            self.parts, self._shapes, features.split(sizes, dim=1), strict=True
        ):
            prepared = flat.unflatten(1, shape)
            frames.append(prepared if part.frozen else part.encode(prepared))
        count = min(found.shape[1] for found in frames)
        if self.config.frame_rate_hz is not None:
            count = max(round(self.config.frame_rate_hz * self.clip_s), 1)
        return torch.cat([in_step(found, count) for found in frames], dim=-1)

    def finish(self, encoded: Tensor) -> Tensor:
        """Finish each: ``[..., d_encoded]`` -> ``[..., d_audio]``."""
        widths = [part.d_encoded for part in self.parts]
        halves = zip(self.parts, encoded.split(widths, dim=-1), strict=True)
        return torch.cat([part.finish(half) for part, half in halves], dim=-1)

    @cached_property
    def _shapes(self) -> list[torch.Size]:
        """Shape of what each prepares of one clip, found out on silence."""
        state = next(iter(self.state_dict().values()))
        return [
            part.prepare(torch.zeros(1, part.clip_samples, device=state.device)).shape[1:]
            for part in self.parts
        ]

    def identity(self) -> dict[str, object]:
        """What determines both, and how they are brought together."""
        return {
            "name": "dual",
            "frame_rate_hz": self.config.frame_rate_hz,
            "first": self.first.identity(),
            "second": self.second.identity(),
        }


def resample(clips: Tensor, rate_hz: int, wanted_hz: int) -> Tensor:
    """Clips ``[n, samples]`` at another rate: a polyphase filter, each clip by itself.

    The filter is SciPy's default (Kaiser window, 5.0); as many samples come out as the clip's
    length at the new rate, rounded.
    """
    if rate_hz == wanted_hz:
        return clips
    from scipy.signal import resample_poly

    ratio = Fraction(wanted_hz, rate_hz)
    samples = round(clips.shape[-1] * ratio)
    made = resample_poly(clips.cpu().numpy(), ratio.numerator, ratio.denominator, axis=-1)
    made = np.ascontiguousarray(made[..., :samples], dtype=np.float32)
    return torch.from_numpy(made).to(clips.device)


def in_step(frames: Tensor, count: int) -> Tensor:
    """Frames ``[n, frames, width]`` that span a clip evenly -> ``[n, count, width]`` that do.

    To fewer frames each is the mean of those that it overlaps; to more, they are interpolated
    linearly between centres.
    """
    had = frames.shape[1]
    if had == count:
        return frames
    rows = frames.transpose(1, 2)
    if count < had:
        return F.adaptive_avg_pool1d(rows, count).transpose(1, 2)
    return F.interpolate(rows, count, mode="linear", align_corners=False).transpose(1, 2)
