"""The two small protocols that every encoder keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class AudioEncoder(nn.Module, ABC):
    """Clip waveform -> frames, in two steps so that the first can be cached.

    ``prepare`` never takes part in a gradient and is a pure function of each clip; ``forward``
    does the rest. A frozen encoder does all its work in ``prepare``.

    Attributes:
        sample_rate_hz: rate of the waveforms.
        clip_s: length of a clip in seconds.
        d_audio: width of a frame.
        frozen: whether the weights stay as they are.
    """

    sample_rate_hz: int
    clip_s: float
    d_audio: int
    frozen: bool

    @property
    def clip_samples(self) -> int:
        """Samples in one clip."""
        return round(self.clip_s * self.sample_rate_hz)

    @abstractmethod
    def front_end(self, clips: Tensor) -> Tensor:
        """Fixed features of float32 ``[n, clip_samples]``: ``[n, ...]``, no parameters."""

    @abstractmethod
    def encode(self, features: Tensor) -> Tensor:
        """Features ``[n, ...]`` -> ``[n, frames, d_encoded]``."""

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """What determines ``prepare``: names, settings and, for frozen weights, a digest."""

    @torch.no_grad()
    def prepare(self, clips: Tensor) -> Tensor:
        """The cacheable part: float32 ``[n, clip_samples]`` -> ``[n, ...]``."""
        features = self.front_end(clips)
        return self.encode(features) if self.frozen else features

    def vary(self, prepared: Tensor, filled: Tensor, song: Tensor) -> tuple[Tensor, Tensor]:
        """A random variant of prepared clips, for training; the same clips by default.

        Args:
            prepared: ``[n, ...]``.
            filled: ``[n]``, how much of each clip is sound.
            song: int64 ``[n]``, rising from 0: the song of each clip.

        Returns:
            Prepared clips and how much of each is sound; drawn from torch's generators.
        """
        return prepared, filled

    @property
    def d_encoded(self) -> int:
        """Width of what ``encode`` gives; more than ``d_audio`` where ``finish`` narrows it."""
        return self.d_audio

    def finish(self, encoded: Tensor) -> Tensor:
        """What is trained even behind frozen weights: ``[..., d_encoded]`` -> ``[..., d_audio]``.

        Nothing by default.
        """
        return encoded

    def forward(self, prepared: Tensor) -> Tensor:
        """The rest: prepared ``[n, ...]`` -> frames ``[n, frames, d_audio]``."""
        return self.finish(prepared if self.frozen else self.encode(prepared))

    def train(self, mode: bool = True) -> AudioEncoder:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


class TextEncoder(nn.Module, ABC):
    """Passages -> one vector each.

    Attributes:
        d_text: width of a passage vector.
        max_tokens: longest passage, in tokens without the special ones.
        frozen: whether the weights stay as they are.
    """

    d_text: int
    max_tokens: int
    frozen: bool

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """Tokens in a text, without the special ones."""

    @abstractmethod
    def forward(self, passages: list[str]) -> Tensor:
        """Passages of at most ``max_tokens`` -> float ``[n, d_text]``."""

    @abstractmethod
    def token_ids(self, text: str) -> list[int]:
        """Ids of the tower's tokens for a text, without the special ones."""

    @abstractmethod
    def word_table(self) -> Tensor:
        """Vectors of the tower's tokens, ``[vocabulary, d_word]``; never trained here."""

    @abstractmethod
    def vocabulary(self) -> list[str]:
        """The tower's tokens as its tokenizer writes them, one for each row of ``word_table``."""

    def encode_together(self, passages: list[str]) -> Tensor:
        """Vectors of passages of equal length, fast rather than exact; for training."""
        return self(passages)

    def remember(self, passages: list[str], vectors: Tensor) -> None:
        """Take over vectors ``[n, d_text]`` that the same frozen tower gave elsewhere."""

    @abstractmethod
    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""

    @abstractmethod
    def identity(self) -> dict[str, object]:
        """Where the weights come from, with their digest."""

    def train(self, mode: bool = True) -> TextEncoder:
        """Set training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.frozen)
        return self


def outside(part: AudioEncoder | TextEncoder) -> set[str]:
    """Names of the frozen published weights in an encoder's state, which no checkpoint copies.

    They are in an attribute ``tower``, of the encoder or of the encoders that it consists of.
    """
    found: set[str] = set()
    if part.frozen and hasattr(part, "tower"):
        found |= {name for name in part.state_dict() if name.startswith("tower.")}
    for name, child in part.named_children():
        if isinstance(child, AudioEncoder | TextEncoder):
            found |= {f"{name}.{inner}" for inner in outside(child)}
    return found
