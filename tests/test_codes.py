from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kinds import KINDS, USABLE, use_loops

from index import Library, Song, Text, code_files
from index.bounds import SongBounds, code_query
from index.codes import WHOLE, Codes, make_codes, sizes, unpack, widths_of
from index.exact import pair_score
from index.search import as_passages, search_each, search_songs
from index.table import Ragged
from retrieval.errors import SearchError


def make_cone(rng: np.random.Generator, songs: int, dim: int, longest: int) -> Ragged:
    """Songs around one direction, of 1 to ``longest`` clips, some of them twice."""
    counts = rng.integers(1, longest + 1, songs)
    falling = 0.5 ** np.arange(dim)
    centre, parts = rng.normal(size=dim), []
    for n in counts:
        if parts and rng.random() < 0.1:
            parts.append(parts[int(rng.integers(len(parts)))])
            continue
        own = rng.normal(size=dim) * falling + 0.3 * rng.normal(size=(int(n), dim)) * falling
        x = 2 * centre / np.linalg.norm(centre) + own
        parts.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32))
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return Ragged((np.concatenate(parts),), offsets)


def codes_for(table: Ragged) -> list[Codes]:
    return [make_codes(span.rows, span.offsets) for span in table.spans]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dim", [16, 64, 300])
def test_certified_equals_exact_in_a_narrow_cone(dim: int, dtype: type) -> None:
    rng = np.random.default_rng(dim)
    table = make_cone(rng, 1500, dim, 60)
    middle = len(table.parts[0]) // 2
    middle = int(table.offsets[np.searchsorted(table.offsets, middle)])
    emb = table.parts[0].astype(dtype)
    table = Ragged((emb[:middle], emb[middle:]), table.offsets)
    codes = codes_for(table)
    scored = []
    for case in range(60):
        passages = int(rng.choice([1, 2, 5, 9, 17]))
        near = table.rows(int(rng.integers(1500)))[:1] + rng.normal(size=(passages, dim)) * 0.1
        q = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
        w = (
            rng.normal(size=passages).astype(np.float32)
            if case % 3
            else np.ones(passages) / passages
        )
        rows = None if case % 2 else np.sort(rng.choice(1500, int(rng.integers(1, 1500)), False))
        tau, k = float(rng.choice([0.01, 0.057, 1.0])), int(rng.integers(1, 20))
        given = codes if case % 5 else [codes[0], None]
        exact = search_songs(q, w, table, tau, k, rows=rows, mode="exact")
        found = search_songs(
            q,
            w,
            table,
            tau,
            k,
            rows=rows,
            mode="certified",
            codes=lambda: given,  # noqa: B023
        )
        assert found.exact
        assert found.rows.tolist() == exact.rows.tolist()
        assert found.scores.tolist() == exact.scores.tolist()
        scored.append(found.scored)
    assert np.median(scored) < 400


@pytest.mark.parametrize("dim", [5, 30, 80, 81, 200])
def test_half_bytes_say_what_is_left_of_a_row(dim: int) -> None:
    rng = np.random.default_rng(5)
    x = unit_rows(rng, 83, dim)
    offsets = np.array([0, 1, 9, 10, 47, 83])
    codes = make_codes(x, offsets)
    centre = np.repeat(codes.centre.astype(np.float32), np.diff(offsets), axis=0)
    means = [x[a:b].mean(axis=0) for a, b in pairwise(offsets)]
    assert np.abs(codes.centre - means).max() < 2**-11
    z = (x - centre) @ codes.basis
    assert np.allclose(z @ codes.dual.T.astype(np.float32), x - centre, atol=1e-5)
    first, second = (unpack(plane, 0, 83) for plane in codes.planes)
    others = first[:, 2 * WHOLE : -2]
    assert [first.shape[1], second.shape[1]] == [2 * width for width in widths_of(dim)]
    whole = 16.0 * first[:, :WHOLE] + first[:, WHOLE : 2 * WHOLE]
    kept = min(dim, len(codes.scale))
    for i, lower in enumerate((7.5, second[:, :-2])):
        said = np.hstack([whole, 16.0 * others + lower])[:, :kept] - 128
        left = z.copy()
        left[:, :kept] -= said * codes.scale[:kept]
        size = np.sqrt((left**2 / codes.spread[i]).sum(axis=1))
        told = sizes((first, second)[i]).astype(float)
        assert (size <= told * codes.tail_step[i] * (1 + 1e-5)).all()
        assert (size >= (told - 1.1) * codes.tail_step[i] - 1e-6)[told > 1].all()
        assert told.min() >= 1
    for plane in codes.planes:
        assert np.array_equal(unpack(plane, 11, 30), unpack(plane, 0, 83)[11:30])
        assert not unpack(plane, 83, 88).any()  # what fills the last block


