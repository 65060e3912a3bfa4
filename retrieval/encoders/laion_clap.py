"""`laion_clap`: LAION-CLAP's original ``.pt`` checkpoints, converted when they are loaded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.encoders.clap import HtsatEncoder
from retrieval.encoders.laion_checkpoint import read_checkpoint
from retrieval.encoders.laion_keys import audio_settings, feature_settings
from retrieval.encoders.laion_model import audio_tower, model_name
from retrieval.errors import ConfigError, EncoderError


@dataclass(frozen=True)
class LaionClapConfig:
    """Settings of the LAION-CLAP audio encoder.

    Attributes:
        weights: an original ``.pt`` file, such as ``music_audioset_epoch_15_esc_90.14.pt``. Its
            size and whether it fuses features are read from its shapes.
        package: compute with the package ``laion-clap`` rather than with transformers' classes.
            Importing it downloads tokenizers and RoBERTa. The file is read here all the same, as
            weights only.
        frozen: keep the weights as they are.
    """

    weights: str = ""
    package: bool = False
    frozen: bool = True

    def __post_init__(self) -> None:
        if not self.weights:
            raise ConfigError(
                "weights: got nothing, expected the path of an original LAION-CLAP .pt file"
            )
        if self.package and not self.frozen:
            raise ConfigError(
                "frozen: got false, expected true with package=true, whose network drops parts of "
                "the input at random in training; train without the package"
            )


class LaionClapEncoder(HtsatEncoder):
    """The audio branch of an original checkpoint; frames and features as in `clap`."""

    name = "laion_clap"

    def __init__(self, config: LaionClapConfig):
        weights = read_checkpoint(config.weights)
        settings = feature_settings(weights)
        tower = PackageTower(weights) if config.package else audio_tower(weights)
        width = int(audio_settings(weights)["hidden_size"])
        super().__init__(tower, width, settings, config.frozen)
        self.config = config

    def front_end(self, clips: Tensor) -> Tensor:
        """CLAP's log-mel; the clips themselves where the package's network does that."""
        if isinstance(self.tower, PackageTower) and not self.tower.fusion:
            return clips
        return super().front_end(clips)

    def encode(self, features: Tensor) -> Tensor:
        """Features -> frames ``[n, frames, d_audio]``."""
        if isinstance(self.tower, PackageTower):
            return self.tower(features)
        return super().encode(features)

    def identity(self) -> dict[str, object]:
        """As for `clap`, and which code computes."""
        found = super().identity()
        return {**found, "package": True} if self.config.package else found


class PackageTower(nn.Module):
    """The audio branch of the package's own ``CLAP_Module``.

    Args:
        weights: of a checkpoint, under its own names.

    Raises:
        EncoderError: the package is not installed, cannot be imported, or has no such model.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self.fusion = bool(audio_settings(weights)["enable_fusion"])
        self.branch = _package_module(model_name(weights), self.fusion).model.audio_branch
        prefix = "audio_branch."
        own = {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}
        try:
            self.branch.load_state_dict(own)
        except RuntimeError as error:
            raise EncoderError(
                f"encoder.weights: the weights do not fit the package's audio branch ({error})"
            ) from error

    def forward(self, features: Tensor) -> Tensor:
        """Clips, or log-mels where features are fused -> frames ``[n, frames, d_audio]``."""
        device = features.device
        if self.fusion:
            no = torch.zeros(len(features), 1, dtype=torch.bool, device=device)
            batch = {"mel_fusion": features.expand(-1, 4, -1, -1), "longer": no}
        else:
            batch = {"waveform": features}
        out = self.branch(batch, device=device)["fine_grained_embedding"]
        return out[:, :: self.branch.interpolate_ratio]  # each frame comes that many times


def _package_module(name: str, fusion: bool) -> Any:
    """A ``CLAP_Module`` of the package, which is imported here and nowhere else."""
    before = list(sys.path)
    try:
        from laion_clap import CLAP_Module  # type: ignore[import-not-found]

        return CLAP_Module(enable_fusion=fusion, device="cpu", amodel=name)
    except ImportError as error:
        raise EncoderError(
            f"encoder.package: laion-clap cannot be imported ({error}); install the extra "
            "laion-clap, or leave package=false, which needs it not"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise EncoderError(
            f"encoder.package: laion-clap cannot build {name!r}: {error}. It downloads tokenizers "
            "and RoBERTa when it is imported; package=false needs no network"
        ) from error
    finally:
        sys.path[:] = before  # the package appends its own folder
