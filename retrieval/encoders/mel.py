"""`mel`: Longplay's own compact log-mel network, trainable from scratch on a CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.base import AudioEncoder
from retrieval.errors import ConfigError


@dataclass(frozen=True)
class MelConfig:
    """Settings of the mel encoder.

    Attributes:
        sample_rate_hz: rate of the waveforms; half of it is the highest pitch that is heard.
        clip_s: clip length in seconds.
        n_mels: mel bands; a multiple of 16, since four stages halve them.
        n_fft: analysis window in samples.
        hop: samples between analysis frames.
        widths: channels of the stem and of the three stages.
        d_audio: width of a frame.
        dropout: on the frames.
        frozen: keep the weights as they are.
    """

    sample_rate_hz: int = 24_000
    clip_s: float = 10.0
    n_mels: int = 96
    n_fft: int = 1024
    hop: int = 480
    widths: tuple[int, int, int, int] = (24, 48, 96, 160)
    d_audio: int = 256
    dropout: float = 0.1
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.n_mels % 16:
            raise ConfigError(f"n_mels: got {self.n_mels}, expected a multiple of 16")
        if len(self.widths) != 4:
            raise ConfigError(f"widths: got {list(self.widths)}, expected four channel counts")
        object.__setattr__(self, "widths", tuple(self.widths))


def mel_filterbank(sample_rate_hz: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular mel filters, ``[n_fft // 2 + 1, n_mels]``.

    The mel scale is O'Shaughnessy's 2595 log10(1 + f / 700), as in HTK; each filter peaks at 1.
    """
    top = 2595.0 * torch.log10(torch.tensor(1.0 + sample_rate_hz / 2 / 700.0)).item()
    mels = torch.linspace(0.0, top, n_mels + 2, dtype=torch.float64)
    edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = torch.linspace(0.0, sample_rate_hz / 2, n_fft // 2 + 1, dtype=torch.float64)
    rise = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


class ResidualStage(nn.Module):
    """Halve the resolution, then a residual convolution: ``[n, a, f, t]`` -> ``[n, b, f2, t2]``."""

    def __init__(self, channels_in: int, channels_out: int, stride: tuple[int, int]):
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, channels_out)
        self.conv = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """One stage."""
        x = F.gelu(self.norm1(self.down(x)))
        return F.gelu(x + self.norm2(self.conv(x)))


class MelEncoder(AudioEncoder):
    """Log-mel, four convolution stages, one vector every 160 ms.

    Normalisation is by group, never by batch, so a clip's frames do not depend on other clips.
    Frequency is folded into the channels at the end, so that register is not averaged away.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        self.sample_rate_hz, self.clip_s = config.sample_rate_hz, config.clip_s
        self.d_audio, self.frozen = config.d_audio, config.frozen
        stem, one, two, three = config.widths
        filters = mel_filterbank(config.sample_rate_hz, config.n_fft, config.n_mels)
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)
        self.filters: Tensor
        self.window: Tensor
        self.band_scale = nn.Parameter(torch.ones(config.n_mels, 1))
        self.band_shift = nn.Parameter(torch.zeros(config.n_mels, 1))
        self.stem = nn.Conv2d(1, stem, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.GroupNorm(8, stem)
        self.stages = nn.Sequential(
            ResidualStage(stem, one, (2, 2)),
            ResidualStage(one, two, (2, 2)),
            ResidualStage(two, three, (2, 1)),
        )
        self.project = nn.Linear(three * config.n_mels // 16, config.d_audio)
        self.norm = nn.LayerNorm(config.d_audio)
        self.dropout = nn.Dropout(config.dropout)
        self.requires_grad_(not config.frozen)

    def front_end(self, clips: Tensor) -> Tensor:
        """Log-mel of ``[n, clip_samples]``: float16 ``[n, n_mels, clip_samples // hop]``.

        Decibels are mapped so that -80..0 dB is about -2..2. Rounded to float16 here, so that
        cached and fresh features are the same numbers (16-bit steps are below 0.02 dB there).
        """
        margin = self.config.n_fft - self.config.hop
        padded = F.pad(clips, (margin // 2, margin - margin // 2))
        spectrum = torch.stft(
            padded,
            self.config.n_fft,
            self.config.hop,
            window=self.window,
            center=False,
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        mel = torch.einsum("nft,fm->nmt", power, self.filters)
        level_db = 10.0 * torch.log10(mel.clamp(min=1e-5))
        return (level_db / 20.0).half()

    def augment(self, prepared: Tensor, generator: torch.Generator) -> Tensor:
        """Louder or softer by up to 6 dB, with two bands and two stretches left out.

        SpecAugment (arXiv 1904.08779) with masks of up to an eighth of the bands and a tenth of
        the time.
        """
        if self.frozen:
            return prepared
        prepared = prepared.clone()
        _, bands, times = prepared.shape
        gain_db = 12 * torch.rand(1, generator=generator).item() - 6
        prepared += gain_db / 20
        for clip in prepared:
            for axis, size, longest in ((0, bands, bands // 8), (1, times, times // 10)) * 2:
                width = int(torch.randint(longest + 1, (1,), generator=generator))
                start = int(torch.randint(size - width + 1, (1,), generator=generator))
                clip.narrow(axis, start, width).zero_()
        return prepared

    def encode(self, features: Tensor) -> Tensor:
        """Log-mel ``[n, n_mels, t]`` -> frames ``[n, t / 8, d_audio]``."""
        x = features.to(self.project.weight.dtype) * self.band_scale + self.band_shift
        x = F.gelu(self.stem_norm(self.stem(x.unsqueeze(1))))
        x = self.stages(x)  # [n, channels, n_mels / 16, t / 8]
        x = x.flatten(1, 2).transpose(1, 2)
        return self.dropout(self.norm(self.project(x)))

    def identity(self) -> dict[str, object]:
        """Front-end settings; trained weights live in the checkpoint."""
        settings = asdict(self.config)
        names = ("sample_rate_hz", "clip_s", "n_mels", "n_fft", "hop")
        return {"name": "mel", **{name: settings[name] for name in names}}
