"""Waveform -> log-mel and semitone levels, packed as one picture a clip: no parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Mel frames that one frame of the encoder spans; pitch is measured once for each such group.
GROUP = 8
#: MIDI number of the lowest semitone band: C2, 65.4 Hz.
LOWEST_PITCH = 36
#: Level of silence. Levels are decibels / 20, so that -80..0 dB is about -2..2.
FLOOR = -2.5
_FLOOR_POWER = 10 ** (2 * FLOOR)
#: Clips whose transforms a core's cache holds; with more, fresh memory takes most of the time.
_CACHED_CLIPS = 2


def in_cache(clips: Tensor) -> tuple[Tensor, ...]:
    """Clips ``[n, ...]`` in as many parts as are fast; the bits of fixed features do not change."""
    return clips.split(_CACHED_CLIPS) if clips.device.type == "cpu" else (clips,)


def mel_filterbank(sample_rate_hz: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular mel filters, ``[n_fft // 2 + 1, n_mels]``.

    The mel scale is O'Shaughnessy's 2595 log10(1 + f / 700), as in HTK; each filter peaks at 1.
    """
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate_hz / 2 / 700.0)).item()
    mels = torch.linspace(0.0, top, n_mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    return triangular_filters(bins, edges).float()


def pitch_filterbank(sample_rate_hz: int, n_fft: int, bands: int) -> Tensor:
    """Triangular filters on equal-tempered semitones (A4 = 440 Hz), ``[n_fft // 2 + 1, bands]``.

    The first is at :data:`LOWEST_PITCH`; each reaches to its neighbours' centres. Filters above
    half the sample rate are empty.
    """
    pitch = torch.arange(-1, bands + 1, dtype=torch.float64) + LOWEST_PITCH
    centres = 440.0 * 2.0 ** ((pitch - 69) / 12)
    bins = torch.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    return triangular_filters(bins, centres).float()


def triangular_filters(bins: Tensor, edges: Tensor) -> Tensor:
    """Triangles between edges ``[bands + 2]`` that peak at 1, at ``[bins]``: both in hertz."""
    rise = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)


class Spectrum(nn.Module):
    """The fixed front end of the mel encoder.

    A short window hears onsets and timbre, a long one tells semitones apart down to C2. Both are
    packed into one half-precision picture, so that a clip is one row of a cache: below the
    ``n_mels`` mel rows stand ``pitch_bands / GROUP`` rows in which every group of ``GROUP``
    columns holds the ``pitch_bands`` semitone levels of that stretch.

    Args:
        sample_rate_hz: rate of the waveforms.
        n_fft: short window in samples.
        hop: samples between mel frames.
        n_mels: mel bands.
        pitch_fft: long window in samples.
        pitch_bands: semitones; a multiple of ``GROUP``.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        n_fft: int,
        hop: int,
        n_mels: int,
        pitch_fft: int,
        pitch_bands: int,
    ):
        super().__init__()
        self.n_fft, self.hop, self.n_mels = n_fft, hop, n_mels
        self.pitch_fft, self.pitch_bands = pitch_fft, pitch_bands
        tables = {
            "mel_filters": mel_filterbank(sample_rate_hz, n_fft, n_mels),
            "pitch_filters": pitch_filterbank(sample_rate_hz, pitch_fft, pitch_bands),
            "mel_window": torch.hann_window(n_fft),
            # The long window is scaled so that a sine has the level that it has in the short one.
            "pitch_window": torch.hann_window(pitch_fft) * (n_fft / pitch_fft),
        }
        # Bins above the highest semitone carry nothing: at 24 kHz, two thirds of them.
        used = int(tables["pitch_filters"].sum(dim=1).nonzero().max()) + 1
        tables["pitch_filters"] = tables["pitch_filters"][:used].contiguous()
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)
        self.mel_filters: Tensor
        self.pitch_filters: Tensor
        self.mel_window: Tensor
        self.pitch_window: Tensor

    def forward(self, clips: Tensor) -> Tensor:
        """``[n, clip_samples]`` -> float16 ``[n, rows, GROUP * groups]``.

        There are ``n_mels + pitch_bands / GROUP`` rows.
        Rounded to float16 here, so that cached and fresh features are the same numbers (16-bit
        steps are below 0.02 dB there).
        """
        return torch.cat([self._picture(part) for part in in_cache(clips)])

    def _picture(self, clips: Tensor) -> Tensor:
        frames = clips.shape[-1] // self.hop
        groups = -(-frames // GROUP)
        margin = self.n_fft - self.hop
        mel = self._levels(clips, margin // 2, frames, self.hop, "mel")
        mel = F.pad(mel, (0, groups * GROUP - frames), value=FLOOR)
        left = self.pitch_fft // 2 - GROUP * self.hop // 2  # centred on the middle of a group
        pitch = self._levels(clips, left, groups, GROUP * self.hop, "pitch")
        return torch.cat([mel, self._pack(pitch)], dim=1).half()

    def _pack(self, bands: Tensor) -> Tensor:
        """``[n, pitch_bands, groups]`` -> ``[n, pitch_bands / GROUP, GROUP * groups]``."""
        n, _, groups = bands.shape
        rows = bands.reshape(n, self.pitch_bands // GROUP, GROUP, groups)
        return rows.transpose(2, 3).reshape(n, -1, groups * GROUP)

    def _levels(self, clips: Tensor, left: int, frames: int, hop: int, kind: str) -> Tensor:
        """``[n, bands, frames]``; frame k begins ``left`` samples before ``k * hop``."""
        window, filters = getattr(self, f"{kind}_window"), getattr(self, f"{kind}_filters")
        size = len(window)
        right = (frames - 1) * hop + size - left - clips.shape[-1]
        spectrum = torch.stft(
            F.pad(clips, (left, right)), size, hop, window=window, center=False,
            return_complex=True,
        )  # fmt: skip
        spectrum = spectrum[:, : len(filters)]
        power = spectrum.real.square() + spectrum.imag.square()
        bands = torch.einsum("nft,fm->nmt", power, filters)
        return torch.log10(bands.clamp(min=_FLOOR_POWER)) / 2

    def pitch(self, picture: Tensor) -> Tensor:
        """Semitone levels of packed clips, ``[n, groups, pitch_bands]``."""
        n, _, columns = picture.shape
        rows = picture[:, self.n_mels : self.n_mels + self.pitch_bands // GROUP]
        rows = rows.reshape(n, -1, columns // GROUP, GROUP)
        return rows.transpose(1, 2).reshape(n, columns // GROUP, self.pitch_bands)
