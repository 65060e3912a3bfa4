"""Which rows can still win: scores by falling bound until nothing unscored can be better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.exact import POOLINGS
from retrieval.errors import SearchError

MODES = ("auto", "exact", "certified")
#: Rows whose scores are computed together while the bar still rises.
_BATCH = 64

#: Rows and a bar -> better bounds and estimates of the rows.
_Tighten = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray] | None]


@dataclass(frozen=True)
class Ranking:
    """The best rows of a search.

    Equal scores stand in the order of their rows, in every mode.

    Attributes:
        rows: int64 ``[k]``, best first.
        scores: float64 ``[k]``, falling.
        exact: whether no other row can score higher than the last of these.
        bound_gap: by how much another row might at most score higher; 0 where exact.
        scored: rows whose score was computed from their embeddings.
    """

    rows: np.ndarray
    scores: np.ndarray
    exact: bool
    bound_gap: float
    scored: int


class Walk:
    """Scores rows by falling bound until the k-th best score is above all bounds that are left.

    Args:
        k: how many are wanted.
        fast: scores of some rows, each within ``slack`` of the true one.
        budget: most rows to score.
    """

    def __init__(
        self,
        k: int,
        fast: Callable[[np.ndarray], np.ndarray],
        slack: float,
        budget: int,
    ):
        self._k, self._fast, self._slack, self._budget = k, fast, slack, budget
        self._rows, self._upper = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self._scored, self._values = np.zeros(0, np.int64), np.zeros(0)
        #: No row below it is among the first k.
        self.bar = -np.inf

    def run(self, rows: np.ndarray, upper: np.ndarray | None, tighten: _Tighten) -> None:
        """Score until it is proven of these rows too, or the budget is used up.

        Args:
            rows: none of them of an earlier call.
            upper: a bound of each; None goes by the bar of earlier rows and by ``tighten`` alone.
            tighten: of rows and the bar, better bounds and estimates of the rows, or None.
        """
        if not len(rows):
            return
        most = max(_BATCH, 2 * self._k)
        if upper is None:
            self._rows, self._upper = rows, np.full(len(rows), np.finfo(np.float32).max)
        else:
            self._rows, self._upper = rows, upper.copy()
            self._drop()
            if len(self._rows):
                self._raise_bar(tighten, most)
        found = tighten(self._rows, self.bar)
        if found is not None:
            self._upper = np.minimum(self._upper, found[0])
            self._drop()
        order = np.lexsort((self._rows, -self._upper))
        self._rows, self._upper = self._rows[order], self._upper[order]
        batch = most
        while len(self._rows) and len(self._scored) < self._budget:
            self._take(np.arange(min(batch, len(self._rows))))
            batch *= 2

    def _raise_bar(self, tighten: _Tighten, most: int) -> None:
        """Score the likeliest rows first."""
        unknown = np.flatnonzero(np.isinf(self._upper))
        if len(unknown):  # nothing is known of these
            self._take(unknown)
        likely = _largest(self._upper, 4 * most)
        found = tighten(self._rows[likely], -np.inf)
        if found is not None:  # the best by estimates raise the bar at once
            likely = likely[_largest(found[1], most)]
        self._take(likely[:most])

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
        """Score the rows at some places, raise the bar and forget the rows that cannot win."""
        places = places[: self._budget - len(self._scored)]
        chosen = self._rows[places]
        self._scored = np.concatenate([self._scored, chosen])
        self._values = np.concatenate([self._values, self._fast(chosen)])
        if len(self._values) >= self._k:
            self.bar = float(np.partition(self._values, -self._k)[-self._k]) - self._slack
        self._upper[places] = np.nan  # below every bar
        self._drop()

    def _drop(self) -> None:
        """Forget rows that cannot win; one whose bound equals the bar may tie, and stays."""
        kept = np.flatnonzero(self._upper >= self.bar)
        self._rows, self._upper = self._rows[kept], self._upper[kept]


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


def _largest(values: np.ndarray, count: int) -> np.ndarray:
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
