"""`whisper`: the encoder of a transformers Whisper model (arXiv 2212.04356)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from retrieval.encoders.frames import FramesConfig, FramesEncoder, load_tower
from retrieval.encoders.weights import load_pretrained
from retrieval.errors import ConfigError, EncoderError

#: Samples between frames: 160 between spectrogram frames, of which a convolution takes every other.
_FRAME_STRIDE = 2


@dataclass(frozen=True)
class WhisperConfig(FramesConfig):
    """As :class:`~retrieval.encoders.frames.FramesConfig`; clips of at most 30 s."""

    weights: str = "openai/whisper-small"


class WhisperEncoder(FramesEncoder):
    """Whisper's encoder on clips at 16 kHz; 50 frames a second.

    Whisper reads 30 s, no more and no less. So that the numbers are those of the published
    implementation, a shorter clip is followed by silence up to 30 s, and the frames of the silence
    are dropped behind the encoder. The encoder's time is that of 30 s, whatever ``clip_s`` is.
    """

    name = "whisper"

    def __init__(self, config: WhisperConfig):
        from transformers import WhisperFeatureExtractor, WhisperModel

        extractor = load_pretrained(WhisperFeatureExtractor, config.weights, "encoder.weights")
        if extractor.dither:
            raise EncoderError(
                f"encoder.weights: the extractor of {config.weights!r} adds noise (dither "
                f"{extractor.dither}); the same clip would come out differently each time"
            )
        if config.clip_s > extractor.chunk_length:
            raise ConfigError(
                f"clip_s: got {config.clip_s}, expected at most {extractor.chunk_length}, which "
                "is what Whisper reads"
            )
        super().__init__(config, load_tower(WhisperModel, config.weights).get_encoder(), extractor)
        step = int(self.extractor.hop_length) * _FRAME_STRIDE
        self.kept = math.ceil(self.clip_samples / step)

    def in_time(self, tokens: Tensor) -> Tensor:
        """The frames that begin within the clip."""
        return tokens[:, : self.kept]
