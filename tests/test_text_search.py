"""Music to text: stored passages are coded for what clips ask."""

from __future__ import annotations

import numpy as np
import pytest
from fake_embedder import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kinds import KINDS, USABLE, use_loops

from index.codes import Codes, make_codes
from index.exact import pair_score, rounding
from index.search import search_texts
from index.table import Ragged
from index.text_bounds import TextBounds, fast_text_scores


@pytest.fixture(params=KINDS)
def loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All ways to read everything."""
    use_loops(request.param, monkeypatch)
    return request.param


def make_texts(
    rng: np.random.Generator, texts: int, dim: int, longest: int, dtype: type = np.float32
) -> Ragged:
    """Texts around one direction in two parts, some of them twice, with weights that sum to 1."""
    counts, centre, parts = rng.integers(1, longest + 1, texts), rng.normal(size=dim), []
    for n in counts:
        if parts and rng.random() < 0.1:
            parts.append(parts[int(rng.integers(len(parts)))])
        else:
            x = centre + 0.5 * rng.normal(size=(int(n), dim))
            parts.append((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype))
    weight = [rng.uniform(0.05, 1, len(part)) for part in parts]
    half = texts // 2
    return Ragged(
        (np.concatenate(parts[:half]), np.concatenate(parts[half:])) if half else (parts[0],),
        np.cumsum([0, *map(len, parts)]).astype(np.int64),
        np.concatenate([w / w.sum() for w in weight]).astype(np.float32),
    )


def make_song(rng: np.random.Generator, clips: int, dim: int) -> np.ndarray:
    """Clips in a narrow cone, with little outside the first few directions."""
    falling = 0.7 ** np.arange(dim)
    x = (
        falling
        + 0.4 * rng.normal(size=dim) * falling
        + 0.2 * rng.normal(size=(clips, dim)) * falling
    )
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def true_scores(clips: np.ndarray, texts: Ragged, tau: float) -> np.ndarray:
    return np.array(
        [pair_score(texts.rows(i), texts.weights(i), clips, tau) for i in range(len(texts))]
    )


def codes_for(texts: Ragged, queries: np.ndarray | None) -> list[Codes | None]:
    return [make_codes(span.rows, span.offsets, queries) for span in texts.spans]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_certified_equals_exact_and_every_true_score(loops: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    for case in range(24):
        dim = int(rng.choice([3, 20, 140]))
        texts = make_texts(rng, int(rng.integers(1, 300)), dim, 7, dtype)
        clips = make_song(rng, int(rng.integers(1, 40)), dim)
        tau, k = float(rng.choice([0.01, 0.06, 1.0])), int(rng.integers(1, 12))
        asked = None if case % 3 == 0 else make_song(rng, 60, dim)
        codes = codes_for(texts, asked)
        if case % 4 == 1:
            codes[-1] = None
        rows = None
        if case % 2:
            rows = np.sort(rng.choice(len(texts), int(rng.integers(1, len(texts) + 1)), False))
        exact = search_texts(clips, texts, tau, k, rows=rows, mode="exact")
        found = search_texts(
            clips, texts, tau, k, rows=rows, mode="certified", codes=lambda c=codes: c
        )
        assert found.exact
        assert found.rows.tolist() == exact.rows.tolist()
        assert found.scores.tolist() == exact.scores.tolist()
        every = true_scores(clips, texts, tau)
        own = np.arange(len(texts)) if rows is None else rows
        best = own[np.lexsort((own, -every[own]))][:k]
        assert exact.rows.tolist() == best.tolist()
        assert exact.scores.tolist() == every[best].tolist()


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dim=st.sampled_from([1, 3, 16, 47, 80, 127, 140]),
    tau=st.sampled_from([0.003, 0.02, 0.06, 1.0, 100.0]),
    asked=st.sampled_from(["unknown", "alike", "others", "nothing"]),
    clips=st.integers(1, 20),
    kind=st.sampled_from(USABLE),
    outliers=st.booleans(),
    odd=st.booleans(),
)
def test_bounds_are_never_below_the_score(
    seed: int, dim: int, tau: float, asked: str, clips: int, kind: str, outliers: bool, odd: bool
) -> None:
    rng = np.random.default_rng(seed)
    texts = make_texts(rng, 12, dim, 9, rng.choice(["f2", "f4"]))
    if odd:  # the bound is not for weights below 0, so such a text is always scored
        texts.all_weights[rng.integers(len(texts.all_weights), size=3)] *= -1
    song = make_song(rng, clips, dim) if seed % 2 else unit_rows(rng, clips, dim)
    sample = {
        "unknown": None,
        "alike": song,
        "others": unit_rows(rng, 3, dim),
        "nothing": np.zeros((2, dim), np.float32),
    }[asked]
    scores = true_scores(song, texts, tau)
    with pytest.MonkeyPatch.context() as patch:
        use_loops(kind, patch)
        if outliers:  # as in large tables: the rests of some rows cannot be said
            patch.setattr("index.codes._BEYOND", 10)
        codes = codes_for(texts, sample)
        bounds = TextBounds(song, texts, codes, tau)
        close, _ = bounds(-np.inf)
        assert (close >= scores).all()
        for bar in (float(np.median(scores)), np.inf):
            quick, _ = bounds(bar)
            assert (quick >= scores).all()
            assert (quick[close >= bar] == close[close >= bar]).all()
            assert (quick >= close - 1e-4).all()


def test_texts_with_a_rest_that_cannot_be_said_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.codes._BEYOND", 20)
    rng = np.random.default_rng(7)
    texts = make_texts(rng, 60, 140, 6)
    song, codes = make_song(rng, 5, 140), codes_for(texts, None)
    owners, begin = [], 0
    for part, coded in zip(texts.parts, codes, strict=True):
        owners += np.searchsorted(texts.offsets, begin + coded.beyond, "right").tolist()
        begin += len(part)
    wanted = np.unique(owners) - 1
    assert 0 < len(wanted) < 40
    for bar in (-np.inf, np.inf):
        for found in TextBounds(song, texts, codes, 0.05)(bar):
            assert np.array_equal(np.flatnonzero(np.isinf(found)), wanted)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_fast_scores_are_near(loops: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    for dim, clips in ((5, 1), (24, 9), (67, 33)):
        texts = make_texts(rng, 40, dim, 13, dtype)
        song = make_song(rng, clips, dim)
        scores, limit = true_scores(song, texts, 0.05), rounding(dim, 0.05, 33)
        some = np.array([39, 0, 21, 20])
        found = fast_text_scores(song, texts, 0.05, np.arange(40))
        assert np.abs(found - scores).max() <= limit
        assert np.abs(fast_text_scores(song, texts, 0.05, some) - scores[some]).max() <= limit


def test_knowing_what_asks_makes_bounds_close() -> None:
    rng = np.random.default_rng(3)
    texts, song = make_texts(rng, 1000, 120, 3), make_song(rng, 20, 120)
    asked = np.concatenate([make_song(rng, 20, 120) for _ in range(9)])
    # What the first plane bounds is MaxSim: attention lies further below, whatever the codes.
    best = [
        float(texts.weights(i) @ (texts.rows(i) @ song.T).max(axis=1)) for i in range(len(texts))
    ]
    far, near = (
        float((TextBounds(song, texts, codes_for(texts, queries), 0.05)(np.inf)[0] - best).mean())
        for queries in (None, asked)
    )
    assert 0 < near < far / 10
    codes = codes_for(texts, asked)
    found = search_texts(song, texts, 0.05, 5, mode="certified", codes=lambda: codes)
    assert found.scored == 64


def test_a_text_of_odd_weights_is_scored() -> None:
    rng = np.random.default_rng(4)
    texts = make_texts(rng, 300, 16, 4)
    texts.all_weights[:] = rng.normal(size=texts.n_rows)
    song, codes = make_song(rng, 8, 16), codes_for(texts, None)
    exact = search_texts(song, texts, 0.1, 9, mode="exact")
    found = search_texts(song, texts, 0.1, 9, mode="certified", codes=lambda: codes)
    assert found.scores.tolist() == exact.scores.tolist()


def test_an_outlier_is_scored_and_others_stay_finely_coded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.codes._BEYOND", 100)
    rng = np.random.default_rng(5)
    texts = make_texts(rng, 400, 90, 3)
    for text in (3, 390):
        begin = int(texts.offsets[text])
        part, at = (0, begin) if text < 200 else (1, begin - len(texts.parts[0]))
        texts.parts[part][at] = unit_rows(rng, 1, 90)
    song = texts.rows(390)[:1]
    codes = codes_for(texts, make_song(rng, 50, 90))
    assert all(len(coded.beyond) for coded in codes)
    assert np.isinf(TextBounds(song, texts, codes, 0.1)(0.0)[0]).sum() < 40
    found = search_texts(song, texts, 0.1, 1, mode="certified", codes=lambda: codes)
    assert found.rows.tolist() == search_texts(song, texts, 0.1, 1, mode="exact").rows.tolist()


def test_a_budget_is_kept_and_its_gap_is_true(loops: str) -> None:
    proven = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        texts, song = make_texts(rng, 60, 300, 4), unit_rows(rng, 6, 300)
        best = search_texts(song, texts, 0.1, 3)
        codes, budget = codes_for(texts, None), int(rng.integers(3, 61))
        short = search_texts(song, texts, 0.1, 3, codes=lambda c=codes: c, budget=budget)
        assert short.scored <= budget
        if short.exact:
            proven += 1
            assert short.rows.tolist() == best.rows.tolist()
        else:
            assert best.scores[2] <= short.scores[2] + short.bound_gap + 1e-9
    assert proven < 20
    assert loops == "numpy" or proven > 1  # NumPy has the bound of MaxSim alone
