from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_embedder import unit_rows

from index.bounds import make_balls, song_bounds, text_bounds
from index.candidates import mean_candidates, mean_vector, write_faiss
from index.exact import POOLINGS, fast_scores, pair_score, rounding
from index.moments import find_moments
from index.search import search_songs, search_texts
from index.table import Ragged, stack
from retrieval.errors import SearchError


def oracle(q: np.ndarray, w: np.ndarray, c: np.ndarray, tau: float, pooling: str) -> float:
    """The definition as a double loop, nothing shared with the code under test."""
    dim = q.shape[1]
    if pooling == "mean":
        centre = [sum(float(row[d]) for row in c) / len(c) for d in range(dim)]
        norm = math.sqrt(sum(x * x for x in centre))
        return sum(
            float(w[p]) * sum(float(q[p][d]) * centre[d] / norm for d in range(dim))
            for p in range(len(q))
        )
    if pooling == "softmax":
        mixed = [sum(float(w[p]) * float(q[p][d]) for p in range(len(q))) for d in range(dim)]
        size = math.sqrt(sum(x * x for x in mixed))
        return size * oracle(np.array([[x / size for x in mixed]]), np.ones(1), c, tau, "attention")
    total = 0.0
    for p in range(len(q)):
        s = [sum(float(a) * float(b) for a, b in zip(q[p], row, strict=True)) for row in c]
        if pooling == "attention":
            power = [math.exp((x - max(s)) / tau) for x in s]
            value = sum(a * x for a, x in zip(power, s, strict=True)) / sum(power)
        else:
            value = s[0] if pooling == "first" else max(s)
        total += (1 / len(q) if pooling == "maxsim" else float(w[p])) * value
    return total


def make_table(rng: np.random.Generator, kind: str, songs: int, dim: int) -> Ragged:
    if kind == "alike":
        one = unit_rows(rng, 3, dim)
        return stack([one] * songs, dim)
    if kind == "one clip":
        return stack([unit_rows(rng, 1, dim) for _ in range(songs)], dim)
    if kind == "negative":
        parts = [-np.abs(unit_rows(rng, int(rng.integers(1, 9)), dim)) for _ in range(songs)]
        return stack(parts, dim)
    if kind == "ties":
        pool = unit_rows(rng, 3, dim)
        return stack([pool[rng.integers(0, 3, int(rng.integers(1, 5)))] for _ in range(songs)], dim)
    sizes = rng.choice([1, 2, 7, 8, 9, 40], songs)
    return stack([unit_rows(rng, int(n), dim) for n in sizes], dim)


