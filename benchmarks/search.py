"""``python -m benchmarks.search``: exact and certified search beside NumPy, torch and the machine.

Vectors are drawn as :mod:`benchmarks.embeddings` tells. Peers are measured by
:mod:`benchmarks.search_peers`, growth by :mod:`benchmarks.search_scale`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.embeddings import FILE, EmbeddingModel
from benchmarks.machine import print_machine
from index.bounds import Passages
from index.codes import Codes, make_codes
from index.exact import fast_scores
from index.kernels import compiled
from index.search import QUICK, Ranking, as_passages, search_each, search_songs, search_texts
from index.table import Ragged

K = 10
RARITIES = {"common": 0.7, "usual": 1.0, "rare": 1.5}


def times_ms(call: Callable[[], object], repeats: int = 9) -> np.ndarray:
    """Wall times of a call, after one to warm up."""
    call()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - start))
    return np.array(found)


def median_ms(call: Callable[[], object], repeats: int = 9) -> float:
    """Their median."""
    return float(np.median(times_ms(call, repeats)))


def draw_queries(model: EmbeddingModel, count: int, passages: int, seed: int) -> list[Passages]:
    """Queries of one length, a third each common, usual and rare, with unequal weights."""
    rng, found = np.random.default_rng(seed), []
    kind = "short" if passages < 5 else "long"
    for i in range(count):
        rarity = list(RARITIES.values())[i % 3]
        emb = model.passages(rng, 1, passages, kind, rarity)[0]
        weight = rng.uniform(0.5, 1.5, passages)
        found.append(as_passages(emb, weight / weight.sum()))
    return found


def as_table(songs: np.ndarray) -> Ragged:
    """``[songs, clips, dim]`` as a table."""
    count, clips, dim = songs.shape
    return Ragged((songs.reshape(-1, dim),), np.arange(count + 1, dtype=np.int64) * clips)


def read_limit(rows: np.ndarray) -> float:
    """GB/s of reading an array once with all cores, by NumPy's maximum."""
    flat = rows.reshape(-1).view(np.float64)
    edges = np.linspace(0, len(flat), 33).astype(int)
    with ThreadPoolExecutor() as pool:

        def read() -> None:
            list(pool.map(lambda i: flat[edges[i] : edges[i + 1]].max(), range(32)))

        return rows.nbytes / 1e6 / median_ms(read)


def flop_limit() -> float:
    """GFLOP/s of a float32 matrix product."""
    a = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    return 2 * 2048**3 / 1e6 / median_ms(lambda: a @ a)


def numpy_scores(query: Passages, songs: np.ndarray, tau: float) -> np.ndarray:
    """Every song's score as one writes it with NumPy, song by song in blocks."""
    out = np.empty(len(songs), np.float32)
    for start in range(0, len(songs), 1024):
        block = songs[start : start + 1024].astype(np.float32, copy=False)
        sim = (block.reshape(-1, block.shape[2]) @ query.emb.T).reshape(*block.shape[:2], -1)
        power = np.exp((sim - sim.max(axis=1, keepdims=True)) / tau)
        pooled = (power * sim).sum(axis=1) / power.sum(axis=1)
        out[start : start + 1024] = pooled @ query.weight
    return out


def torch_scores(query: Passages, songs: np.ndarray, tau: float) -> np.ndarray:
    """The same with torch."""
    import torch

    emb, weight = torch.from_numpy(query.emb), torch.from_numpy(query.weight)
    every, out = torch.from_numpy(songs), torch.empty(len(songs))
    with torch.inference_mode():
        for start in range(0, len(songs), 1024):
            sim = every[start : start + 1024].float() @ emb.T
            pooled = (torch.softmax(sim / tau, dim=1) * sim).sum(dim=1)
            out[start : start + 1024] = pooled @ weight
    return out.numpy()


