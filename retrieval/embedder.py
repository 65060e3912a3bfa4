"""What the index needs from a model: a protocol and three plain results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from retrieval.pipeline.options import EmbedOptions
    from retrieval.pipeline.stream import Pipeline


@dataclass(frozen=True)
class SongEmbedding:
    """One song as the index stores it.

    Attributes:
        clip_emb: float32 ``[clips, dim]``, unit rows.
        clip_times: float64 ``[clips, 2]``, start and end of each clip in seconds.
        duration_s: length of the song in seconds.
    """

    clip_emb: np.ndarray
    clip_times: np.ndarray
    duration_s: float


@dataclass(frozen=True)
class TextEmbedding:
    """One text as the index searches with it.

    Attributes:
        passages: the pieces of the text, in order.
        passage_emb: float32 ``[passages, dim]``, unit rows.
        passage_weight: float32 ``[passages]``, non-negative, sums to 1.
    """

    passages: list[str]
    passage_emb: np.ndarray
    passage_weight: np.ndarray


@dataclass(frozen=True)
class CaptionSpan:
    """What a generated caption says about one stretch of a song."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class GeneratedCaption:
    """A generated caption: the whole text, and its timed parts where it has any."""

    text: str
    spans: list[CaptionSpan] = field(default_factory=list)


class Embedder(Protocol):
    """A model as the index sees it.

    Attributes:
        dim: width of the joint space.
        tau: temperature of the clip attention.
        clip_s: length of a clip in seconds.
        digest: hex digest of everything that determines the embeddings.
    """

    dim: int
    tau: float
    clip_s: float
    digest: str

    def embed_song(self, path: str | Path) -> SongEmbedding:
        """Embed one audio file; raises ``AudioError`` where it cannot be used."""

    def song_as_query(self, clip_emb: np.ndarray) -> np.ndarray:
        """Clips of a song, ``[clips, dim]``, as unit rows that ask for songs like it."""

    def embed_text(self, text: str) -> TextEmbedding:
        """Embed one text; raises ``TextError`` where it is empty."""

    def caption(self, path: str | Path) -> GeneratedCaption:
        """Write a caption for one audio file."""


@runtime_checkable
class StagedEmbedder(Protocol):
    """A model that can decode some songs while it encodes others."""

    def pipeline(self, options: EmbedOptions) -> Pipeline:
        """Start what embeds many files; whoever asks for it closes it."""
