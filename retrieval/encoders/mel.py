"""`mel`: Longplay's own compact log-mel network, trainable from scratch on a CPU."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.base import AudioEncoder
from retrieval.encoders.keys import KeyHearing
from retrieval.encoders.profiles import WIDTH as PROFILE_WIDTH
from retrieval.encoders.profiles import Profiles
from retrieval.encoders.spectrum import FLOOR, GROUP, Spectrum
from retrieval.encoders.weights import module_digest
from retrieval.errors import ConfigError
from retrieval.sequence import Block, relative_buckets

_HEADS = 4


@dataclass(frozen=True)
class MelConfig:
    """Settings of the mel encoder.

    Attributes:
        sample_rate_hz: rate of the waveforms; half of it is the highest pitch that is heard.
        clip_s: clip length in seconds.
        n_mels: mel bands; a multiple of 16, since four stages halve them.
        n_fft: short analysis window in samples.
        hop: samples between analysis frames.
        pitch_fft: long analysis window in samples, which tells semitones apart.
        pitch_bands: semitones from C2 upward; a multiple of 8, of 24 with ``key``.
        widths: channels of the stem and of the three stages. As input not 64, 128 or 192: CPUs
            with bfloat16 tiles take many times longer for the gradient of such a convolution
            (torch 2.13).
        blocks: residual convolutions of each stage.
        key: hear the key of a clip apart (:mod:`retrieval.encoders.keys`).
        profiles: add key and tempo by fixed rules to every frame
            (:mod:`retrieval.encoders.profiles`); a frame is then 172 numbers wider.
        context_layers: transformer layers over the frames of a clip, which hear tempo and key.
        d_audio: width of the learned part of a frame.
        dropout: on the frames.
        crop: part of each clip that a training step hears, at a random place; all of it at 1.
        frozen: keep the weights as they are.
    """

    sample_rate_hz: int = 24_000
    clip_s: float = 10.0
    n_mels: int = 96
    n_fft: int = 1024
    hop: int = 480
    pitch_fft: int = 8192
    pitch_bands: int = 72
    widths: tuple[int, int, int, int] = (32, 80, 112, 160)
    blocks: tuple[int, int, int] = (1, 1, 1)
    key: bool = False
    profiles: bool = False
    context_layers: int = 2
    d_audio: int = 256
    dropout: float = 0.1
    crop: float = 1.0
    frozen: bool = False

    def __post_init__(self) -> None:
        if self.n_mels % 16:
            raise ConfigError(f"n_mels: got {self.n_mels}, expected a multiple of 16")
        # Whole octaves, in whole rows.
        multiple = 24 if self.key or self.profiles else GROUP
        if self.pitch_bands % multiple:
            raise ConfigError(
                f"pitch_bands: got {self.pitch_bands}, expected a multiple of {multiple}"
            )
        if len(self.widths) != 4:
            raise ConfigError(f"widths: got {list(self.widths)}, expected four channel counts")
        if not 0.1 <= self.crop <= 1:
            raise ConfigError(f"crop: got {self.crop}, expected 0.1 to 1")
        if len(self.blocks) != 3 or min(self.blocks) < 1:
            raise ConfigError(f"blocks: got {list(self.blocks)}, expected three counts from 1")
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))


class ResidualBlock(nn.Module):
    """A convolution beside the identity: ``[n, channels, f, t]`` -> the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels)

    def forward(self, x: Tensor) -> Tensor:
        """One block."""
        return F.gelu(x + self.norm(self.conv(x)))


class ResidualStage(nn.Module):
    """Halve the resolution, then residual convolutions: ``[n, a, f, t]`` -> ``[n, b, f2, t2]``."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: tuple[int, int], blocks: int = 1
    ):
        super().__init__()
        self.down = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(8, channels_out)
        self.blocks = nn.Sequential(*(ResidualBlock(channels_out) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """One stage."""
        return self.blocks(F.gelu(self.norm(self.down(x))))


class FrameContext(nn.Module):
    """A transformer over the frames of one clip, with relative positions."""

    def __init__(self, width: int, layers: int, dropout: float):
        super().__init__()
        self.bias = nn.Embedding(32, _HEADS)
        nn.init.zeros_(self.bias.weight)
        self.blocks = nn.ModuleList(Block(width, _HEADS, dropout) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, frames, width]`` -> the same shape."""
        position = torch.arange(x.shape[1], device=x.device)[None]
        bias = self.bias(relative_buckets(position)).permute(0, 3, 1, 2).to(x.dtype)
        bias = bias.expand(len(x), -1, -1, -1)
        for block in self.blocks:
            x = block(x, bias)
        return x