def measure_exact(table: Ragged, model: EmbeddingModel) -> None:
    """The kernel that scores every song, against the nearer limit of the machine."""
    half = Ragged((table.parts[0].astype(np.float16),), table.offsets)
    flops = flop_limit()
    print(f"\nexact kernel; a matrix product does {flops:.0f} GFLOP/s")
    for name, stored in (("float32", table), ("float16", half)):
        for passages in (1, 3, 8):
            (query,) = draw_queries(model, 1, passages, 1)
            # Reading is measured beside the kernel: others may use the machine as well.
            bandwidth = read_limit(stored.parts[0])
            took = median_ms(partial(fast_scores, query.emb, query.weight, stored, model.tau), 5)
            work_ms = 2e-6 * stored.n_rows * stored.dim * passages / flops
            limit_ms = max(stored.parts[0].nbytes / 1e6 / bandwidth, work_ms)
            share = 100 * limit_ms / took
            print(f"  {name}, {passages} passages: {took:.1f} ms, {share:.0f} % of the limit of "
                  f"{limit_ms:.1f} ms (reading at {bandwidth:.1f} GB/s)")  # fmt: skip


def measure_certified(
    table: Ragged, codes: list[Codes], model: EmbeddingModel, songs: np.ndarray, queries: int
) -> None:
    """Certified search against scoring every song."""
    for passages in (1, 8):
        asked = draw_queries(model, queries, passages, 10 + passages)
        ask = asker(table, codes, model.tau)
        ask(asked[0])
        took, scored = [], []
        for query in asked:
            start = time.perf_counter()
            found = ask(query)
            took.append(1e3 * (time.perf_counter() - start))
            scored.append(found.scored)
        p50, p95 = np.percentile(took, [50, 95])
        print(f"\ncertified, {passages} passages, {queries} queries: p50 {p50:.1f} ms, "
              f"p95 {p95:.1f} ms")  # fmt: skip
        print(f"  songs scored: median {np.median(scored):.0f}, 95 % at most "
              f"{np.percentile(scored, 95):.0f}, of {len(table)}")  # fmt: skip
        first = asked[0]
        slow = {
            "the exact kernel": partial(fast_scores, first.emb, first.weight, table, model.tau),
            "NumPy": partial(numpy_scores, first, songs, model.tau),
            "torch": partial(torch_scores, first, songs, model.tau),
        }
        for name, call in slow.items():
            whole = median_ms(call, 3)
            print(f"  every song by {name}: {whole:.0f} ms, {whole / p50:.0f} times as long")
    asked = draw_queries(model, 64, 1, 30)
    together = median_ms(
        lambda: search_each(asked, table, model.tau, K, mode="certified", codes=lambda: codes), 3
    )
    print(f"\n64 queries of one passage asked together: {together / 64:.1f} ms each")


def asker(
    table: Ragged, codes: list[Codes], tau: float, budget: int | None = None
) -> Callable[[Passages], Ranking]:
    """Certified top-k of a query; with a budget, what so many songs give without proof."""
    return lambda query: search_songs(
        query.emb, query.weight, table, tau, K,
        mode="certified", codes=lambda: codes, budget=budget, proven=budget is None,
    )  # fmt: skip


def measure_quick(table: Ragged, codes: list[Codes], model: EmbeddingModel, queries: int) -> None:
    """How many of the true first ten are found where nothing is proven."""
    for passages in (1, 3, 8):
        asked, parts = draw_queries(model, queries, passages, 50 + passages), []
        ask = asker(table, codes, model.tau)
        true = [set(ask(query).rows.tolist()) for query in asked]
        for budget in (100, 300, QUICK, 3000):
            quick = asker(table, codes, model.tau, budget)
            took, found = [], 0
            for query, best in zip(asked, true, strict=True):
                start = time.perf_counter()
                rows = quick(query).rows.tolist()
                took.append(1e3 * (time.perf_counter() - start))
                found += len(best & set(rows))
            recall = found / (K * len(asked))
            parts.append(f"{budget} songs {recall:.2f} in {np.median(took):.1f} ms")
        print(f"without proof, {passages} passages, recall@{K}: " + ", ".join(parts))


