"""The two small protocols that every encoder keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from retrieval.errors import ConfigError


class AudioEncoder(nn.Module, ABC):
    """Clip waveform -> frames, in two steps so that the first can be cached.

    ``prepare`` never takes part in a gradient and is a pure function of each clip; ``forward``
    does the rest. A frozen encoder does all its work in ``prepare``.

    Attributes:
        sample_rate_hz: rate of the waveforms.
        clip_s: length of a clip in seconds.
        d_audio: width of a frame.
        frozen: whether the weights stay as they are.
        tuned: names of the weights that are trained where others of the tower are not
            (:mod:`retrieval.encoders.tuning`); None where all or none are.
    """

    sample_rate_hz: int
    clip_s: float
    d_audio: int
    frozen: bool
    tuned: frozenset[str] | None = None

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

    def blend(self, prepared: Tensor, others: Tensor, level_db: Tensor) -> Tensor:
        """Prepared clips with others sounding at the same time, for training.

        Args:
            prepared: ``[n, ...]``.
            others: ``[n, ...]``.
            level_db: ``[n]``, how much louder than it is each of ``others`` sounds.

        Raises:
            ConfigError: the encoder cannot.
        """
        raise ConfigError(f"mix: {type(self).__name__} cannot blend clips, expected 0")

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
        tuned: as in :class:`AudioEncoder`.
        unknown_id: token id of what the tower has no token for, None where it has one for all.
    """

    d_text: int
    max_tokens: int
    frozen: bool
    tuned: frozenset[str] | None = None
    unknown_id: int | None = None

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

    def remember_as(self, other: TextEncoder) -> None:
        """Take over what another encoder of the same frozen tower remembers."""

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


def tower_owners(
    part: AudioEncoder | TextEncoder,
) -> list[tuple[str, AudioEncoder | TextEncoder]]:
    """The encoders that have a published ``tower``: this one, or those that it consists of.

    Each with what stands before its names in the whole encoder's state.
    """
    return [
        (f"{name}." if name else "", module)
        for name, module in part.named_modules()
        if isinstance(module, AudioEncoder | TextEncoder) and hasattr(module, "tower")
    ]


def outside(part: AudioEncoder | TextEncoder) -> set[str]:
    """Names of the published weights in an encoder's state that no checkpoint copies.

    They are those of frozen towers, and of tuned ones all that is not trained.
    """
    return {
        f"{prefix}{name}"
        for prefix, owner in tower_owners(part)
        if owner.frozen or owner.tuned is not None
        for name in owner.state_dict()
        if name.startswith("tower.") and name not in (owner.tuned or ())
    }
