"""From a matrix of scores to the figures of a results table, both directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.errors import MetricError
from retrieval.metrics import (
    average_precision,
    chance_of_hit,
    check_scores,
    ndcg,
    ranked_gains,
    reciprocal_rank,
)


@dataclass(frozen=True)
class Pool:
    """Scores ``[texts, songs]``, each text's song, and which songs each text fits (its own)."""

    scores: np.ndarray
    text_song: np.ndarray
    relevance: np.ndarray | None = None


DIRECTIONS = ("text_to_music", "music_to_text")
_CURVE = 100


def evaluate_scores(
    scores: np.ndarray,
    text_song: np.ndarray,
    *,
    relevance: np.ndarray | None = None,
    ks: Sequence[int] = (1, 5, 10),
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure retrieval in both directions.

    ``recall@k`` is the share of queries with a relevant item among the first k. The median rank
    is that of the first relevant item, from 1. Ties are at their worst
    (:mod:`retrieval.metrics`). Intervals are 95 % percentiles of a bootstrap over songs: all
    texts of a drawn song come together, since they are not independent.

    Args:
        scores: ``[texts, songs]``.
        text_song: int ``[texts]``, the song each text was written about.
        relevance: bool ``[texts, songs]``; by default each text fits its own song alone.
        ks: cut-offs of recall.
        n_bootstrap: resamples; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        For each of :data:`DIRECTIONS`: ``queries``, ``pool``, ``recall@k``, ``median_rank``,
        ``median_rank_percent``, ``mrr``, ``map@10``, ``ndcg@10`` (each with value, low, high),
        ``chance`` (recall@k of a random order) and ``recall_curve`` from k = 1.

    Raises:
        MetricError: shapes do not fit or a score is not finite.
    """
    pool = Pool(scores, text_song, relevance)
    return evaluate_pools([pool], ks=ks, n_bootstrap=n_bootstrap, seed=seed)


def evaluate_pools(
    pools: Sequence[Pool],
    *,
    ks: Sequence[int] = (1, 5, 10),
    n_bootstrap: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """As :func:`evaluate_scores`, over the queries of several pools, such as folds.

    Every query is ranked within its own pool; ``pool`` and the ranks in percent are those of the
    mean size.
    """
    checked = [_check_pool(pool) for pool in pools]
    rng = np.random.default_rng(seed)
    result = {}
    for direction in DIRECTIONS:
        tables, clusters, sizes = [], [], []
        for number, (scores, text_song, relevance) in enumerate(checked):
            has_text = relevance.any(axis=0)
            if direction == "text_to_music":
                tables.append(_per_query(scores, relevance, ks))
                cluster = text_song
            else:
                tables.append(_per_query(scores.T[has_text], relevance.T[has_text], ks))
                cluster = np.flatnonzero(has_text)
            clusters.append(np.stack([np.full(len(cluster), number), cluster]))
            sizes.append(np.full(len(cluster), scores.shape[direction == "text_to_music"]))
        joined = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
        _, member = np.unique(np.concatenate(clusters, axis=1), axis=1, return_inverse=True)
        result[direction] = _summary(
            joined, member.reshape(-1), np.concatenate(sizes), ks, n_bootstrap, rng
        )
    return result


def _check_pool(pool: Pool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, text_song = np.asarray(pool.scores, dtype=np.float64), np.asarray(pool.text_song)
    if scores.ndim != 2 or not scores.size or text_song.shape != scores.shape[:1]:
        raise MetricError(
            f"scores, text_song: got shapes {scores.shape}, {text_song.shape}, expected "
            "[texts, songs] and [texts]"
        )
    check_scores(scores)
    relevance = pool.relevance
    if relevance is None:
        relevance = text_song[:, None] == np.arange(scores.shape[1])[None, :]
    return scores, text_song, relevance


def share(
    values: np.ndarray, cluster: np.ndarray, n_bootstrap: int = 2000, seed: int = 0
) -> dict[str, float | None]:
    """Mean of values with its 95 % interval, by a bootstrap over clusters.

    Args:
        values: float ``[n]``.
        cluster: int ``[n]``; the values of one, such as a song, are drawn together.
        n_bootstrap: resamples; 0 leaves the interval out.
        seed: of the resampling.

    Returns:
        ``value``, ``low``, ``high``.
    """
    draws = _bootstrap_weights(cluster, n_bootstrap, np.random.default_rng(seed))
    return _with_interval(np.asarray(values, dtype=np.float64), draws)


def mean_recall(result: dict[str, Any]) -> float:
    """Mean of recall@1, 5 and 10 of both directions, 0..1; what training stops by."""
    values = [result[d][f"recall@{k}"]["value"] for d in DIRECTIONS for k in (1, 5, 10)]
    return float(np.mean(values))


def _per_query(
    scores: np.ndarray, relevance: np.ndarray, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    gains = ranked_gains(scores, relevance.astype(np.int64))
    rank = gains.argmax(axis=1) + 1
    totals = relevance.sum(axis=1)
    table: dict[str, np.ndarray] = {f"recall@{k}": (rank <= k).astype(float) for k in ks}
    table["rank"] = rank
    table["mrr"] = np.array([reciprocal_rank(g) for g in gains])
    table["map@10"] = np.array(
        [average_precision(g, min(t, 10), 10) for g, t in zip(gains, totals, strict=True)]
    )
    table["ndcg@10"] = np.array([ndcg(g, g, 10) for g in gains])
    table["total"] = totals
    return table


def _summary(
    table: dict[str, np.ndarray],
    cluster: np.ndarray,
    sizes: np.ndarray,
    ks: Sequence[int],
    n_bootstrap: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    rank, totals = table["rank"], table["total"]
    pool = round(float(np.unique(sizes).mean()))
    pairs = list(zip(sizes.tolist(), totals.tolist(), strict=True))
    draws = _bootstrap_weights(cluster, n_bootstrap, rng)
    result: dict[str, Any] = {"queries": len(rank), "pool": pool}
    for name in (*[f"recall@{k}" for k in ks], "mrr", "map@10", "ndcg@10"):
        result[name] = _with_interval(table[name], draws)
    middles = _weighted_medians(rank, draws)
    result["median_rank"] = _interval(float(np.median(rank)), middles)
    result["median_rank_percent"] = {
        key: None if value is None else 100 * value / pool
        for key, value in result["median_rank"].items()
    }
    result["chance"] = {
        f"recall@{k}": float(np.mean([chance_of_hit(n, t, k) for n, t in pairs])) for k in ks
    }
    curve = np.arange(1, min(pool, _CURVE) + 1)
    result["recall_curve"] = [float((rank <= k).mean()) for k in curve]
    result["chance_curve"] = [
        float(np.mean([chance_of_hit(n, t, int(k)) for n, t in pairs])) for k in curve
    ]
    return result


def _bootstrap_weights(cluster: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each query is drawn: int ``[n, queries]``; whole clusters at a time."""
    _, member = np.unique(cluster, return_inverse=True)
    count = int(member.max()) + 1
    times = rng.multinomial(count, np.full(count, 1 / count), size=n)
    return times[:, member]


def _with_interval(values: np.ndarray, draws: np.ndarray) -> dict[str, float | None]:
    means = draws @ values / np.maximum(draws.sum(axis=1), 1)
    return _interval(float(values.mean()), means)


def _weighted_medians(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(draws[:, order], axis=1)
    total = reached[:, -1:]
    low = values[order][(2 * reached >= total).argmax(axis=1)]
    high = values[order][(2 * reached > total).argmax(axis=1)]
    return (low + high) / 2


def _interval(value: float, samples: np.ndarray) -> dict[str, float | None]:
    if not len(samples):
        return {"value": value, "low": None, "high": None}
    low, high = np.percentile(samples, [2.5, 97.5])
    return {"value": value, "low": float(low), "high": float(high)}