def test_songs_with_a_rest_that_cannot_be_said_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.codes._BEYOND", 30)
    rng = np.random.default_rng(6)
    x = unit_rows(rng, 400, 140)
    table = Ragged((x,), np.arange(0, 401, 4))
    codes = codes_for(table)
    query = as_passages(unit_rows(rng, 2, 140), np.array([0.5, 0.5]))
    owners = np.unique(codes[0].beyond // 4)
    assert 0 < len(owners) < 50
    bounds = SongBounds(query, table, codes, 0.05)
    for bar in (-np.inf, 0.1, np.inf):
        for found in bounds(bar):
            assert np.array_equal(np.flatnonzero(np.isinf(found)), owners)
    assert np.isfinite(bounds.guesses()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_songs_longer_than_what_is_read_together(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loops(kind, monkeypatch)
    rng = np.random.default_rng(8)
    counts = [1, 700, 3, 513, 8, 512, 5, 90, 422, 7]
    x = unit_rows(rng, sum(counts), 20)
    table = Ragged((x,), np.concatenate([[0], np.cumsum(counts)]))
    codes = codes_for(table)
    for passages in (1, 4, 9):
        q, w = unit_rows(rng, passages, 20), np.full(passages, 1 / passages)
        query = as_passages(q, w)
        scores = np.array([pair_score(q, w, table.rows(j), 0.05) for j in range(10)])
        bounds = SongBounds(query, table, codes, 0.05)
        best = np.array([(table.rows(j) @ q.T).max(axis=0) @ w for j in range(10)])
        upper = bounds(np.inf)[0]
        assert (upper >= scores).all()
        assert np.abs(upper - best).max() < 0.15  # the bound of MaxSim, and no other song's
        close, middle = bounds(-np.inf)
        assert (close >= scores).all()
        assert (close <= upper + 0.01).all()
        if kind == "numpy":  # which has the bound of MaxSim alone, by both planes
            assert np.abs(close - best).max() < 0.03
        else:
            assert np.abs(middle - scores).max() < 0.01
            assert np.abs(close - scores).max() < 0.03


def test_without_variance_every_song_ties() -> None:
    one = unit_rows(np.random.default_rng(0), 1, 32)
    table = Ragged((np.repeat(one, 400, axis=0),), np.arange(0, 401, 4))
    codes = codes_for(table)
    found = search_songs(one, np.ones(1), table, 0.1, 5, mode="certified", codes=lambda: codes)
    assert found.exact
    assert found.rows.tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dim=st.sampled_from([1, 3, 16, 47, 48, 80, 126, 127, 140]),
    tau=st.sampled_from([0.003, 0.02, 0.06, 1.0, 100.0]),
    spread=st.sampled_from([0.0, 1e-4, 0.1, 1.0, 10.0]),
    passages=st.integers(1, 10),
    kind=st.sampled_from(USABLE),
    outliers=st.booleans(),
)
def test_bounds_are_never_below_the_score(
    seed: int, dim: int, tau: float, spread: float, passages: int, kind: str, outliers: bool
) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 61, 12)
    x = rng.normal(size=dim) + spread * rng.normal(size=(int(counts.sum()), dim))
    x[rng.integers(len(x))] *= -1  # one far from all
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(rng.choice(["f2", "f4"]))
    table = Ragged((x,), np.concatenate([[0], np.cumsum(counts)]))
    q, w = unit_rows(rng, passages, dim), rng.normal(size=passages).astype(np.float32)
    query = as_passages(q, w)
    scores = np.array([pair_score(q, w, table.rows(j), tau) for j in range(12)])
    with pytest.MonkeyPatch.context() as patch:
        use_loops(kind, patch)
        if outliers:  # as in large tables: the rests of some rows cannot be said
            patch.setattr("index.codes._BEYOND", 30)
        bounds = SongBounds(query, table, codes_for(table), tau)
        close, _ = bounds(-np.inf)
        assert (close >= scores).all()
        for bar in (float(np.median(scores)), np.inf):
            quick, _ = bounds(bar)
            assert (quick >= scores).all()
            assert (quick[close >= bar] == close[close >= bar]).all()
            assert (quick[close < bar] < bar + 1e-3 * abs(bar)).all()
            assert (quick >= close - 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unwanted_passage_is_bounded_although_centres_are_rounded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_loops(kind, monkeypatch)
    rng = np.random.default_rng(10)
    table = Ragged((unit_rows(rng, 600, 24),), np.arange(601))  # of one clip, which is the centre
    q, w = unit_rows(rng, 1, 24), np.array([-1.0], np.float32)
    scores = np.array([pair_score(q, w, table.rows(j), 0.05) for j in range(600)])
    bounds = SongBounds(as_passages(q, w), table, codes_for(table), 0.05)
    for bar in (-np.inf, np.inf):
        upper, _ = bounds(bar)
        assert (upper >= scores).all()
        assert np.abs(upper - scores).max() < 2**-9


@pytest.mark.parametrize("dim", [20, 80, 140])
def test_the_margin_covers_what_rounding_coefficients_loses(dim: int) -> None:
    rng = np.random.default_rng(11)
    x = unit_rows(rng, 900, dim)
    codes = make_codes(x, np.arange(0, 901, 9))
    q = unit_rows(rng, 5, dim)
    coded = code_query(q, np.ones(5), codes)
    kept = min(dim, len(codes.scale))
    exact = np.zeros((5, len(codes.scale)))
    exact[:, :kept] = (q.astype(np.float64) @ codes.dual)[:, :kept] * codes.scale[:kept]
    whole, others = exact[:, :WHOLE], exact[:, WHOLE:]
    true = [np.hstack([16 * whole, whole, 16 * others]), others]
    lost, by_first = np.zeros(5), np.zeros(5)
    for i in range(2):
        off = true[i] - coded.coef[i][:, :-2] * coded.step[i][:, None].astype(np.float64)
        # The worst half bytes there can be: all 15 where that helps, else 0.
        lost += np.maximum(np.maximum(off, 0).sum(axis=1), np.maximum(-off, 0).sum(axis=1)) * 15
        by_first = by_first if i else lost.copy()
    assert (coded.margin >= lost).all()
    assert (coded.margin < 4 * lost + 1e-4).all()
    assert np.abs(coded.shift[1] + 128 * exact.sum(axis=1)).max() < 1e-5
    over = coded.shift[0] - (7.5 * others.sum(axis=1) - 128 * exact.sum(axis=1))
    assert (over >= by_first).all()
    assert (over < 4 * lost + 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_guesses_are_similarities_of_means(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_loops(kind, monkeypatch)
    rng = np.random.default_rng(9)
    table = make_cone(rng, 101, 37, 9)
    query = as_passages(unit_rows(rng, 3, 37), np.array([0.5, 0.8, -0.3]))
    means = np.stack([table.rows(j).mean(axis=0) for j in range(101)])
    found = SongBounds(query, table, codes_for(table), 0.05).guesses()
    assert np.abs(found - means @ query.emb.T @ query.weight).max() < 1e-3


def test_queries_asked_together_get_the_answers_they_get_alone() -> None:
    rng = np.random.default_rng(3)
    table = make_cone(rng, 300, 24, 12)
    codes = codes_for(table)
    queries = [
        as_passages(unit_rows(rng, int(n), 24), rng.normal(size=n)) for n in rng.integers(1, 6, 20)
    ]
    rows = [None if i % 3 else np.arange(i, 300, 2) for i in range(20)]
    together = search_each(
        queries, table, 0.05, 5, rows=rows, mode="certified", codes=lambda: codes
    )
    for query, own, found in zip(queries, rows, together, strict=True):
        alone = search_songs(query.emb, query.weight, table, 0.05, 5, rows=own, mode="exact")
        assert found.rows.tolist() == alone.rows.tolist()
        assert found.scores.tolist() == alone.scores.tolist()
    assert search_each([], table, 0.05, 5, codes=lambda: codes) == []


def test_codes_are_cached_checked_and_made_again(tmp_path: Path) -> None:
    rows = unit_rows(np.random.default_rng(1), 300, 20)
    offsets = np.arange(0, 301, 3)
    made = code_files.codes_of(rows, offsets, "ab" * 32, tmp_path, least=1)
    (file,) = (tmp_path / code_files.FOLDER).iterdir()
    whole = file.read_bytes()
    read = code_files.codes_of(rows, offsets, "ab" * 32, tmp_path, least=1)
    for name, array in vars(made).items():
        assert np.array_equal(getattr(read, name), array)
    for damaged in (
        b"",
        whole[:-1],
        whole + b"x",
        b"\0" * len(whole),
        whole[:900] + b"?" + whole[901:],
    ):
        file.write_bytes(damaged)
        again = code_files.codes_of(rows, offsets, "ab" * 32, tmp_path, least=1)
        assert np.array_equal(again.first, made.first)
        assert file.read_bytes() == whole
    for some, own in ((rows[:210], offsets[:71]), (rows, np.array([0, 100, 300]))):
        again = code_files.codes_of(some, own, "ab" * 32, tmp_path, least=1)
        assert np.array_equal(again.first, make_codes(some, own).first)
        # a cache that is whole and of another table
    assert code_files.codes_of(rows, offsets, "cd" * 32, tmp_path) is None
    code_files.forget(tmp_path, {"cd" * 32})
    assert not list((tmp_path / code_files.FOLDER).iterdir())


def test_a_folder_that_takes_no_cache_is_searched_all_the_same(tmp_path: Path) -> None:
    rows = unit_rows(np.random.default_rng(1), 30, 20)
    (tmp_path / code_files.FOLDER).write_text("in the way")
    codes = code_files.codes_of(rows, np.arange(31), "ab" * 32, tmp_path, least=1)
    assert codes.first.shape == (4, widths_of(rows.shape[1])[0] // 4, 8, 4)


def test_library_answers_are_the_same_in_every_mode(
    library: Library, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_files, "LEAST_ROWS", 1)
    monkeypatch.setattr(code_files.codes_of, "__defaults__", (1, lambda: None))
    monkeypatch.setattr("index.search._FEW_SIMILARITIES", 0)
    library.add([music])
    library.add_texts(["a piano. then drums", "one violin", "strings. a flute. silence"])
    queries = ["a piano. then strings", Text("bass") - 0.7 * Text("a drum. a horn"),
               Song(music / "00.mp3"), Text("x") + 0.3 * Song(music / "02.mp3", 0, 15)]  # fmt: skip
    for query in queries:
        for where in (None, "id % 2 = 0"):
            found = [
                library.search(query, 4, where, mode=m) for m in ("exact", "certified", "auto")
            ]
            assert len({tuple((h.id, h.score) for h in hits) for hits in found}) == 1
            assert all(hits.exact for hits in found)
    each = library.search_each(queries, 4, "id % 2 = 0", mode="certified")
    assert [[h.id for h in hits] for hits in each] == [
        [h.id for h in library.search(query, 4, "id % 2 = 0")] for query in queries
    ]
    assert library.search_each([]) == []
    for wrong in (
        {"exact": "ever"},
        {"budget": 9},
        {"exact": "budget", "budget": 3},
        {"mode": "x"},
    ):
        with pytest.raises(SearchError, match=next(reversed(wrong))):
            library.search("a", 4, **wrong)
    assert list((tmp_path / "music.lp" / "cache").iterdir())
    texts = library.texts(music / "00.mp3", k=2)
    again = Library.open(tmp_path / "music.lp", FakeEmbedder())
    assert [(t.id, t.score) for t in again.texts(music / "00.mp3", k=2)] == [
        (t.id, t.score) for t in texts
    ]
    for file in (tmp_path / "music.lp" / "cache").iterdir():
        file.write_bytes(b"damaged")
    damaged = Library.open(tmp_path / "music.lp", FakeEmbedder())
    hits = damaged.search(queries[0], 4, mode="certified")
    assert [h.id for h in hits] == [h.id for h in library.search(queries[0], 4)]
    library.compact()
    library.search("a", mode="certified")
    names = {p.name[:32] for p in (tmp_path / "music.lp" / "cache").iterdir()}
    assert len(names) == 2  # of the joined segment's songs and texts