class MelEncoder(AudioEncoder):
    """Log-mel through convolution stages, semitones and key beside it, a transformer over frames.

    One vector every 160 ms. Normalisation is by group, never by batch, so a clip's frames do not
    depend on other clips. Frequency is folded into the channels at the end, so that register is
    not averaged away. Semitone levels are taken against their own mean: key and chords do not
    depend on loudness.
    """

    def __init__(self, config: MelConfig):
        super().__init__()
        self.config = config
        self.sample_rate_hz, self.clip_s = config.sample_rate_hz, config.clip_s
        self.d_audio = config.d_audio + PROFILE_WIDTH * config.profiles
        self.frozen = config.frozen
        stem, one, two, three = config.widths
        self.spectrum = Spectrum(
            config.sample_rate_hz, config.n_fft, config.hop, config.n_mels, config.pitch_fft,
            config.pitch_bands,
        )  # fmt: skip
        self.band_scale = nn.Parameter(torch.ones(config.n_mels, 1))
        self.band_shift = nn.Parameter(torch.zeros(config.n_mels, 1))
        self.stem = nn.Conv2d(1, stem, 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.GroupNorm(8, stem)
        self.stages = nn.Sequential(
            ResidualStage(stem, one, (2, 2), config.blocks[0]),
            ResidualStage(one, two, (2, 2), config.blocks[1]),
            ResidualStage(two, three, (2, 1), config.blocks[2]),
        )
        self.project = nn.Linear(three * config.n_mels // 16, config.d_audio)
        self.pitch = nn.Sequential(
            nn.Linear(config.pitch_bands, config.d_audio),
            nn.GELU(),
            nn.Linear(config.d_audio, config.d_audio),
        )
        self.key = KeyHearing(config.d_audio) if config.key else None
        self.profiles = Profiles(config.hop / config.sample_rate_hz) if config.profiles else None
        self.norm = nn.LayerNorm(config.d_audio)
        self.dropout = nn.Dropout(config.dropout)
        self.context = FrameContext(config.d_audio, config.context_layers, config.dropout)
        # Channels last is what CPU and GPU convolutions are fastest in.
        self.stem.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.stages.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(not config.frozen)

    def front_end(self, clips: Tensor) -> Tensor:
        """See :class:`retrieval.encoders.spectrum.Spectrum`; float16 ``[n, rows, columns]``."""
        return self.spectrum(clips)

    def vary(self, prepared: Tensor, filled: Tensor, song: Tensor) -> tuple[Tensor, Tensor]:
        """A random stretch of each clip, as another recording might have it; not of kept frames."""
        if self.frozen:
            return prepared, filled
        prepared, filled = take_stretch(prepared, filled, self.config.crop)
        return degrade(prepared, song, self.config.n_mels), filled

    def blend(self, prepared: Tensor, others: Tensor, level_db: Tensor) -> Tensor:
        """Powers add up, as those of independent sounds do; rows are log10 of amplitudes."""
        if self.frozen:
            return super().blend(prepared, others, level_db)
        louder = others.float() + (level_db / 20)[:, None, None]
        power = 10 ** (2 * prepared.float()) + 10 ** (2 * louder)
        return (torch.log10(power) / 2).to(prepared.dtype)

    def encode(self, features: Tensor) -> Tensor:
        """Packed clips ``[n, rows, columns]`` -> frames ``[n, columns / 8, d_audio]``."""
        features = features.to(self.band_scale.dtype)
        mel = features[:, : self.config.n_mels]
        x = (mel * self.band_scale + self.band_shift).unsqueeze(1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(self.stem_norm(self.stem(x)))
        x = self.stages(x)  # [n, channels, n_mels / 16, columns / 8]
        # In this order it is one product, not one a clip: a tenth of the time in bfloat16.
        x = self.project(x.permute(0, 3, 1, 2).flatten(2))
        semitones = self.spectrum.pitch(features)
        x = x + self.pitch(semitones - semitones.mean(dim=-1, keepdim=True))
        if self.key is not None:
            x = x + self.key(semitones)[:, None]
        x = self.context(self.dropout(self.norm(x)))
        return x if self.profiles is None else self._beside(x, self.profiles(mel, semitones))

    @staticmethod
    def _beside(frames: Tensor, profile: Tensor) -> Tensor:
        return torch.cat(
            [frames, profile.to(frames.dtype)[:, None].expand(-1, frames.shape[1], -1)], dim=-1
        )

    def identity(self) -> dict[str, object]:
        """Front-end settings, and a digest of frozen weights; others live in the checkpoint."""
        settings = asdict(self.config)
        names = ("sample_rate_hz", "clip_s", "n_mels", "n_fft", "hop", "pitch_fft", "pitch_bands")
        found = {"name": "mel", **{name: settings[name] for name in names}}
        if self.frozen:
            # Profiles are made of the same features, so they count as weights here.
            found["weights"] = module_digest(self) + " and profiles" * self.config.profiles
        return found


def take_stretch(prepared: Tensor, filled: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """A random stretch of each clip, all of one length; padded clips keep their beginning.

    Args:
        prepared: ``[n, rows, columns]`` of :class:`~retrieval.encoders.spectrum.Spectrum`.
        filled: ``[n]``, how much of each clip is sound.
        share: length of the stretches, of a clip.

    Returns:
        ``[n, rows, fewer columns]`` and how much of each stretch is sound.
    """
    groups = prepared.shape[-1] // GROUP
    kept = max(round(groups * share), 1)
    if kept == groups:
        return prepared, filled
    start = torch.randint(groups - kept + 1, (len(prepared),), device=prepared.device)
    start = torch.where(filled < 1, 0, start) * GROUP
    columns = start[:, None] + torch.arange(kept * GROUP, device=prepared.device)
    columns = columns[:, None, :].expand(-1, prepared.shape[1], -1)
    return prepared.gather(2, columns), (filled * groups / kept).clamp(max=1)


def degrade(prepared: Tensor, song: Tensor, n_mels: int) -> Tensor:
    """Songs as poorer recordings would have them: the same change for all clips of a song.

    Louder or softer by up to 12 dB; for a third of the songs a tilt of the spectrum by up to
    9 dB, for a fifth noise, for a fifth a low-pass; then, clip by clip, two bands and two
    stretches left out (SpecAugment, arXiv 1904.08779, with masks of up to an eighth of the bands
    and a tenth of the time). Chance is drawn from torch's generator of the clips' device.

    Args:
        prepared: ``[n, rows, columns]`` of :class:`~retrieval.encoders.spectrum.Spectrum`.
        song: int64 ``[n]``, rising from 0: the song of each clip.
        n_mels: how many of the rows are mel bands.
    """
    device = prepared.device
    chance = torch.rand(int(song[-1]) + 1, 7, device=device)[song]
    x = prepared.float()
    mel = x[:, :n_mels]
    tilt_db = (chance[:, 0] < 0.33) * (18 * chance[:, 1] - 9)
    slope = torch.linspace(-0.5, 0.5, n_mels, device=device)
    mel += (slope * tilt_db[:, None] / 20)[:, :, None]
    noisy = torch.nonzero(chance[:, 2] < 0.2)[:, 0]
    level = FLOOR + 1.2 * chance[noisy, 3]
    noise = level[:, None, None] + 0.2 * torch.rand(mel[noisy].shape, device=device)
    mel[noisy] = torch.log10(10 ** (2 * mel[noisy]) + 10 ** (2 * noise)) / 2
    kept = n_mels * torch.where(chance[:, 4] < 0.2, 0.45 + 0.5 * chance[:, 5], 1.0)
    lost = torch.arange(n_mels, device=device) >= kept[:, None]
    mel.masked_fill_(lost[:, :, None], FLOOR)
    x += ((24 * chance[:, 6] - 12) / 20)[:, None, None]
    for _ in range(2):
        mel.masked_fill_(_stretches(len(x), n_mels, n_mels // 8, device)[:, :, None], 0.0)
        columns = x.shape[2]
        mel.masked_fill_(_stretches(len(x), columns, columns // 10, device)[:, None, :], 0.0)
    return x.clamp_(min=FLOOR).half()


def _stretches(n: int, size: int, longest: int, device: torch.device) -> Tensor:
    """Bool ``[n, size]``: in each row one random stretch of at most ``longest`` is True."""
    width = torch.randint(longest + 1, (n, 1), device=device)
    start = (torch.rand(n, 1, device=device) * (size - width + 1)).long()
    index = torch.arange(size, device=device)
    return (index >= start) & (index < start + width)
