"""``python -m benchmarks.search``: certified search, exact search, memory."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from index.bounds import make_balls
from index.search import search_songs
from index.table import Ragged

SONGS, CLIPS, DIM, REPEATS = 5_000, 24, 256, 5


def median_s(call: Callable[[], object]) -> float:
    """Median wall time of a few calls, after one to warm up."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def make_table(rng: np.random.Generator, spread: float) -> Ragged:
    """Songs whose clips scatter around the song's own direction."""
    centre = rng.normal(size=(SONGS, 1, DIM))
    emb = centre + spread * rng.normal(size=(SONGS, CLIPS, DIM))
    emb /= np.linalg.norm(emb, axis=-1, keepdims=True)
    offsets = np.arange(SONGS + 1, dtype=np.int64) * CLIPS
    return Ragged((emb.reshape(-1, DIM).astype(np.float32),), offsets)


def main() -> None:
    """Print the figures."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, NumPy {np.__version__}")  # fmt: skip
    print(f"{SONGS} songs x {CLIPS} clips x {DIM}, 3 passages, k = 10, medians of {REPEATS}\n")
    rng = np.random.default_rng(0)
    for spread in (0.2, 0.6, 1.2):
        table = make_table(rng, spread)
        balls = make_balls(table)
        query = table.rows(7)[:3] + 0.3 * rng.normal(size=(3, DIM)).astype(np.float32) / DIM**0.5
        query /= np.linalg.norm(query, axis=1, keepdims=True)
        weight = np.full(3, 1 / 3, np.float32)

        def ask(mode: str) -> object:
            return search_songs(query, weight, table, 0.1, 10, mode=mode, balls=balls)  # noqa: B023

        read = median_s(lambda: table.emb.sum())  # noqa: B023
        exact, certified = median_s(lambda: ask("exact")), median_s(lambda: ask("certified"))
        found = search_songs(query, weight, table, 0.1, 10, mode="certified", balls=balls)
        print(
            f"clip spread {spread}: exact {1e3 * exact:.1f} ms ({exact / read:.1f} x reading the "
            f"clips once), certified {1e3 * certified:.1f} ms ({exact / certified:.1f} x faster "
            f"than exact), {found.scored} songs scored"
        )


if __name__ == "__main__":
    main()
