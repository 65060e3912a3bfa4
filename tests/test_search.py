from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from fake_embedder import unit_rows
from loop_kinds import KINDS, use_loops

from index import render
from index.codes import Codes, make_codes
from index.exact import POOLINGS, fast_scores, pair_score, rounding
from index.export import mean_vector, write_faiss
from index.hits import Hit, Hits
from index.moments import Moment, find_moments, merge_moments
from index.search import as_passages, search_each, search_songs, search_texts
from index.table import Ragged, stack
from index.walk import Ranking, Walk, largest, rank, rescore
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


@pytest.fixture(params=KINDS)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to read everything."""
    use_loops(request.param, monkeypatch)
    return request.param


def codes_of(table: Ragged) -> list[Codes | None]:
    return [make_codes(span.rows, span.offsets) for span in table.spans]


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
def test_certified_search_equals_exact_and_the_double_loop(kind: str, loops: str) -> None:
    rng = np.random.default_rng(2)
    for case in range(250):
        dim = int(rng.choice([2, 5, 16]))
        table = make_table(rng, kind, int(rng.integers(1, 25)), dim)
        q, w = make_query(rng, kind, dim)
        tau, k = float(rng.choice([0.01, 0.1, 1.0])), int(rng.integers(1, 12))
        exact = search_songs(q, w, table, tau, k, mode="exact")
        certified = search_songs(
            q, w, table, tau, k, mode="certified", codes=partial(codes_of, table)
        )
        assert certified.exact
        assert exact.exact
        assert certified.rows.tolist() == exact.rows.tolist()
        assert certified.scores.tolist() == exact.scores.tolist()
        if case % 25 == 0:
            every = [oracle(q, w, table.rows(j), tau, "attention") for j in range(len(table))]
            best = sorted(range(len(every)), key=lambda j: -every[j])[:k]
            assert exact.scores == pytest.approx([every[j] for j in best], abs=1e-12)


@pytest.mark.parametrize("kind", ["random", "alike", "one clip", "negative", "ties"])
def test_certified_text_search_equals_exact(kind: str, loops: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        base = make_table(rng, kind, int(rng.integers(1, 20)), 8)
        counts = np.diff(base.offsets)
        weight = np.concatenate([np.full(n, 1 / n, np.float32) for n in counts])
        texts = replace(base, weight=weight)
        clips = unit_rows(rng, int(rng.integers(1, 9)), 8)
        exact = search_texts(clips, texts, 0.1, 4, mode="exact")
        certified = search_texts(
            clips,
            texts,
            0.1,
            4,
            mode="certified",
            codes=lambda: codes_of(texts),  # noqa: B023
        )
        assert certified.exact
        assert certified.rows.tolist() == exact.rows.tolist()
        assert certified.scores.tolist() == exact.scores.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fast_scores_are_near(loops: str, dtype: type) -> None:
    rng = np.random.default_rng(4)
    for dim in (5, 24, 64):
        parts = [unit_rows(rng, int(n), dim).astype(dtype) for n in (30, 1, 60, 7, 8, 9)]
        counts = np.array([1, 29, 1, 25, 35, 7, 8, 9])
        table = Ragged(
            (np.concatenate(parts[:2]), np.concatenate(parts[2:])[:60], np.concatenate(parts[3:])),
            np.concatenate([[0], np.cumsum([*counts[:2], 1, *counts[3:]])]),
        )
        for passages in (1, 3, 8, 13):
            q, w = unit_rows(rng, passages, dim), rng.normal(size=passages)
            scores = [pair_score(q, w, table.rows(j), 0.05) for j in range(len(table))]
            limit = rounding(dim, 0.05, 60) * np.abs(w).sum()
            assert np.abs(fast_scores(q, w, table, 0.05) - scores).max() <= limit
            some = np.array([6, 0, 3])
            found = fast_scores(q, w, table, 0.05, some)
            assert np.abs(found - np.array(scores)[some]).max() <= limit


def test_certified_search_scores_few_songs_where_they_differ() -> None:
    rng = np.random.default_rng(5)
    parts = []
    for _ in range(2000):
        near = unit_rows(rng, 1, 32) + 0.02 * rng.normal(size=(10, 32))
        parts.append((near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32))
    table = stack(parts, 32)
    found = search_songs(
        parts[7][:1], np.ones(1), table, 0.1, 3, mode="certified", codes=partial(codes_of, table)
    )
    assert found.rows[0] == 7
    assert found.scored <= 128


def test_a_budget_is_kept_and_its_gap_is_true(loops: str) -> None:
    proven = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        kind = ("random", "one clip", "ties", "negative")[seed % 4]
        table = make_table(rng, kind, 40, 6)
        q, w = make_query(rng, kind, 6)
        best = search_songs(q, w, table, 0.1, 3)
        budget = int(rng.integers(3, 41))
        short = search_songs(
            q,
            w,
            table,
            0.1,
            3,
            mode="certified",
            codes=partial(codes_of, table),
            budget=budget,
        )
        assert short.scored <= budget
        if short.exact:
            proven += 1
            assert short.bound_gap == 0
            assert short.rows.tolist() == best.rows.tolist()
        else:
            assert best.scores[2] <= short.scores[2] + short.bound_gap + 1e-9
    assert 20 < proven < 200


@pytest.mark.parametrize("some", [None, np.arange(5, 300, 3)])
def test_without_proof_the_nearest_in_the_mean_are_scored(
    loops: str, some: np.ndarray | None
) -> None:
    rng = np.random.default_rng(12)
    table = stack([unit_rows(rng, int(rng.integers(1, 20)), 16) for _ in range(300)], 16)
    q, w = unit_rows(rng, 3, 16), np.array([0.5, 0.25, 0.25])
    codes = [make_codes(span.rows, span.offsets) for span in table.spans]
    ask = partial(
        search_songs, q, w, table, 0.05, 4, rows=some, mode="certified", codes=lambda: codes
    )
    found = ask(proven=False, budget=20)
    assert (found.exact, found.bound_gap, found.scored) == (False, math.inf, 20)
    rows = np.arange(300) if some is None else some
    near = [float(w @ q @ table.rows(j).mean(axis=0)) for j in rows]
    chosen = rows[np.argsort(near)[::-1][:20]]
    scores = {int(j): pair_score(q, w, table.rows(j), 0.05) for j in chosen}
    assert found.rows.tolist() == sorted(scores, key=lambda j: -scores[j])[:4]
    assert found.scores.tolist() == [scores[j] for j in found.rows.tolist()]
    every = ask(proven=False)  # as many as there are
    assert every.exact
    assert every.rows.tolist() == ask().rows.tolist()


def test_without_proof_songs_without_codes_are_scored_as_well() -> None:
    rng = np.random.default_rng(13)
    parts = [stack([unit_rows(rng, 4, 16) for _ in range(n)], 16) for n in (100, 7)]
    table = Ragged(tuple(p.parts[0] for p in parts), np.arange(108) * 4)
    spans = list(table.spans)
    codes = [make_codes(spans[0].rows, spans[0].offsets), None]
    query = table.rows(103)[:1]
    found = search_songs(
        query, np.ones(1), table, 0.05, 3,
        mode="certified", codes=lambda: codes, proven=False, budget=10,
    )  # fmt: skip
    assert found.scored == 17
    assert found.rows[0] == 103


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


def test_moments_of_one_stretch_are_merged_in_the_order_of_the_song() -> None:
    spans = [(60, 90), (0, 20), (70, 100), (20, 40), (10, 20), (85, 95), (115, 130)]
    moments = [Moment(float(a), float(b), 0.5, i) for i, (a, b) in enumerate(spans)]
    merged = merge_moments(moments)
    assert [(m.start_s, m.end_s, [x.passage for x in m.moments]) for m in merged] == [
        (0, 20, [1, 4]),  # one lies in the other
        (20, 40, [3]),  # only touches it
        (60, 100, [0, 2, 5]),
        (115, 130, [6]),
    ]
    assert sorted((x for m in merged for x in m.moments), key=lambda x: x.passage) == moments
    assert merge_moments([]) == []


def test_stretches_are_printed_once() -> None:
    moments = [Moment(60, 90, 0.6, 0), Moment(0, 20, 0.8, 1), Moment(70, 100, 0.5, 2)]
    hit = Hit(7, "/music/a.mp3", "A", 0.5, 200.0, moments)
    ranking = Ranking(np.array([0]), np.array([0.5]), True, 0.0, 1)
    answer = Hits([hit], ranking, ["strings", "a piano", "drums"])
    assert render.hits(answer).splitlines()[2:] == [
        "               0:00-0:20   80 %  a piano",
        "               1:00-1:40   60 %  strings",
        "                           50 %  drums",
        "     exact; 1 songs scored",
    ]
    (found,) = render.hits_json(answer)["hits"]
    assert [s["start_s"] for s in found["stretches"]] == [0, 60]
    assert len(found["moments"]) == 3


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


def test_faiss_export_refuses_what_faiss_would_take(tmp_path) -> None:
    with pytest.raises(SearchError, match="NaN"):
        write_faiss(tmp_path / "x", np.array([[np.nan]]), [1])
    with pytest.raises(SearchError, match="ids"):
        write_faiss(tmp_path / "x", np.ones((2, 1)), [1, 1])
    assert not list(tmp_path.iterdir())


def test_thelargest_of_many_are_found_without_sorting_all() -> None:
    rng = np.random.default_rng(0)
    for case in range(200):
        count, values = int(rng.integers(1, 40)), rng.normal(size=int(rng.integers(1, 5000)))
        if case % 3 == 0:
            values = values.round(1)
        if case % 5 == 0:
            values[: len(values) // 2] = -np.inf
        found = largest(values, count)
        assert len(set(found.tolist())) == len(found)
        assert values[found].tolist() == np.sort(values)[::-1][:count].tolist()


class GivenBounds:
    """Guesses and estimates that may be of no use, and bounds that hold."""

    def __init__(self, likely: np.ndarray, upper: np.ndarray, middle: np.ndarray):
        self._likely, self._found = likely, (upper, middle)

    def guesses(self) -> np.ndarray:
        return self._likely

    def __call__(self, bar: float) -> tuple[np.ndarray, np.ndarray]:
        return self._found


def test_scores_that_are_off_by_what_is_allowed_change_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("index.walk._BATCH", 1)
    rng = np.random.default_rng(4)
    for _ in range(200):
        count, k, slack = int(rng.integers(1, 800)), int(rng.integers(1, 12)), 0.2
        true = rng.normal(size=count).round(int(rng.integers(1, 3)))  # some are equal
        fast = true + 0.99 * rng.choice([-slack, slack], count)
        rows = np.arange(count)
        best = rank(lambda row: float(true[row]), rows, k, count)  # noqa: B023
        found = rescore(lambda row: float(true[row]), rows, fast, k, slack, count)  # noqa: B023
        assert found.rows.tolist() == best.rows.tolist()
        upper = true + rng.exponential(float(rng.choice([0.003, 0.3])), count)
        bounds = GivenBounds(rng.normal(size=count), upper, true + rng.normal(size=count))
        own = rows if rng.random() < 0.5 else rng.permutation(rows)[: rng.integers(1, count + 1)]
        walk = Walk(own, k, lambda some: fast[some], slack, None)  # noqa: B023
        walk.run(bounds)
        walked = walk.ranking(lambda row: float(true[row]))  # noqa: B023
        best = rank(lambda row: float(true[row]), own, k, count)  # noqa: B023
        assert walked.exact
        assert walked.rows.tolist() == best.rows.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_auto_makes_bounds_where_there_is_much_and_loops_are_compiled(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loops(kind, monkeypatch)
    monkeypatch.setattr("index.search._FEW_CLIPS", 40)
    monkeypatch.setattr("index.search._FEW_SIMILARITIES", 80)
    rng, asked = np.random.default_rng(7), []
    table = stack([unit_rows(rng, 4, 8) for _ in range(20)], 8)
    texts = replace(table, weight=np.full(80, 0.25, np.float32))

    def codes() -> list[Codes | None]:
        asked.append(True)
        return codes_of(table)

    query = unit_rows(rng, 2, 8), np.full(2, 0.5, np.float32)
    for rows, many in ((None, True), (np.arange(10), False), (np.arange(11), True)):
        for search in (
            partial(search_songs, *query, table, 0.1, 3),
            partial(search_texts, query[0], texts, 0.1, 3),
        ):
            asked.clear()
            search(rows=rows, codes=codes)
            assert bool(asked) == (many and kind != "numpy")


@pytest.mark.parametrize("falling", [0.85, 1.0])
def test_songs_anywhere_are_found_by_every_query(falling: float) -> None:
    rng = np.random.default_rng(6)
    songs = rng.normal(size=(1600, 1, 200)) + 0.1 * rng.normal(size=(1600, 6, 200))
    songs *= falling ** np.arange(200)
    songs /= np.linalg.norm(songs, axis=2, keepdims=True)
    table = Ragged((songs.reshape(-1, 200).astype(np.float32),), np.arange(1601) * 6)
    codes = codes_of(table)
    near = (700, 100, 3, 1599)
    queries = [as_passages(table.rows(row)[:2], np.full(2, 0.5, np.float32)) for row in near]
    rows = [None, None, rng.permutation(1600), None]
    arguments = (queries, table, 0.05, 10)
    exact = search_each(*arguments, rows=rows, mode="exact")
    found = search_each(*arguments, rows=rows, mode="certified", codes=lambda: codes)
    for one, other, row in zip(found, exact, near, strict=True):
        assert one.rows[0] == row
        assert one.rows.tolist() == other.rows.tolist()
        assert one.scores.tolist() == other.scores.tolist()
