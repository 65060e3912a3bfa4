"""What can be asked: texts, songs, moments of songs, and sums and differences of these."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrieval.audio import file_sha256
from retrieval.embedder import Embedder
from retrieval.errors import SearchError


@dataclass(frozen=True)
class Part:
    """A text or a song of a query, with its weight.

    Attributes:
        weight: how much it counts; below 0, songs that fit it fall.
        text: what songs shall be like, or empty.
        path: an audio file that they shall sound like, None for a text.
        start_s, end_s: the moment of the file that counts; all of it by default.
    """

    weight: float = 1.0
    text: str = ""
    path: Path | None = None
    start_s: float = 0.0
    end_s: float = float("inf")


class Query:
    """A weighted sum of texts and songs.

    ``Text("a slow piano") + 0.5 * Song("a.mp3") - 0.3 * Text("drums")`` asks for songs that fit the
    text, half as much for those that sound like the file, and against those with drums. Make
    queries with :func:`Text`, :func:`Song`, and ``+``, ``-`` and ``*``.
    """

    def __init__(self, parts: tuple[Part, ...]):
        self.parts = parts

    @property
    def words(self) -> str:
        """The texts that are asked for, those of negative weight left out."""
        return " ".join(part.text for part in self.parts if part.weight > 0)

    def __add__(self, other: Query) -> Query:
        return Query(self.parts + other.parts)

    def __sub__(self, other: Query) -> Query:
        return self + -1.0 * other

    def __neg__(self) -> Query:
        return -1.0 * self

    def __rmul__(self, factor: float) -> Query:
        return Query(tuple(replace(part, weight=factor * part.weight) for part in self.parts))

    __mul__ = __rmul__

    def __repr__(self) -> str:
        return " + ".join(f"{p.weight:g} * {_name(p)!r}" for p in self.parts)


def Text(text: str) -> Query:
    """Songs that fit a text of any length."""
    return Query((Part(text=text),))


def Song(path: str | Path, start_s: float = 0.0, end_s: float = float("inf")) -> Query:
    """Songs that sound like a file, or like a moment of it: each clip in it asks alike.

    Raises:
        SearchError: the moment has no length.
    """
    if not 0 <= start_s < end_s:
        raise SearchError(f"moment: got {start_s} to {end_s} s, expected 0 <= start_s < end_s")
    return Query((Part(path=Path(path), start_s=start_s, end_s=end_s),))


@dataclass(frozen=True)
class QueryEmbedding:
    """A query in the joint space.

    Attributes:
        passages: what stands for each row, for people.
        passage_emb: float32 ``[passages, dim]``, unit rows.
        passage_weight: float32 ``[passages]``; the positive ones sum to 1.
        contents: SHA-256 of the files that were asked with, which are left out of the answer.
    """

    passages: list[str]
    passage_emb: np.ndarray
    passage_weight: np.ndarray
    contents: tuple[str, ...] = ()


def embed_query(query: str | Query, model: Embedder) -> QueryEmbedding:
    """Embed all parts of a query.

    Args:
        query: a text, or a sum of parts.
        model: embeds texts and songs.

    Raises:
        TextError: a text is empty. AudioError: a file gives no usable sound.
        SearchError: no part has a weight above 0, or a weight is not finite.
    """
    parts = (Text(query) if isinstance(query, str) else query).parts
    weights = np.array([part.weight for part in parts])
    if not np.isfinite(weights).all() or not (weights > 0).any():
        raise SearchError(
            f"query: got weights {weights.tolist()}, expected finite ones, at least one above 0"
        )
    total = weights[weights > 0].sum()
    found = [_embed(part, model) for part in parts]
    return QueryEmbedding(
        [
            _label(part, passage, len(parts) > 1)
            for part, one in zip(parts, found, strict=True)
            for passage in one.passages
        ],
        np.concatenate([one.passage_emb for one in found]),
        np.concatenate(
            [w / total * one.passage_weight for w, one in zip(weights, found, strict=True)]
        ).astype(np.float32),
        tuple(content for one in found for content in one.contents),
    )


def _embed(part: Part, model: Embedder) -> QueryEmbedding:
    if part.path is None:
        text = model.embed_text(part.text)
        return QueryEmbedding(text.passages, text.passage_emb, text.passage_weight)
    song = model.embed_song(part.path)
    times = song.clip_times
    heard = (times[:, 1] > part.start_s) & (times[:, 0] < part.end_s)
    if not heard.any():
        raise SearchError(
            f"moment: {part.start_s:g} s is behind the end of {part.path} "
            f"({song.duration_s:.0f} s long)"
        )
    passages = [f"{start:.0f}-{end:.0f} s" for start, end in times[heard]]
    weight = np.full(len(passages), 1 / len(passages), np.float32)
    rows = model.song_as_query(song.clip_emb[heard])
    return QueryEmbedding(passages, rows, weight, (file_sha256(part.path),))


def _label(part: Part, passage: str, several: bool) -> str:
    """What stands for a row: in a sum the file too, and ``not`` before what is unwanted."""
    name = f"{part.path.stem} {passage}" if part.path is not None and several else passage
    return f"not: {name}" if part.weight < 0 else name


def _name(part: Part) -> str:
    return part.text or str(part.path)