def make_query(rng: np.random.Generator, kind: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    q = unit_rows(rng, int(rng.integers(1, 5)), dim)
    w = rng.uniform(0, 1, len(q)) + 1e-3
    return (np.abs(q) if kind == "negative" else q), (w / w.sum()).astype(np.float32)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_kernel_equals_a_double_loop(pooling: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        q, w = make_query(rng, "random", 7)
        c = unit_rows(rng, int(rng.integers(1, 12)), 7)
        tau = float(rng.choice([0.01, 0.1, 1.0]))
        assert pair_score(q, w, c, tau, pooling) == pytest.approx(
            oracle(q, w, c, tau, pooling), abs=1e-12
        )


@pytest.mark.parametrize("kind", ["random", "alike", "one clip", "negative", "ties"])
def test_certified_search_equals_exact_and_the_double_loop(kind: str) -> None:
    rng = np.random.default_rng(2)
    for case in range(500):
        dim = int(rng.choice([2, 5, 16]))
        table = make_table(rng, kind, int(rng.integers(1, 25)), dim)
        q, w = make_query(rng, kind, dim)
        tau, k = float(rng.choice([0.01, 0.1, 1.0])), int(rng.integers(1, 12))
        exact = search_songs(q, w, table, tau, k)
        certified = search_songs(q, w, table, tau, k, mode="certified", balls=make_balls(table, 4))
        assert certified.exact
        assert exact.exact
        assert certified.rows.tolist() == exact.rows.tolist()
        assert certified.scores.tolist() == exact.scores.tolist()
        if case % 25 == 0:
            every = [oracle(q, w, table.rows(j), tau, "attention") for j in range(len(table))]
            best = sorted(range(len(every)), key=lambda j: -every[j])[:k]
            assert exact.scores == pytest.approx([every[j] for j in best], abs=1e-12)


@pytest.mark.parametrize("kind", ["random", "alike", "one clip", "negative", "ties"])
def test_certified_text_search_equals_exact(kind: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        base = make_table(rng, kind, int(rng.integers(1, 20)), 8)
        counts = np.diff(base.offsets)
        weight = np.concatenate([np.full(n, 1 / n, np.float32) for n in counts])
        texts = replace(base, weight=weight)
        clips = unit_rows(rng, int(rng.integers(1, 9)), 8)
        exact = search_texts(clips, texts, 0.1, 4)
        certified = search_texts(
            clips, texts, 0.1, 4, mode="certified", balls=make_balls(texts, group=0)
        )
        assert certified.rows.tolist() == exact.rows.tolist()
        bounds = text_bounds(clips, make_balls(texts, group=0))
        assert (bounds[exact.rows] >= exact.scores).all()


def test_bounds_are_never_below_the_score_and_fast_scores_are_near() -> None:
    rng = np.random.default_rng(4)
    for _ in range(100):
        table = make_table(rng, "random", 12, 24)
        q, w = make_query(rng, "random", 24)
        scores = np.array([pair_score(q, w, table.rows(j), 0.05) for j in range(12)])
        assert (song_bounds(q, w, make_balls(table)) >= scores).all()
        error = np.abs(fast_scores(q, w, table, 0.05) - scores).max()
        assert error <= rounding(24, 0.05, 40)


def test_bounds_hold_where_a_passage_counts_against_a_song() -> None:
    rng = np.random.default_rng(12)
    for _ in range(150):
        table = make_table(rng, "random", 15, 6)
        q = unit_rows(rng, 3, 6)
        w = np.array([1.0, -0.7, -0.4], np.float32)
        scores = np.array([pair_score(q, w, table.rows(j), 0.05) for j in range(15)])
        balls = make_balls(table, 4)
        assert (song_bounds(q, w, balls) >= scores).all()
        exact = search_songs(q, w, table, 0.05, 3)
        certified = search_songs(q, w, table, 0.05, 3, mode="certified", balls=balls)
        assert exact.rows.tolist() == certified.rows.tolist() == np.argsort(-scores)[:3].tolist()


def test_certified_search_scores_few_songs_where_clips_are_alike_within_a_song() -> None:
    rng = np.random.default_rng(5)
    parts = []
    for _ in range(300):
        near = unit_rows(rng, 1, 32) + 0.02 * rng.normal(size=(10, 32))
        parts.append((near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32))
    table = stack(parts, 32)
    found = search_songs(
        parts[7][:1], np.ones(1), table, 0.1, 3, mode="certified", balls=make_balls(table)
    )
    assert found.rows[0] == 7
    assert found.scored < 60


def test_a_budget_is_kept_and_its_gap_is_true() -> None:
    rng = np.random.default_rng(6)
    table = make_table(rng, "random", 40, 8)
    q, w = make_query(rng, "random", 8)
    best = search_songs(q, w, table, 0.1, 3)
    short = search_songs(q, w, table, 0.1, 3, mode="certified", balls=make_balls(table), budget=4)
    assert short.scored <= 4
    if not short.exact:
        assert best.scores[0] <= short.scores[-1] + short.bound_gap + 1e-9


def test_a_song_scores_the_same_whatever_stands_beside_it() -> None:
    rng = np.random.default_rng(7)
    parts = [unit_rows(rng, n, 16) for n in (3, 9, 1, 20)]
    q, w = make_query(rng, "random", 16)
    alone = [search_songs(q, w, stack([p], 16), 0.1, 1).scores[0] for p in parts]
    together = search_songs(q, w, stack(parts, 16), 0.1, 4)
    assert [alone[r] for r in together.rows] == together.scores.tolist()


@pytest.mark.parametrize(("k", "message"), [(0, "k: got 0"), (-1, "k: got -1")])
def test_bad_k_is_refused(k: int, message: str) -> None:
    rng = np.random.default_rng(8)
    table = make_table(rng, "random", 3, 4)
    with pytest.raises(SearchError, match=message):
        search_songs(*make_query(rng, "random", 4), table, 0.1, k)


def test_nan_is_refused() -> None:
    rng = np.random.default_rng(9)
    table = make_table(rng, "random", 3, 4)
    with pytest.raises(SearchError, match="NaN"):
        search_songs(np.full((1, 4), np.nan), np.ones(1), table, 0.1, 1)


def test_moments_lie_where_the_passage_is() -> None:
    rng = np.random.default_rng(10)
    clips = unit_rows(rng, 6, 64)
    times = np.stack([np.arange(6) * 10.0, np.arange(6) * 10.0 + 10], axis=1)
    moments = find_moments(clips[[4, 1]], clips, times, 0.05)
    assert [(m.start_s, m.end_s, m.passage) for m in moments] == [(40, 50, 0), (10, 20, 1)]
    assert all(0.5 < m.weight <= 1 for m in moments)


def test_a_plain_faiss_file_ranks_as_mean_pooled_search(tmp_path) -> None:
    import faiss

    rng = np.random.default_rng(11)
    table = make_table(rng, "random", 30, 16)
    vectors = np.stack([mean_vector(table.rows(j)) for j in range(30)])
    write_faiss(tmp_path / "songs.faiss", vectors, [100 + j for j in range(30)])
    q, w = make_query(rng, "random", 16)
    query = (w[:, None] * q).sum(axis=0)
    _, ids = faiss.read_index(str(tmp_path / "songs.faiss")).search(query[None], 30)
    ours = search_songs(q, w, table, 0.1, 30, pooling="mean")
    assert (ids[0] - 100).tolist() == ours.rows.tolist()
    everything = np.arange(30)
    assert mean_candidates(query, vectors, everything, 40).tolist() == ours.rows.tolist()
    few = np.array([3, 9, 20])
    assert mean_candidates(query, vectors, few, 40).tolist() == [
        row for row in ours.rows if row in few
    ]


def test_an_answer_from_candidates_is_called_exact_only_where_it_is() -> None:
    proven = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        kind = ("random", "one clip", "ties", "negative")[seed % 4]
        table = make_table(rng, kind, 12, 6)
        q, w = make_query(rng, kind, 6)
        best = search_songs(q, w, table, 0.1, 3)
        found = search_songs(
            q,
            w,
            table,
            0.1,
            3,
            mode="candidates",
            balls=make_balls(table),
            candidates=rng.permutation(12)[: rng.integers(1, 13)],
        )
        if found.exact:
            proven += 1
            assert np.allclose(found.scores, best.scores, atol=1e-12)
        elif len(found.rows) == 3:
            assert best.scores[2] <= found.scores[2] + found.bound_gap + 1e-9
    assert proven > 20


def test_faiss_export_refuses_what_faiss_would_take(tmp_path) -> None:
    with pytest.raises(SearchError, match="NaN"):
        write_faiss(tmp_path / "x", np.array([[np.nan]]), [1])
    with pytest.raises(SearchError, match="ids"):
        write_faiss(tmp_path / "x", np.ones((2, 1)), [1, 1])
    assert not list(tmp_path.iterdir())
