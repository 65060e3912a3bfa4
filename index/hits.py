"""Answers as users see them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from index.moments import Moment, Stretch, merge_moments
from index.records import SongRecord
from index.walk import Ranking


@dataclass(frozen=True)
class Hit:
    """One song of an answer; ``moments`` tells where each passage of the query was heard."""

    id: int
    path: str
    title: str
    score: float
    duration_s: float
    moments: list[Moment]

    @property
    def stretches(self) -> list[Stretch]:
        """The same in the order of the song, passages heard at the same place together."""
        return merge_moments(self.moments)


@dataclass(frozen=True)
class StoredSong:
    """A song as stored: its record, clips ``[clips, dim]`` and their times in seconds."""

    record: SongRecord
    clip_emb: np.ndarray
    clip_times: np.ndarray


@dataclass(frozen=True)
class TextHit:
    """One stored text of an answer; ``song`` is the id of the song that it came with."""

    id: int
    text: str
    score: float
    song: int | None


class Hits(list[Hit]):
    """An answer: a list, with ``exact``, ``bound_gap`` and ``scored`` of :class:`Ranking`."""

    def __init__(self, hits: Iterable[Hit], ranking: Ranking, passages: list[str]):
        super().__init__(hits)
        self.exact, self.bound_gap = ranking.exact, ranking.bound_gap
        self.scored = ranking.scored
        self.passages = passages
