"""Searching with a proof: bounds of all, exact scores of those that can still win."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from index.bounds import Passages, song_bounds, text_bounds, tight_bounds
from index.codes import Codes
from index.exact import POOLINGS, check_finite, fast_scores, pair_score, rounding
from index.table import Ragged
from retrieval.errors import SearchError

MODES = ("auto", "exact", "certified")
#: With so few clips in all, reading every one is as quick as reading codes first.
_FEW_CLIPS = 1 << 16
#: Songs whose scores are computed together while the bar still rises.
_BATCH = 64
#: Queries whose bounds are made together: their passages and one song's codes stay in the cache.
_TOGETHER = 8


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


def search_songs(
    passage_emb: np.ndarray,
    passage_weight: np.ndarray,
    clips: Ragged,
    tau: float,
    k: int,
    *,
    rows: np.ndarray | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
    pooling: str = "attention",
) -> Ranking:
    """The k songs that one query fits best; the arguments are those of :func:`search_each`."""
    query = as_passages(passage_emb, passage_weight)
    return search_each(
        [query], clips, tau, k, rows=[rows], mode=mode, codes=codes, budget=budget, pooling=pooling
    )[0]


def search_each(
    queries: Sequence[Passages],
    clips: Ragged,
    tau: float,
    k: int,
    *,
    rows: Sequence[np.ndarray | None] | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
    pooling: str = "attention",
) -> list[Ranking]:
    """The k songs that each query fits best; codes are read once for several queries.

    Args:
        queries: see :func:`as_passages`.
        clips: clips of all songs.
        tau: temperature.
        k: how many songs; fewer come back where there are fewer.
        rows: for each query the songs to choose from, by number, or None for all.
        mode: ``exact`` scores every song; ``certified`` bounds every song by its codes and scores
            those that the bounds leave open; ``auto`` takes the quicker. All give the same answer.
        codes: gives those of each part of ``clips``; asked for when they are needed.
        budget: most songs that may be scored; the answer may then be inexact, and says so.
        pooling: the design's ``attention``, or a baseline (always scored in full).

    Raises:
        SearchError: an argument is out of range or not finite.
    """
    _check(k, mode, pooling, budget)
    every = np.arange(len(clips))
    chosen = [
        every if r is None else np.asarray(r, np.int64) for r in rows or [None] * len(queries)
    ]
    if pooling == "attention" and codes is not None and mode != "exact":
        most = max((int(clips.counts[own].sum()) for own in chosen), default=0)
        if mode == "certified" or budget is not None or most > _FEW_CLIPS:
            return _certified(queries, clips, tau, k, chosen, codes(), budget)
    found = []
    for query, own in zip(queries, chosen, strict=True):
        score = _true_score(query, clips, tau, pooling)
        if pooling == "attention":
            fast = fast_scores(query.emb, query.weight, clips, tau, own)
            slack = rounding(clips.dim, tau, clips.longest) * query.size
            found.append(_rescore(score, own, fast, k, slack, len(own)))
        else:
            found.append(_ranking(score, own, k, len(own)))
    return found


def as_passages(passage_emb: np.ndarray, passage_weight: np.ndarray) -> Passages:
    """A query, ready for the loops; SearchError where a number is not finite."""
    check_finite("query", passage_emb, passage_weight)
    return Passages(
        np.ascontiguousarray(passage_emb, np.float32),
        np.ascontiguousarray(passage_weight, np.float32),
    )


def _certified(
    queries: Sequence[Passages],
    clips: Ragged,
    tau: float,
    k: int,
    rows: Sequence[np.ndarray],
    codes: Sequence[Codes | None],
    budget: int | None,
) -> list[Ranking]:
    found = []
    for start in range(0, len(queries), _TOGETHER):
        some = queries[start : start + _TOGETHER]
        upper = song_bounds(some, clips, codes)
        for query, bound, own in zip(some, upper, rows[start : start + _TOGETHER], strict=True):
            slack = rounding(clips.dim, tau, clips.longest) * query.size
            fast = partial(fast_scores, query.emb, query.weight, clips, tau)
            own_bound = bound if len(own) == len(bound) else bound[own]
            walk = _Walk(own, own_bound, k, fast, slack, budget or len(own))
            walk.run(partial(tight_bounds, query, clips, codes, tau))
            found.append(walk.ranking(_true_score(query, clips, tau, "attention")))
    return found


def _true_score(query: Passages, clips: Ragged, tau: float, pooling: str) -> Callable[[int], float]:
    return lambda row: pair_score(query.emb, query.weight, clips.rows(row), tau, pooling)


def search_texts(
    clip_emb: np.ndarray,
    texts: Ragged,
    tau: float,
    k: int,
    *,
    rows: np.ndarray | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
) -> Ranking:
    """The k stored texts that fit one song best; arguments as in :func:`search_songs`."""
    _check(k, mode, "attention", budget)
    check_finite("song", clip_emb)
    rows = np.arange(len(texts)) if rows is None else np.asarray(rows, np.int64)

    def score(row: int) -> float:
        return pair_score(texts.rows(row), texts.weights(row), clip_emb, tau)

    def every(some: np.ndarray) -> np.ndarray:
        return np.array([score(int(row)) for row in some])

    if codes is None or mode == "exact":
        return _ranking(score, rows, k, len(rows))
    upper = text_bounds(clip_emb, texts, codes())[rows]
    walk = _Walk(rows, upper, k, every, 0.0, budget or len(rows))
    walk.run(lambda some, bar: None)
    return walk.ranking(score)


class _Walk:
    """Scores rows by falling bound until the k-th best score is above all bounds that are left.

    Args:
        rows: to choose from.
        upper: a bound of each.
        k: how many are wanted.
        fast: scores of some rows, each within ``slack`` of the true one.
        budget: most rows to score.
    """

    def __init__(
        self,
        rows: np.ndarray,
        upper: np.ndarray,
        k: int,
        fast: Callable[[np.ndarray], np.ndarray],
        slack: float,
        budget: int,
    ):
        self._rows, self._upper, self._k = rows, upper, k
        self._fast, self._slack, self._budget = fast, slack, budget
        self._scored, self._values = np.zeros(0, np.int64), np.zeros(0)
        #: No row below it is among the first k.
        self._bar = -np.inf

    def run(self, tighten: _Tighten) -> None:
        """Score until the answer is proven or the budget is used up.

        Args:
            tighten: of rows and the bar, better bounds and estimates of the rows, or None.
        """
        most = max(_BATCH, 2 * self._k)
        self._take(np.flatnonzero(np.isinf(self._upper)))  # nothing is known of these
        likely = _largest(self._upper, 8 * most)
        found = tighten(self._rows[likely], -np.inf)
        if found is not None:  # the best by estimates raise the bar at once
            likely = likely[_largest(found[1], most)]
        self._take(likely[:most])
        self._drop()
        found = tighten(self._rows, self._bar)
        if found is not None:
            self._upper = np.minimum(self._upper, found[0])
            self._drop()
        order = np.lexsort((self._rows, -self._upper))
        self._rows, self._upper = self._rows[order], self._upper[order]
        batch = most
        while len(self._rows) and len(self._scored) < self._budget:
            self._take(np.arange(min(batch, len(self._rows))))
            self._drop()
            batch *= 2

    def ranking(self, score: Callable[[int], float]) -> Ranking:
        """The answer, with true scores; what was left unscored may leave a gap."""
        count = len(self._scored)
        found = _rescore(score, self._scored, self._values, self._k, self._slack, count)
        if not len(self._rows):
            return found
        kth = found.scores[-1] if len(found.scores) == self._k else -np.inf
        gap = float(self._upper.max() - kth)
        return Ranking(found.rows, found.scores, gap < 0, max(gap, 0.0), count)

    def _take(self, places: np.ndarray) -> None:
        """Score the rows at some places and raise the bar."""
        places = places[: self._budget - len(self._scored)]
        chosen = self._rows[places]
        self._scored = np.concatenate([self._scored, chosen])
        self._values = np.concatenate([self._values, self._fast(chosen)])
        keep = np.ones(len(self._rows), bool)
        keep[places] = False
        self._rows, self._upper = self._rows[keep], self._upper[keep]
        if len(self._values) >= self._k:
            self._bar = float(np.partition(self._values, -self._k)[-self._k]) - self._slack

    def _drop(self) -> None:
        """Forget rows that cannot win; one whose bound equals the bar may tie, and stays."""
        keep = self._upper >= self._bar
        self._rows, self._upper = self._rows[keep], self._upper[keep]


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values, largest first."""
    if len(values) > count:
        places = np.argpartition(values, len(values) - count)[len(values) - count :]
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")]


def _check(k: int, mode: str, pooling: str, budget: int | None) -> None:
    if k < 1:
        raise SearchError(f"k: got {k}, expected at least 1")
    if mode not in MODES:
        raise SearchError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if pooling not in POOLINGS:
        raise SearchError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if budget is not None and budget < k:
        raise SearchError(f"budget: got {budget}, expected at least k = {k}")


def _ranking(score: Callable[[int], float], rows: np.ndarray, k: int, scored: int) -> Ranking:
    """The best of some rows by their true scores."""
    pairs = sorted(((score(int(row)), int(row)) for row in rows), key=lambda p: (-p[0], p[1]))[:k]
    best = np.array([row for _, row in pairs], np.int64)
    return Ranking(best, np.array([value for value, _ in pairs]), True, 0.0, scored)


def _rescore(
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
    return _ranking(score, rows, k, scored)
