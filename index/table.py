"""Embeddings of many owners, row after row: clips of songs, or passages of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrieval.errors import SearchError

# Rows that are worked on together, so that memory stays small (128 MiB at 256 dimensions).
_BLOCK_ROWS = 1 << 17


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

    @property
    def longest(self) -> int:
        """Most rows of one owner."""
        return int(np.diff(self.offsets).max(initial=1))

    @cached_property
    def _begins(self) -> np.ndarray:
        """First row of each part, and the number of all rows."""
        return np.concatenate([[0], np.cumsum([len(p) for p in self.parts])]).astype(np.int64)

    def rows(self, owner: int) -> np.ndarray:
        """Rows of one owner, float32 ``[rows, dim]``."""
        first, last = self.offsets[owner], self.offsets[owner + 1]
        part = int(np.searchsorted(self._begins, first, "right")) - 1
        begin = self._begins[part]
        return self.parts[part][first - begin : last - begin].astype(np.float32)

    def weights(self, owner: int) -> np.ndarray:
        """Passage weights of one owner, float32; a table of clips has none."""
        if self.weight is None:
            raise SearchError("weights: this table holds clips, expected passages")
        return self.weight[self.offsets[owner] : self.offsets[owner + 1]]

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """``first, last, rows`` of owners ``first:last``, as they are stored, part by part."""
        first = 0
        for part, begin, end in zip(self.parts, self._begins[:-1], self._begins[1:], strict=True):
            stop = int(np.searchsorted(self.offsets, end))
            while first < stop:
                limit = self.offsets[first] + _BLOCK_ROWS
                last = int(np.searchsorted(self.offsets, limit, "right")) - 1
                last = min(max(last, first + 1), stop)
                yield first, last, part[self.offsets[first] - begin : self.offsets[last] - begin]
                first = last


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