def mixed_queries(model: EmbeddingModel, count: int) -> Iterator[Passages]:
    """Short and long ones, common and rare, some against a passage."""
    for seed, passages in enumerate((1, 1, 2, 4, 8, 12)):
        for i, query in enumerate(draw_queries(model, -(-count // 6), passages, 100 + seed)):
            if passages == 4 and i % 2:  # what is unwanted
                query = as_passages(query.emb, query.weight * np.array([1, 1, 1, -0.7]))
            yield query


def measure_agreement(
    table: Ragged, codes: list[Codes], model: EmbeddingModel, queries: int
) -> None:
    """Answers of certified search against those of scoring every song."""
    ask, same, asked = asker(table, codes, model.tau), 0, 0
    for query in mixed_queries(model, queries):
        exact = search_songs(query.emb, query.weight, table, model.tau, K, mode="exact")
        found = ask(query)
        same += (
            found.exact
            and found.rows.tolist() == exact.rows.tolist()
            and found.scores.tolist() == exact.scores.tolist()
        )
        asked += 1
    print(f"\nthe same songs and scores as scoring every song: {same} of {asked} queries (1 to 12 "
          "passages, common and rare, with and without unwanted passages)")  # fmt: skip


def measure_other_ways(
    table: Ragged, codes: list[Codes], model: EmbeddingModel, songs: np.ndarray
) -> None:
    """Music to music, and music to stored texts."""
    song = as_passages(songs[7], np.full(songs.shape[1], 1 / songs.shape[1]))
    rows = np.delete(np.arange(len(table)), 7)

    def similar(mode: str) -> Ranking:
        return search_songs(song.emb, song.weight, table, model.tau, K, rows=rows, mode=mode,
                            codes=lambda: codes)  # fmt: skip

    print(f"\nmusic to music ({songs.shape[1]} clips ask): certified "
          f"{median_ms(lambda: similar('certified')):.1f} ms ({similar('certified').scored} songs "
          f"scored), exact {median_ms(lambda: similar('exact'), 3):.0f} ms")  # fmt: skip
    texts = model.passages(np.random.default_rng(3), 20_000, 3, "short")
    base = as_table(texts)
    stored = Ragged(base.parts, base.offsets, np.full(base.n_rows, 1 / 3, np.float32))
    coded = [make_codes(stored.parts[0], stored.offsets, songs[-500:].reshape(-1, model.dim))]

    def texts_of(mode: str) -> Ranking:
        return search_texts(songs[7], stored, model.tau, K, mode=mode, codes=lambda: coded)

    print(f"music to {len(stored)} texts of 3 passages: certified "
          f"{median_ms(lambda: texts_of('certified'), 3):.1f} ms ({texts_of('certified').scored} "
          f"texts scored), exact {median_ms(lambda: texts_of('exact'), 3):.1f} ms")  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure search.")
    parser.add_argument("--songs", type=int, default=100_000)
    parser.add_argument("--clips", type=int, default=30, help="clips of a song (30)")
    parser.add_argument("--queries", type=int, default=1000, help="for the comparison (1000)")
    told = "what vectors are drawn from, by benchmarks.embeddings or benchmarks.clap_shape"
    parser.add_argument("--embeddings", type=Path, default=FILE, help=told)
    args = parser.parse_args()
    print_machine("numpy", "torch")
    print("compiled loops" if compiled() else "loops were not compiled: NumPy does their work")
    model = EmbeddingModel(args.embeddings)
    songs = model.songs(np.random.default_rng(0), args.songs, args.clips)
    table = as_table(songs)
    print(f"{args.songs} songs x {args.clips} clips x {model.dim}, tau {model.tau:.4f}, k = {K}")
    model.print_fit(songs)
    start = time.perf_counter()
    codes = [make_codes(table.parts[0], table.offsets)]
    took = time.perf_counter() - start
    per_song = sum(plane.nbytes for plane in codes[0].planes) / args.songs
    print(f"codes: {args.songs / took:.0f} songs/s, {per_song:.0f} bytes "
          f"a song beside {table.parts[0].nbytes / args.songs:.0f}")  # fmt: skip
    measure_exact(table, model)
    measure_certified(table, codes, model, songs, min(args.queries, 300))
    measure_quick(table, codes, model, min(args.queries, 300))
    measure_other_ways(table, codes, model, songs)
    measure_agreement(table, codes, model, args.queries)


if __name__ == "__main__":
    main()
