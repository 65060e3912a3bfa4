"""Ranking metrics: pure functions of the order that scores give.

``gains`` is what a ranking shows, best first: the relevance of each item, 0 where it is not
relevant. ``total`` is how many relevant items there are in all, ranked or not.

Ties: :func:`ranked_gains` puts irrelevant items before relevant ones of the same score, so that
a model which gives everything the same score comes out at its worst and not by luck.
:func:`trec_order` follows trec_eval instead (equal scores by document name, descending).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.errors import MetricError


def check_scores(scores: np.ndarray) -> None:
    """Raise MetricError unless every score is a finite number."""
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        raise MetricError(f"scores: {bad} of {scores.size} are NaN or infinite, expected none")


def ranked_gains(scores: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance in the order of falling scores, ties at their worst.

    Args:
        scores: ``[..., items]``, any finite numbers; negative ones are nothing special.
        relevance: ``[..., items]``, non-negative.

    Returns:
        ``[..., items]``.
    """
    check_scores(scores)
    order = np.lexsort((relevance, -scores), axis=-1)
    return np.take_along_axis(relevance, order, axis=-1)


def trec_order(scores: Sequence[float], names: Sequence[str]) -> list[int]:
    """trec_eval's order: falling float32 score, equal ones by falling name."""
    single = [np.float32(score) for score in scores]
    return sorted(range(len(names)), key=lambda i: (single[i], names[i]), reverse=True)


def precision_at(gains: np.ndarray, k: int) -> float:
    """Share of the first k that is relevant; missing items count as not relevant."""
    return float((gains[:k] > 0).sum() / k)


def recall_at(gains: np.ndarray, k: int, total: int) -> float:
    """Share of all relevant items among the first k (trec_eval's ``recall_k``)."""
    return float((gains[:k] > 0).sum() / total) if total else 0.0


def reciprocal_rank(gains: np.ndarray) -> float:
    """1 / rank of the first relevant item, 0 without one."""
    found = np.flatnonzero(gains > 0)
    return 1.0 / (found[0] + 1) if len(found) else 0.0


def average_precision(gains: np.ndarray, total: int, k: int | None = None) -> float:
    """Mean over all relevant items of the precision at their rank; past k counts 0."""
    hit = (gains[:k] > 0).astype(np.float64)
    if not total:
        return 0.0
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return float((precision * hit).sum() / total)


def ndcg(gains: np.ndarray, ideal: np.ndarray, k: int | None = None) -> float:
    """Discounted gain over that of the best order (Jarvelin and Kekalainen 2002).

    The gain is the relevance level itself and the discount ``log2(rank + 1)``, as in trec_eval.

    Args:
        gains: in ranked order.
        ideal: relevance of all judged items, in any order.
        k: ranks that count.
    """
    best = _dcg(np.sort(ideal)[::-1][:k])
    return _dcg(gains[:k]) / best if best > 0 else 0.0


def _dcg(gains: np.ndarray) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def chance_of_hit(pool: int, relevant: int, k: int) -> float:
    """Chance that a random order has one of the relevant items among its first k."""
    if k >= pool:
        return 1.0 if relevant else 0.0
    miss = 1.0
    for i in range(relevant):
        miss *= max(pool - k - i, 0) / (pool - i)
    return 1.0 - miss
