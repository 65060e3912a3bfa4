"""Searching with a proof: candidates by falling bound, exact scores, and when to stop."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from index.bounds import Balls, song_bounds, text_bounds
from index.exact import POOLINGS, check_finite, fast_scores, pair_score, rounding
from index.table import Ragged
from retrieval.errors import SearchError

MODES = ("exact", "certified", "candidates")


@dataclass(frozen=True)
class Ranking:
    """The best rows of a search.

    Equal scores stand in the order of their rows, in every mode.

    Attributes:
        rows: int64 ``[k]``, best first.
        scores: float64 ``[k]``, falling.
        exact: whether no other row can score higher than the last of these.
        bound_gap: by how much another row might at most score higher; 0 where exact.
        scored: rows whose score was computed.
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
    mode: str = "exact",
    balls: Balls | None = None,
    candidates: np.ndarray | None = None,
    budget: int | None = None,
    pooling: str = "attention",
) -> Ranking:
    """The k songs that one query fits best.

    Args:
        passage_emb: float32 ``[passages, dim]``, unit rows.
        passage_weight: ``[passages]``; that of a text sums to 1, others may be negative.
        clips: clips of all songs.
        tau: temperature.
        k: how many songs; fewer come back where there are fewer.
        rows: songs to choose from, by number; all by default.
        mode: ``exact`` scores every song; ``certified`` walks songs by falling bound and stops
            when no other can reach the k-th. Both give the same answer. ``candidates`` scores the
            given ones only, and says whether the bounds prove that no other song is better.
        balls: of the clips, for ``certified`` and ``candidates``.
        candidates: songs among ``rows`` that an approximate search found.
        budget: most songs that ``certified`` may score; the answer may then be inexact.
        pooling: the design's ``attention``, or a baseline (always scored in full).

    Raises:
        SearchError: an argument is out of range or not finite.
    """
    _check(k, mode, pooling, budget)
    check_finite("query", passage_emb, passage_weight)
    rows = _all_rows(rows, len(clips))

    def score(row: int) -> float:
        return pair_score(passage_emb, passage_weight, clips.rows(row), tau, pooling)

    if pooling != "attention":
        return _score_all(score, rows, k)
    if mode != "exact" and balls is not None:
        bounds = song_bounds(passage_emb, passage_weight, balls)
        if mode == "candidates" and candidates is not None:
            return _score_candidates(score, rows, candidates, bounds, k)
        return _walk(score, rows, bounds, k, budget)
    slack = rounding(clips.dim, tau, clips.longest) * float(np.abs(passage_weight).sum())
    fast = fast_scores(passage_emb, passage_weight, clips, tau)[rows]
    return _rescore(score, rows, fast, k, slack)


def search_texts(
    clip_emb: np.ndarray,
    texts: Ragged,
    tau: float,
    k: int,
    *,
    rows: np.ndarray | None = None,
    mode: str = "exact",
    balls: Balls | None = None,
    budget: int | None = None,
) -> Ranking:
    """The k stored texts that fit one song best; arguments as in :func:`search_songs`."""
    _check(k, mode, "attention", budget)
    check_finite("song", clip_emb)
    rows = _all_rows(rows, len(texts))

    def score(row: int) -> float:
        return pair_score(texts.rows(row), texts.weights(row), clip_emb, tau)

    if mode == "certified" and balls is not None:
        return _walk(score, rows, text_bounds(clip_emb, balls), k, budget)
    return _score_all(score, rows, k)


def _check(k: int, mode: str, pooling: str, budget: int | None) -> None:
    if k < 1:
        raise SearchError(f"k: got {k}, expected at least 1")
    if mode not in MODES:
        raise SearchError(f"mode: got {mode!r}, expected one of {', '.join(MODES)}")
    if pooling not in POOLINGS:
        raise SearchError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if budget is not None and budget < k:
        raise SearchError(f"budget: got {budget}, expected at least k = {k}")


def _all_rows(rows: np.ndarray | None, count: int) -> np.ndarray:
    return np.arange(count) if rows is None else np.asarray(rows, np.int64)


def _ranking(pairs: list[tuple[float, int]], k: int, scored: int, gap: float = 0.0) -> Ranking:
    best = sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
    rows = np.array([row for _, row in best], np.int64)
    return Ranking(rows, np.array([s for s, _ in best]), gap <= 0, max(gap, 0.0), scored)


def _score_all(score: Callable[[int], float], rows: np.ndarray, k: int) -> Ranking:
    return _ranking([(score(int(row)), int(row)) for row in rows], k, len(rows))


def _rescore(
    score: Callable[[int], float], rows: np.ndarray, fast: np.ndarray, k: int, slack: float
) -> Ranking:
    """Score again, in float64, every row that rounding may have kept from the first k."""
    if len(rows) > k:
        kth = np.partition(fast, len(fast) - k)[len(fast) - k]
        near = rows[fast >= kth - 2 * slack]
    else:
        near = rows
    pairs = [(score(int(row)), int(row)) for row in near]
    return _ranking(pairs, k, len(rows))


def _score_candidates(
    score: Callable[[int], float],
    rows: np.ndarray,
    candidates: np.ndarray,
    bounds: np.ndarray,
    k: int,
) -> Ranking:
    """Score candidates; what the bounds leave open for the other rows is the gap."""
    pairs = [(score(int(row)), int(row)) for row in candidates]
    others = np.setdiff1d(rows, candidates)
    if not len(others):
        return _ranking(pairs, k, len(pairs))
    kth = sorted((value for value, _ in pairs), reverse=True)[k - 1] if len(pairs) >= k else -np.inf
    return _ranking(pairs, k, len(pairs), float(bounds[others].max() - kth))


def _walk(
    score: Callable[[int], float], rows: np.ndarray, bounds: np.ndarray, k: int, budget: int | None
) -> Ranking:
    """Score rows by falling bound until the k-th best is above the next bound.

    A row whose bound equals the k-th score may tie with it and stand before it, so only a bound
    that is strictly lower ends the walk.
    """
    order = rows[np.lexsort((rows, -bounds[rows]))]
    pairs: list[tuple[float, int]] = []
    kept: list[float] = []  # min-heap of the k best scores
    for number, row in enumerate(order):
        bound = float(bounds[row])
        full = len(kept) >= k
        if full and bound < kept[0]:
            break
        if budget is not None and number >= budget:
            return _ranking(pairs, k, number, bound - kept[0] if full else np.inf)
        value = score(int(row))
        pairs.append((value, int(row)))
        heapq.heappush(kept, value)
        if len(kept) > k:
            heapq.heappop(kept)
    return _ranking(pairs, k, len(pairs))
