"""`beats`: Microsoft's BEATs from its published ``.pt`` checkpoints (arXiv 2212.09058)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.beats_net import BeatsNet, BeatsSettings
from retrieval.encoders.frames import FramesConfig
from retrieval.encoders.kaldi import frame_count, log_mel
from retrieval.encoders.layers import LayeredEncoder
from retrieval.encoders.weights import module_digest
from retrieval.errors import ConfigError, EncoderError

SAMPLE_RATE_HZ = 16_000
N_MELS = 128
#: Mean and deviation of AudioSet's log-mel, as BEATs was trained with.
MEAN, DEVIATION = 15.41663, 6.55582
_LARGEST = {"encoder_layers": 100, "encoder_embed_dim": 8192, "encoder_ffn_embed_dim": 65536,
            "embed_dim": 8192, "num_buckets": 65536, "conv_pos": 4096,
            "input_patch_size": 128}  # fmt: skip


@dataclass(frozen=True)
class BeatsConfig(FramesConfig):
    """As :class:`~retrieval.encoders.frames.FramesConfig`; ``weights`` is a checkpoint file.

    It is one of Microsoft's, such as ``BEATs_iter3_plus_AS2M.pt``, pre-trained or fine-tuned; the
    classifier of a fine-tuned one is left out.
    """


class BeatsEncoder(LayeredEncoder):
    """BEATs' patches on clips at 16 kHz: the mean over frequency, one frame every 160 ms."""

    def __init__(self, config: BeatsConfig):
        super().__init__()
        self.config = config
        self.frozen = config.frozen
        self.sample_rate_hz, self.clip_s = SAMPLE_RATE_HZ, float(config.clip_s)
        self.tower = load_beats(config.weights)
        settings = self.tower.settings
        self.bands = N_MELS // settings.input_patch_size
        if frame_count(self.clip_samples, SAMPLE_RATE_HZ) < settings.input_patch_size:
            raise ConfigError(
                f"clip_s: got {config.clip_s}, expected at least one patch, that is "
                f"{settings.input_patch_size / 100 + 0.015:.3f}"
            )
        self.set_layers(config.layers, settings.encoder_layers, settings.encoder_embed_dim)
        self.tower.requires_grad_(not config.frozen)
        self.train(self.training)
        self._digest = module_digest(self.tower) if config.frozen else ""

    def front_end(self, clips: Tensor) -> Tensor:
        """Normalised log-mel of float32 ``[n, clip_samples]``: ``[n, frames, 128]``."""
        return (log_mel(clips * 2**15, SAMPLE_RATE_HZ, N_MELS) - MEAN) / (2 * DEVIATION)

    def states(self, features: Tensor) -> list[Tensor]:
        """The chosen hidden states, each ``[n, frames, d_audio]``."""
        found = self.tower(features)
        return [found[n].unflatten(1, (-1, self.bands)).mean(dim=2) for n in self.layers]

    def identity(self) -> dict[str, object]:
        """Clip length, layers and, where the weights are frozen, their digest."""
        found = {"name": "beats", "clip_s": self.clip_s, "layers": self.layers}
        return {**found, "weights": self._digest} if self.frozen else found


def load_beats(weights: str) -> BeatsNet:
    """Read a BEATs checkpoint, ``{"cfg": settings, "model": weights}``; never as a pickle.

    Raises:
        EncoderError: the file is missing, damaged, or something else.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise EncoderError(
            f"encoder.weights: got {weights!r}, expected an existing file, one of BEATs' published "
            "checkpoints such as BEATs_iter3_plus_AS2M.pt"
        )
    try:
        if zipfile.is_zipfile(path):  # torch itself does not look at the archive's checksums
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever a damaged archive leads to
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise EncoderError(
            f"encoder.weights: {path} cannot be read as a torch checkpoint of plain tensors; it is "
            f"damaged, incomplete or something else ({reason})"
        ) from error
    cfg, state = (found.get(n) if isinstance(found, dict) else None for n in ("cfg", "model"))
    if not isinstance(cfg, Mapping) or not isinstance(state, Mapping):
        raise EncoderError(
            f"encoder.weights: {path} has no 'cfg' and 'model'; it is no BEATs checkpoint"
        )
    with torch.device("meta"):
        net = BeatsNet(read_settings(cfg, path))
    net.load_state_dict(_fitting(state, net, path), assign=True)
    return net


def read_settings(cfg: Mapping[str, Any], path: Path) -> BeatsSettings:
    """The architecture of a checkpoint's ``cfg``; what is not given is BEATs' default.

    Raises:
        EncoderError: a value is missing, of the wrong kind, or nothing that BEATs has.
    """
    known = {field.name: field.default for field in fields(BeatsSettings)}
    given = {name: cfg[name] for name in known if name in cfg}
    for name, value in given.items():
        kind = type(known[name])
        right = isinstance(value, int | float) if kind is float else isinstance(value, kind)
        if kind is int:
            right = (
                right and not isinstance(value, bool) and 1 <= value <= _LARGEST.get(name, 2**20)
            )
        if not right:
            raise EncoderError(f"encoder.weights: {path} has {name} {value!r} in 'cfg'; damaged?")
    settings = BeatsSettings(**given)
    width, heads = settings.encoder_embed_dim, settings.encoder_attention_heads
    wrong = {
        "activation_fn": settings.activation_fn not in ("gelu", "relu"),
        "encoder_attention_heads": width % heads != 0,
        "conv_pos_groups": width % settings.conv_pos_groups != 0,
        "input_patch_size": N_MELS % settings.input_patch_size != 0
        or "input_patch_size" not in cfg,
        "num_buckets": settings.num_buckets < 4
        or settings.max_distance <= settings.num_buckets // 4,
        "deep_norm": settings.deep_norm and settings.layer_norm_first,
    }
    for name in (name for name, bad in wrong.items() if bad):
        raise EncoderError(
            f"encoder.weights: {path} has {name} {getattr(settings, name)!r} in 'cfg', with which "
            "no BEATs was published; it is another kind of model"
        )
    return settings


def _fitting(state: Mapping[str, Any], net: BeatsNet, path: Path) -> dict[str, Tensor]:
    """A checkpoint's weights under the names of our network, all there and of the right shape."""
    found = {}
    for name, value in state.items():
        ours = _rename(str(name))
        if ours is not None:
            found[ours] = value
    wanted = net.state_dict()
    wrong = sorted(set(wanted) ^ set(found))
    wrong += sorted(n for n in set(wanted) & set(found) if not _alike(found[n], wanted[n]))
    if wrong:
        raise EncoderError(
            f"encoder.weights: {path} does not hold the weights that its 'cfg' describes, first at "
            f"{wrong[0]!r} ({len(wrong)} in all); it is another kind of model, or damaged"
        )
    return {name: value.float() for name, value in found.items()}


def _rename(name: str) -> str | None:
    """Our name of a published weight; None for one that is not used."""
    if name.startswith("predictor."):  # the classifier of fine-tuned checkpoints
        return None
    if name.endswith(".relative_attention_bias.weight"):
        # Tied: every layer has the first one's.
        return "distance.weight" if name.startswith("encoder.layers.0.") else None
    name = name.replace("encoder.pos_conv.0.", "pos_conv.")
    name = name.replace("encoder.layer_norm.", "encoder_norm.")
    return name.removeprefix("encoder.")


def _alike(value: object, wanted: Tensor) -> bool:
    """Whether a stored value can stand for a weight: a finite tensor of its shape."""
    return (
        isinstance(value, Tensor)
        and value.shape == wanted.shape
        and value.is_floating_point()
        and bool(value.isfinite().all())
    )
