"""Embeddings of many owners, row after row: clips of songs, or passages of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrieval.errors import SearchError


@dataclass(frozen=True)
class Span:
    """The owners ``first:last`` of a table, whose rows lie in one array.

    Attributes:
        first, last: owners.
        rows: ``[rows, dim]``, contiguous.
        offsets: int64 ``[last - first + 1]`` into ``rows``.
    """

    first: int
    last: int
    rows: np.ndarray
    offsets: np.ndarray

    def within(self, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``owners`` of those that lie here, and their numbers counted from ``first``."""
        places = np.flatnonzero((owners >= self.first) & (owners < self.last))
        return places, owners[places] - self.first


@dataclass(frozen=True)
class Ragged:
    """Rows of many owners, where they lie: nothing is copied together.

    Attributes:
        parts: float32 or float16 ``[rows of the part, dim]``, unit rows; an owner's rows are all
            in one part.
        offsets: int64 ``[owners + 1]``; owner i has the rows ``offsets[i]:offsets[i + 1]``,
            counted through all parts, at least one.
        weight: float32 ``[rows]`` for passages, None for clips.
    """

    parts: tuple[np.ndarray, ...]
    offsets: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def dim(self) -> int:
        """Width of a row."""
        return int(self.parts[0].shape[1]) if self.parts else 0

    @property
    def n_rows(self) -> int:
        """Rows of all owners."""
        return int(self.offsets[-1])

    @cached_property
    def longest(self) -> int:
        """Most rows of one owner."""
        return int(self.counts.max(initial=1))

    @cached_property
    def counts(self) -> np.ndarray:
        """Rows of each owner, int64 ``[owners]``."""
        return np.diff(self.offsets)

    @cached_property
    def _begins(self) -> np.ndarray:
        """First row of each part, and the number of all rows."""
        return np.concatenate([[0], np.cumsum([len(p) for p in self.parts])]).astype(np.int64)

    @cached_property
    def spans(self) -> list[Span]:
        """Which owners lie in which part, in order."""
        edges = np.searchsorted(self.offsets, self._begins)
        return [
            Span(
                int(first),
                int(last),
                np.ascontiguousarray(part),
                self.offsets[first : last + 1] - begin,
            )
            for part, begin, first, last in zip(
                self.parts, self._begins[:-1], edges[:-1], edges[1:], strict=True
            )
        ]

    def rows(self, owner: int) -> np.ndarray:
        """Rows of one owner, float32 ``[rows, dim]``."""
        first, last = self.offsets[owner], self.offsets[owner + 1]
        part = int(np.searchsorted(self._begins, first, "right")) - 1
        begin = self._begins[part]
        return self.parts[part][first - begin : last - begin].astype(np.float32)

    def weights(self, owner: int) -> np.ndarray:
        """Passage weights of one owner, float32; a table of clips has none."""
        return self.all_weights[self.offsets[owner] : self.offsets[owner + 1]]

    @property
    def all_weights(self) -> np.ndarray:
        """Passage weights, float32 ``[rows]``; a table of clips has none."""
        if self.weight is None:
            raise SearchError("weights: this table holds clips, expected passages")
        return self.weight


def stack(
    parts: Sequence[np.ndarray], dim: int, weights: Sequence[np.ndarray] | None = None
) -> Ragged:
    """Join the rows of many owners into one table."""
    counts = [len(part) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    emb = np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)
    weight = None
    if weights is not None:
        weight = np.concatenate(weights) if weights else np.zeros(0, np.float32)
    return Ragged((np.ascontiguousarray(emb, np.float32),), offsets, weight)
