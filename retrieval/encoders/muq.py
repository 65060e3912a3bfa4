"""`muq`: MuQ from its published folder, without the package (arXiv 2501.01108)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.encoders.frames import FramesConfig
from retrieval.encoders.layers import LayeredEncoder
from retrieval.encoders.spectrum import mel_filterbank
from retrieval.encoders.weights import module_digest
from retrieval.errors import EncoderError

#: Of MuQ's only front end, ``melspec_2048``.
SAMPLE_RATE_HZ, N_FFT, N_MELS, HOP = 24_000, 2048, 128, 240
_FIXED = {"n_mels": N_MELS, "hop_length": HOP}
#: MuQ's defaults, for what ``config.json`` does not say.
_SIZES = {"conv_dim": 512, "encoder_dim": 1024, "encoder_depth": 12}
#: Labels a second -> how the two convolutions go through time.
_STRIDES = {25: (2, 2), 50: (2, 1)}


@dataclass(frozen=True)
class MuqConfig(FramesConfig):
    """As :class:`~retrieval.encoders.frames.FramesConfig`; ``weights`` is a local folder.

    It holds MuQ's ``config.json`` and ``model.safetensors`` or ``pytorch_model.bin``.
    """


class ResidualStep(nn.Module):
    """Two convolutions beside a third, each with a norm; halves the bands."""

    def __init__(self, given: int, made: int, stride: tuple[int, int]):
        super().__init__()
        self.conv1 = nn.Conv2d(given, made, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(made, made, 3, padding=1)
        self.conv3 = nn.Conv2d(given, made, 3, stride, padding=1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(made) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, given, bands, frames]`` -> ``[n, made, bands / 2, fewer frames]``."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn3(self.conv3(x)) + self.bn2(self.conv2(inner)))


class Subsampling(nn.Module):
    """Two residual steps, then a projection."""

    def __init__(self, channels: int, width: int, strides: tuple[int, int]):
        super().__init__()
        self.conv = nn.Sequential(
            ResidualStep(1, channels, (2, strides[0])),
            ResidualStep(channels, channels, (2, strides[1])),
        )
        self.linear = nn.Linear(channels * N_MELS // 4, width)

    def forward(self, mel: Tensor) -> Tensor:
        """``[n, bands, frames]`` -> ``[n, fewer frames, width]``."""
        return self.linear(self.conv(mel.unsqueeze(1)).flatten(1, 2).transpose(1, 2))


class MuqNet(nn.Module):
    """Normalised log-mel -> the hidden states of a conformer."""

    def __init__(self, sizes: Mapping[str, int], strides: tuple[int, int], conformer: Any):
        super().__init__()
        self.conv = Subsampling(sizes["conv_dim"], sizes["encoder_dim"], strides)
        self.conformer = conformer
        self.conformer.pos_conv_embed = nn.Identity()  # transformers builds it and never calls it

    def forward(self, mel: Tensor) -> list[Tensor]:
        """``[n, 128, frames]`` -> ``layers + 1`` states ``[n, frames / 4, width]``."""
        states = [self.conformer.dropout(self.conv(mel))]
        place = self.conformer.embed_positions
        places = place(states[0]) if place is not None else None
        for layer in self.conformer.layers:
            made = layer(states[-1], relative_position_embeddings=places)
            states.append(made[0] if isinstance(made, tuple) else made)
        states[-1] = self.conformer.layer_norm(states[-1])
        return states


class MuqEncoder(LayeredEncoder):
    """MuQ on clips at 24 kHz; 25 frames a second in the published models."""

    def __init__(self, config: MuqConfig):
        super().__init__()
        self.config = config
        self.frozen = config.frozen
        self.sample_rate_hz, self.clip_s = SAMPLE_RATE_HZ, float(config.clip_s)
        self.tower, self.mean, self.deviation = load_muq(config.weights)
        encoder = self.tower.conformer.config
        self.set_layers(config.layers, encoder.num_hidden_layers, encoder.hidden_size)
        self.tower.requires_grad_(not config.frozen)
        self.train(self.training)
        self._digest = module_digest(self.tower) if config.frozen else ""

    def front_end(self, clips: Tensor) -> Tensor:
        """Normalised log-mel of float32 ``[n, clip_samples]``: ``[n, 128, frames]``."""
        window = torch.hann_window(N_FFT, device=clips.device)
        spectrum = torch.stft(clips, N_FFT, HOP, window=window, return_complex=True)[..., :-1]
        power = spectrum.real.square() + spectrum.imag.square()  # [n, bins, frames]
        bank = mel_filterbank(SAMPLE_RATE_HZ, N_FFT, N_MELS).to(power)
        decibel = 10 * (bank.T @ power).clamp(min=1e-10).log10()
        return (decibel - self.mean) / self.deviation

    def states(self, features: Tensor) -> list[Tensor]:
        """The chosen hidden states, each ``[n, frames, d_audio]``."""
        found = self.tower(features)
        return [found[n] for n in self.layers]

    def identity(self) -> dict[str, object]:
        """Front-end settings, layers and, where the weights are frozen, their digest."""
        found: dict[str, object] = {
            "name": "muq",
            "clip_s": self.clip_s,
            "layers": self.layers,
            "levels": [self.mean, self.deviation],
        }
        return {**found, "weights": self._digest} if self.frozen else found


def load_muq(weights: str) -> tuple[MuqNet, float, float]:
    """Read a folder of MuQ: the network, mean and deviation of its log-mel.

    Raises:
        EncoderError: the folder is missing, damaged, or holds something else.
    """
    folder = Path(weights).expanduser()
    if not (folder / "config.json").is_file():
        raise EncoderError(
            f"encoder.weights: got {weights!r}, expected a folder with MuQ's config.json and "
            "model.safetensors"
        )
    try:
        settings = json.loads((folder / "config.json").read_bytes())
        net, mean, deviation = _build(settings)
        file = folder / "model.safetensors"
        if file.is_file():
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(folder / "pytorch_model.bin", "cpu", weights_only=True)
        kept = {
            name.removeprefix("model."): value.float()
            for name, value in state.items()
            if name.startswith(("model.conv.", "model.conformer."))
            and ".pos_conv_embed." not in name
            and not name.endswith(".inv_freq")  # follows from the settings
        }
        report = net.load_state_dict(kept, strict=False)
    except Exception as error:  # whatever a damaged or foreign file leads to
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise EncoderError(
            f"encoder.weights: {folder} cannot be read as MuQ; it is damaged, incomplete or "
            f"something else ({reason})"
        ) from error
    wrong = [n for n in report.missing_keys if not n.endswith(".inv_freq")] + report.unexpected_keys
    if wrong:
        raise EncoderError(
            f"encoder.weights: {folder} does not hold the weights that its config.json describes, "
            f"first at {wrong[0]!r} ({len(wrong)} in all)"
        )
    return net, mean, deviation


def _build(settings: Mapping[str, Any]) -> tuple[MuqNet, float, float]:
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
        Wav2Vec2ConformerConfig,
        Wav2Vec2ConformerEncoder,
    )

    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{name} is {settings[name]!r}, expected {value}")
    sizes = {name: int(settings.get(name, value)) for name, value in _SIZES.items()}
    known = Wav2Vec2ConformerConfig().to_dict()
    given = {n: v for n, v in settings["w2v2_config"].items() if n in known}
    given |= {"num_hidden_layers": sizes["encoder_depth"], "hidden_size": sizes["encoder_dim"]}
    conformer = Wav2Vec2ConformerEncoder(Wav2Vec2ConformerConfig(**{**given, "layerdrop": 0.0}))
    stat = settings["stat"]
    net = MuqNet(sizes, _STRIDES[int(settings.get("label_rate", 25))], conformer)
    return net, float(stat["melspec_2048_mean"]), float(stat["melspec_2048_std"])
