"""All builds of the loops do the same."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_kinds import KINDS, USABLE, use_loops

from index.bounds import SongBounds
from index.codes import Codes, make_codes
from index.exact import fast_scores, pair_score, rounding
from index.search import as_passages
from index.table import Ragged, stack


def make_songs(rng: np.random.Generator, songs: int, dim: int, longest: int) -> Ragged:
    """Clips of each around a direction of its own."""
    parts = []
    for n in rng.integers(1, longest + 1, songs):
        x = rng.normal(size=dim) + 0.5 * rng.normal(size=(int(n), dim))
        parts.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    return stack(parts, dim)


def codes_for(table: Ragged) -> list[Codes]:
    return [make_codes(span.rows, span.offsets) for span in table.spans]


@pytest.mark.parametrize("dim", [20, 80, 140])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("plain", "numpy")])
def test_every_build_makes_the_same_bounds(
    kind: str, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(dim)
    table = make_songs(rng, 150, dim, 40)
    codes = codes_for(table)
    for passages in (1, 2, 3, 7, 8, 9, 16, 19):
        q = unit_rows(rng, passages, dim)
        query = as_passages(q, rng.uniform(0.1, 1, passages) / passages)
        for bar in (-np.inf, np.inf):  # by everything that is known, and by the first plane alone
            use_loops("plain", monkeypatch)
            plain = SongBounds(query, table, codes, 0.05)(bar)
            use_loops(kind, monkeypatch)
            bounds = SongBounds(query, table, codes, 0.05)
            found = bounds(bar)
            (upper, middle), (plain_upper, plain_middle) = found, plain
            # Where the chords to an average meet rounding, a build may stop a step before another.
            most = 2e-5 if bar > 0 else 1e-3
            assert np.abs(upper - plain_upper).max() < most
            assert np.abs(middle - plain_middle).max() < 2e-5
            bounds.guesses()  # what it finds of a single passage is not worked out again
            again = bounds(bar)
            assert np.abs(again[0] - upper).max() < most
            assert np.abs(again[1] - middle).max() < 2e-6


_OWN_TILES = """
#include <immintrin.h>
#pragma GCC target("amx-tile")
void set_tiles(const void *tiles) { _tile_loadconfig(tiles); }
void get_tiles(void *tiles) { _tile_storeconfig(tiles); }
void drop_tiles(void) { _tile_release(); }
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs GCC")
def test_a_threads_tiles_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other libraries set up tiles of AMX as well, and count on finding them so."""
    use_loops("amx", monkeypatch)
    (tmp_path / "tiles.c").write_text(_OWN_TILES)
    built = str(tmp_path / "tiles.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", built, tmp_path / "tiles.c"], check=True)
    library = ctypes.CDLL(built)
    rng = np.random.default_rng(1)
    table = make_songs(rng, 20, 24, 9)  # so few that this thread does the work
    bounds = SongBounds(
        as_passages(unit_rows(rng, 8, 24), np.full(8, 0.125)), table, codes_for(table), 0.05
    )
    # The layout of LDTILECFG: the palette, bytes of a row from 16 on, rows from 48 on.
    mine, found = bytearray(64), ctypes.create_string_buffer(64)
    mine[0], mine[16], mine[48] = 1, 24, 5
    for expected in (bytes(mine), bytes(64)):
        if any(expected):
            library.set_tiles(expected)
        else:
            library.drop_tiles()
        bounds(-np.inf)
        library.get_tiles(found)
        assert found.raw == expected


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    dim=st.sampled_from([1, 15, 16, 17, 80, 100]),
    clips=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    passages=st.integers(1, 21),
    dtype=st.sampled_from(["f4", "f2"]),
    kind=st.sampled_from(USABLE),
)
def test_fast_scores_are_near_in_every_build(
    seed: int, dim: int, clips: list[int], passages: int, dtype: str, kind: str
) -> None:
    rng = np.random.default_rng(seed)
    table = Ragged(
        (unit_rows(rng, sum(clips), dim).astype(dtype),), np.concatenate([[0], np.cumsum(clips)])
    )
    q, w = unit_rows(rng, passages, dim), rng.normal(size=passages)
    scores = [pair_score(q, w, table.rows(j), 0.05) for j in range(len(table))]
    with pytest.MonkeyPatch.context() as patch:
        use_loops(kind, patch)
        found = fast_scores(q, w, table, 0.05)
    assert np.abs(found - scores).max() <= rounding(dim, 0.05, 40) * np.abs(w).sum()
