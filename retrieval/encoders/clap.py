"""`clap`: the audio tower of a transformers ``ClapModel``, without its random cropping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.base import AudioEncoder
from retrieval.encoders.clap_features import ClapLogMel, LogMelSettings
from retrieval.encoders.htsat import divides, hidden_states
from retrieval.encoders.weights import load_pretrained, load_whole, module_digest
from retrieval.errors import ConfigError, EncoderError

EXTRACTORS = ("rand_trunc", "fusion")


@dataclass(frozen=True)
class ClapConfig:
    """Settings of the CLAP audio encoder.

    Attributes:
        weights: a local folder as ``save_pretrained`` writes it, or a hub name such as
            ``laion/clap-htsat-unfused``; a model of any size.
        extractor: which of CLAP's two mel scales the weights were trained on; ``auto`` reads it
            from the model (``fusion`` where feature fusion is enabled, else ``rand_trunc``).
        frozen: keep the weights as they are.
    """

    weights: str = "laion/clap-htsat-unfused"
    extractor: str = "auto"
    frozen: bool = True

    def __post_init__(self) -> None:
        if self.extractor not in ("auto", *EXTRACTORS):
            raise ConfigError(
                f"extractor: got {self.extractor!r}, expected auto, {' or '.join(EXTRACTORS)}"
            )


class HtsatEncoder(AudioEncoder):
    """HTS-AT frames of 10 s clips at 48 kHz, from a transformers ``ClapAudioModel``.

    A frame is the mean over frequency of the tower's last hidden state, so that the mean over
    frames is CLAP's own pooled output. Clips have exactly the length that the tower expects, so
    nothing is cropped at random and no clip is flagged as longer; a tower with feature fusion
    then reads the first of its four channels alone, and only that one is computed.

    Args:
        tower: a ``ClapAudioModel``.
        d_audio: width of its last hidden state.
        settings: of the features that the tower was trained on.
        frozen: keep the weights as they are.
    """

    #: What the encoder is called in its identity.
    name = "clap"

    def __init__(self, tower: Any, d_audio: int, settings: LogMelSettings, frozen: bool):
        super().__init__()
        self.frozen = frozen
        self.tower = tower
        self.log_mel = ClapLogMel(settings)
        self.truncation = "fusion" if settings.scale == "htk" else "rand_trunc"
        self.sample_rate_hz, self.clip_s = settings.sample_rate_hz, settings.clip_s
        self.d_audio = d_audio
        self.tower.requires_grad_(not frozen)
        self.train(self.training)
        self._digest = module_digest(self.tower) if frozen else ""

    def front_end(self, clips: Tensor) -> Tensor:
        """CLAP's log-mel of float32 ``[n, clip_samples]``: ``[n, 1, 1001, 64]``, in dB."""
        return self.log_mel(clips)

    def encode(self, features: Tensor) -> Tensor:
        """Log-mel -> frames ``[n, frames, d_audio]``."""
        inner = self.tower.audio_encoder
        if self.training or not divides(inner):
            is_longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
            hidden = self.tower(input_features=features, is_longer=is_longer).last_hidden_state
        else:
            hidden = hidden_states(inner, features)
        return hidden.mean(dim=2).transpose(1, 2)

    def identity(self) -> dict[str, object]:
        """Front-end settings and, where the weights are frozen, their digest."""
        found = {"name": self.name, "extractor": self.truncation, "clip_s": self.clip_s}
        return {**found, "weights": self._digest} if self.frozen else found

    def train(self, mode: bool = True) -> HtsatEncoder:
        """Set training mode; batch statistics stay fixed, so that clips never mix."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


class ClapEncoder(HtsatEncoder):
    """The audio tower of a model in transformers' format."""

    def __init__(self, config: ClapConfig):
        from transformers import ClapAudioModelWithProjection, ClapFeatureExtractor

        model = load_whole(ClapAudioModelWithProjection, config.weights, "encoder.weights")
        extractor = load_pretrained(ClapFeatureExtractor, config.weights, "encoder.weights")
        fused = bool(model.config.enable_fusion)
        if config.extractor != "auto" and fused != (config.extractor == "fusion"):
            raise EncoderError(
                f"extractor: got {config.extractor!r}, but {config.weights!r} was built "
                f"{'with' if fused else 'without'} feature fusion; use 'auto'"
            )
        settings = LogMelSettings.of_extractor(extractor, "htk" if fused else "slaney")
        width = int(model.config.hidden_size)
        super().__init__(model.audio_model, width, settings, config.frozen)
        self.config = config
