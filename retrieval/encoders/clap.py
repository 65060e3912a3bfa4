"""`clap`: the audio tower of a transformers ``ClapModel``, without its random cropping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.base import AudioEncoder
from retrieval.encoders.weights import load_pretrained, module_digest
from retrieval.errors import ConfigError, EncoderError

EXTRACTORS = ("rand_trunc", "fusion")


@dataclass(frozen=True)
class ClapConfig:
    """Settings of the CLAP audio encoder.

    Attributes:
        weights: a local folder as ``save_pretrained`` writes it, or a hub name such as
            ``laion/clap-htsat-unfused``.
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


class ClapEncoder(AudioEncoder):
    """HTS-AT frames of 10 s clips at 48 kHz.

    A frame is the mean over frequency of the tower's last hidden state, so that the mean over
    frames is CLAP's own pooled output. Clips have exactly the length that the tower expects, so
    the extractor neither crops at random nor flags a clip as longer.
    """

    def __init__(self, config: ClapConfig):
        super().__init__()
        from transformers import ClapFeatureExtractor, ClapModel

        self.config = config
        self.frozen = config.frozen
        model = load_pretrained(ClapModel, config.weights, "encoder.weights")
        self.extractor = load_pretrained(ClapFeatureExtractor, config.weights, "encoder.weights")
        self.tower = model.audio_model
        fused = bool(model.config.audio_config.enable_fusion)
        if config.extractor == "auto":
            self.truncation = "fusion" if fused else "rand_trunc"
        elif fused != (config.extractor == "fusion"):
            raise EncoderError(
                f"extractor: got {config.extractor!r}, but {config.weights!r} was built "
                f"{'with' if fused else 'without'} feature fusion; use 'auto'"
            )
        else:
            self.truncation = config.extractor
        self.sample_rate_hz = int(self.extractor.sampling_rate)
        self.clip_s = self.extractor.nb_max_samples / self.sample_rate_hz
        self.d_audio = int(model.config.audio_config.hidden_size)
        self.tower.requires_grad_(not config.frozen)
        self.train(self.training)
        self._digest = module_digest(self.tower) if config.frozen else ""

    def front_end(self, clips: Tensor) -> Tensor:
        """CLAP's log-mel of float32 ``[n, clip_samples]``: ``[n, 1 or 4, 1001, 64]``."""
        features = [self._log_mel(clip) for clip in clips.cpu().numpy()]
        return torch.stack(features).to(clips.device)

    def _log_mel(self, clip: Any) -> Tensor:
        out = self.extractor(
            clip,
            sampling_rate=self.sample_rate_hz,
            truncation=self.truncation,
            padding="pad",
            return_tensors="pt",
        )
        return out["input_features"][0].float()

    def encode(self, features: Tensor) -> Tensor:
        """Log-mel -> frames ``[n, frames, d_audio]``."""
        # The extractor flags one *random* clip as longer where none is; ours never are.
        is_longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)
        out = self.tower(input_features=features, is_longer=is_longer)
        hidden = out.last_hidden_state  # [n, d_audio, frequencies, time]
        return hidden.mean(dim=2).transpose(1, 2)

    def identity(self) -> dict[str, object]:
        """Front-end settings and, where the weights are frozen, their digest."""
        name = {"name": "clap", "extractor": self.truncation, "clip_s": self.clip_s}
        return {**name, "weights": self._digest} if self.frozen else name

    def train(self, mode: bool = True) -> ClapEncoder:
        """Set training mode; batch statistics stay fixed, so that clips never mix."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self
