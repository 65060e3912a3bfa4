from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import MetricError
from retrieval.evaluation import evaluate_scores, mean_recall
from retrieval.metrics import (
    average_precision,
    chance_of_hit,
    ndcg,
    precision_at,
    ranked_gains,
    recall_at,
    reciprocal_rank,
    trec_order,
)


def test_negative_scores_of_a_perfect_ranking_are_perfect() -> None:
    scores = np.array([[-0.1, -0.9], [-0.8, -0.2]])
    result = evaluate_scores(scores, np.array([0, 1]), ks=(1, 5, 10))
    assert result["text_to_music"]["recall@1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["music_to_text"]["mrr"]["value"] == 1.0
    assert mean_recall(result) == 1.0


def test_a_constant_model_scores_at_worst() -> None:
    result = evaluate_scores(np.zeros((4, 4)), np.arange(4))
    assert result["text_to_music"]["median_rank"]["value"] == 4
    assert result["text_to_music"]["recall@1"]["value"] == 0


def test_several_captions_a_song_by_hand() -> None:
    # Songs 0 and 1; texts 0 and 1 are about song 0, text 2 about song 1.
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.7]])
    result = evaluate_scores(scores, np.array([0, 0, 1]), ks=(1, 2), n_bootstrap=100)
    assert result["text_to_music"]["recall@1"]["value"] == pytest.approx(1 / 3)
    # Song 0 ranks texts 0, 2, 1; song 1 ranks texts 2, 1, 0.
    assert result["music_to_text"]["recall@1"]["value"] == 1
    average = (1 + 2 / 3) / 2
    assert result["music_to_text"]["map@10"]["value"] == pytest.approx((average + 1) / 2)
    low, high = (result["text_to_music"]["recall@1"][key] for key in ("low", "high"))
    assert low <= 1 / 3 <= high


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(MetricError, match="scores"):
        evaluate_scores(np.array([[bad, 0.0]]), np.array([0]))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_metrics_do_not_depend_on_the_order_of_songs(texts: int, songs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-3, 3, (texts, songs)) / 3  # many ties
    own = rng.integers(0, songs, texts)
    order = rng.permutation(songs)
    a = evaluate_scores(scores, own, n_bootstrap=0)
    b = evaluate_scores(scores[:, order], np.argsort(order)[own], n_bootstrap=0)
    assert a["text_to_music"] == b["text_to_music"]
    for name in ("mrr", "map@10", "ndcg@10", "recall@5"):
        assert 0 <= a["music_to_text"][name]["value"] <= 1
        assert a["music_to_text"][name]["value"] == pytest.approx(b["music_to_text"][name]["value"])


def test_chance_agrees_with_drawing() -> None:
    rng = np.random.default_rng(0)
    hits = [(rng.permutation(12)[:3] < 5).any() for _ in range(20_000)]
    assert chance_of_hit(12, 5, 3) == pytest.approx(np.mean(hits), abs=0.01)


def read_trec(folder: Path, qrels: str) -> tuple[dict, dict]:
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / qrels).read_text().splitlines():
        query, _, name, level = line.split()
        judged[query][name] = int(level)
    ranked: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for line in (folder / "results.test").read_text().splitlines():
        query, _, name, _, score, _ = line.split()
        ranked[query].append((name, float(score)))
    return judged, ranked


def trec_figures(
    judged: dict[str, int], ranked: list[tuple[str, float]], level: int = 1
) -> dict[str, float]:
    """trec_eval's measures by our functions; ``level`` is the least that counts as relevant."""
    names = [name for name, _ in ranked]
    order = trec_order([score for _, score in ranked], names)
    graded = np.array([max(judged.get(names[i], 0), 0) for i in order], dtype=float)
    hits = np.where(graded >= level, 1.0, 0.0)
    total = sum(value >= level for value in judged.values())
    ideal = np.array([max(value, 0) for value in judged.values()], dtype=float)
    figures = {
        "map": average_precision(hits, total),
        "recip_rank": reciprocal_rank(hits),
        "ndcg": ndcg(graded, ideal),
        "ndcg_cut_10": ndcg(graded, ideal, 10),
        "map_cut_10": average_precision(hits, total, 10),
    }
    for k in (5, 10, 15, 20, 30, 100, 200, 500, 1000):
        figures[f"P_{k}"] = precision_at(hits, k)
        figures[f"recall_{k}"] = recall_at(hits, k, total)
    return figures


@pytest.mark.parametrize(
    ("qrels", "out", "level"),
    [
        ("qrels.test", "out.test.a", 1),
        ("qrels.test", "out.test.aq", 1),
        ("qrels.rel_level", "out.test.aql", 2),
    ],
)
def test_agrees_with_trec_eval(shared_data: Path, qrels: str, out: str, level: int) -> None:
    folder = shared_data / "metrics" / "trec_eval"
    if not (folder / out).exists():
        pytest.skip(f"{out} is not there")
    judged, ranked = read_trec(folder, qrels)
    per_query = {q: trec_figures(judged[q], ranked[q], level) for q in ranked if q in judged}
    everything = {
        name: np.mean([figures[name] for figures in per_query.values()])
        for name in next(iter(per_query.values()))
    }
    compared = 0
    for line in (folder / out).read_text().splitlines():
        name, query, value = line.split()
        ours = everything if query == "all" else per_query.get(query, {})
        if name in ours:
            assert f"{ours[name]:.4f}" == f"{float(value):.4f}", (name, query)
            compared += 1
    assert compared >= 20


def test_ranked_gains_equal_a_slow_sort() -> None:
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 4, (20, 9)).astype(float)
    relevance = rng.integers(0, 2, (20, 9))
    for row, (s, r) in enumerate(zip(scores, relevance, strict=True)):
        slow = [g for _, g in sorted(zip(-s, r, strict=True))]
        assert ranked_gains(scores, relevance)[row].tolist() == slow
