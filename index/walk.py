"""Which rows can still win: scores by falling bound until nothing unscored can be better."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.exact import POOLINGS
from retrieval.errors import SearchError

MODES = ("auto", "exact", "certified")
#: Rows whose scores are computed together while the bar still rises.
_BATCH = 64


@dataclass(frozen=True)
class Ranking:
    """The best rows of a search.

    Equal scores stand in the order of their rows, in every mode.

    Attributes:
        rows: int64 ``[k]``, best first.
        scores: float64 ``[k]``, falling.
        exact: whether no other row can score higher than the last of these.
        bound_gap: by how much another row might at most score higher; 0 where exact, infinite where
            no bounds were made.
        scored: rows whose score was computed from their embeddings.
    """

    rows: np.ndarray
    scores: np.ndarray
    exact: bool
    bound_gap: float
    scored: int


class Bounds(Protocol):
    """What is known of scores before they are computed; infinite where nothing is."""

    def guesses(self) -> np.ndarray:
        """Where the best may be, quickly, float32 ``[all]``: by the mean of what an owner has."""

    def __call__(self, bar: float) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of scores, as close as needed to be below the bar, and estimates of the others.

        float32 ``[all]`` each, arrays that the caller may write to.
        """


class Walk:
    """Scores rows by falling bound until the k-th best score is above all bounds that are left.

    Args:
        rows: what can be answers, int64 numbers, or None for all.
        k: how many are wanted.
        fast: scores of some rows, each within ``slack`` of the true one.
        slack: likewise.
        budget: most rows to score, or None.
    """

    def __init__(
        self,
        rows: np.ndarray | None,
        k: int,
        fast: Callable[[np.ndarray], np.ndarray],
        slack: float,
        budget: int | None,
    ):
        self._among, self._k, self._fast, self._slack = rows, k, fast, slack
        self._budget = sys.maxsize if budget is None else budget
        self._rows, self._upper = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._scored, self._values = np.zeros(0, np.int64), np.zeros(0)
        #: No row below it is among the first k.
        self._bar = -np.inf

    def run(self, bounds: Bounds) -> None:
        """Score until it is proven of all rows, or the budget is used up."""
        batch = max(_BATCH, 2 * self._k)
        likely = largest(self._of(bounds.guesses()), min(batch, (self._budget + 1) // 2))
        # A high bar lets bounds be left wide. What is spent on guesses is not left for bounds.
        self._score(likely if self._among is None else self._among[likely])
        upper, middle = (self._of(found) for found in bounds(self._bar))
        upper[likely] = np.nan  # below every bar
        places = np.flatnonzero(upper >= self._bar)
        self._rows = places if self._among is None else self._among[places]
        self._upper = upper[places]
        self._take(largest(middle[places], batch))
        order = np.lexsort((self._rows, -self._upper))
        self._rows, self._upper = self._rows[order], self._upper[order]
        while len(self._rows) and len(self._scored) < self._budget:
            self._take(np.arange(min(batch, len(self._rows))))
            batch *= 2

    def _of(self, every: np.ndarray) -> np.ndarray:
        return every if self._among is None else every[self._among]

    def ranking(self, score: Callable[[int], float]) -> Ranking:
        """The answer, with true scores; what was left unscored may leave a gap."""
        count = len(self._scored)
        found = rescore(score, self._scored, self._values, self._k, self._slack, count)
        if not len(self._rows):
            return found
        kth = found.scores[-1] if len(found.scores) == self._k else -np.inf
        gap = float(self._upper.max() - kth)
        return Ranking(found.rows, found.scores, gap < 0, max(gap, 0.0), count)

    def _take(self, places: np.ndarray) -> None:
        """Score the rows at some places, as far as the budget goes, and forget what cannot win.

        A row whose bound equals the bar may tie, and stays.
        """
        places = places[: self._budget - len(self._scored)]
        self._score(self._rows[places])
        self._upper[places] = np.nan
        kept = np.flatnonzero(self._upper >= self._bar)
        self._rows, self._upper = self._rows[kept], self._upper[kept]

    def _score(self, chosen: np.ndarray) -> None:
        """Score some rows and raise the bar."""
        self._scored = np.concatenate([self._scored, chosen])
        self._values = np.concatenate([self._values, self._fast(chosen)])
        if len(self._values) >= self._k:
            self._bar = float(np.partition(self._values, -self._k)[-self._k]) - self._slack


def check_arguments(k: int, mode: str, pooling: str, budget: int | None) -> None:
    """Raise SearchError where one of them is out of range."""
    if k < 1:
        raise SearchError(f"k: got {k}, expected at least 1")
    if mode not in MODES:
        raise SearchError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if pooling not in POOLINGS:
        raise SearchError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if budget is not None and budget < k:
        raise SearchError(f"budget: got {budget}, expected at least k = {k}")


def rank(score: Callable[[int], float], rows: np.ndarray, k: int, scored: int) -> Ranking:
    """The best of some rows by their true scores."""
    pairs = sorted(((score(int(row)), int(row)) for row in rows), key=lambda p: (-p[0], p[1]))[:k]
    best = np.array([row for _, row in pairs], np.int64)
    return Ranking(best, np.array([value for value, _ in pairs]), True, 0.0, scored)


def rescore(
    score: Callable[[int], float],
    rows: np.ndarray,
    fast: np.ndarray,
    k: int,
    slack: float,
    scored: int,
) -> Ranking:
    """Score again, in float64, every row that rounding may have kept from the first k."""
    if len(rows) > k:
        kth = np.partition(fast, len(fast) - k)[len(fast) - k]
        rows = rows[fast >= kth - 2 * slack]
    return rank(score, rows, k, scored)


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values, largest first."""
    places = np.arange(len(values))
    if len(values) > 64 * count:
        # As many blocks have a value of at least `least`, so the largest have it too.
        blocks = values[: len(values) // (4 * count) * 4 * count].reshape(4 * count, -1)
        least = np.partition(blocks.max(axis=1), -count)[-count]
        places = np.flatnonzero(values >= least)
    if len(places) > count:
        own = values[places]
        places = places[np.argpartition(own, len(own) - count)[len(own) - count :]]
    return places[np.argsort(-values[places], kind="stable")]
