"""``python -m benchmarks.search_peers``: the same clips in LanceDB, Qdrant Edge and FAISS.

The peers rank by MaxSim, the sum over passages of the best clip (FAISS over its nearest clips),
which is the nearest to the fusion score that they offer; recall@10 counts how many of the true
first ten of the fusion score they find. A peer that is not installed is left out
(``pip install 'longplay[bench]'``).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.embeddings import EmbeddingModel
from benchmarks.machine import print_machine
from benchmarks.search import K, as_table, asker, draw_queries
from index.bounds import Passages
from index.codes import make_codes
from index.search import QUICK, Ranking, search_songs

#: Songs found for a query, best first.
Ask = Callable[[Passages], list[int]]
_NEAREST = 1000
#: Songs that Longplay scores where it proves nothing (``exact="never"``).
BUDGETS = (300, QUICK)


def faiss_flat(songs: np.ndarray, folder: Path) -> Ask:
    """A flat index of all clips; a song counts with its best clip among each passage's nearest."""
    import faiss

    index = faiss.IndexFlatIP(songs.shape[2])
    index.add(songs.reshape(-1, songs.shape[2]))
    # FAISS leaves BLAS below 20 queries at once, and is slower there.
    faiss.cvar.distance_compute_blas_threshold = 1

    def ask(query: Passages) -> list[int]:
        sims, clips = index.search(query.emb, _NEAREST)
        total: dict[int, float] = {}
        for sim, row, weight in zip(sims, clips // songs.shape[1], query.weight, strict=True):
            found, first = np.unique(row, return_index=True)  # the nearest clip comes first
            for song, best in zip(found.tolist(), sim[first].tolist(), strict=True):
                total[song] = total.get(song, 0.0) + weight * (best - sim[-1])
        return sorted(total, key=lambda song: -total[song])[:K]

    return ask


def lancedb_multivector(songs: np.ndarray, folder: Path) -> Ask:
    """A column of several vectors a song, read in full."""
    import lancedb
    import pyarrow as pa

    vector = pa.list_(pa.list_(pa.float32(), songs.shape[2]))
    schema = pa.schema([("id", pa.int64()), ("vector", vector)])

    def batches() -> object:
        for start in range(0, len(songs), 2000):
            block = songs[start : start + 2000]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), songs.shape[2])
            offsets = pa.array(np.arange(len(block) + 1, dtype=np.int32) * songs.shape[1])
            lists = pa.ListArray.from_arrays(offsets, flat)
            ids = pa.array(np.arange(start, start + len(block)))
            yield pa.RecordBatch.from_arrays([ids, lists], schema=schema)

    table = lancedb.connect(folder / "lance").create_table("songs", batches(), schema=schema)

    def ask(query: Passages) -> list[int]:
        # MaxSim has no weights there; lengths do not count either, as the metric is the cosine.
        found = (
            table.search(list(query.emb))
            .distance_type("cosine")
            .limit(K)
            .select(["id", "_distance"])
        )
        return [row["id"] for row in found.to_list()]

    return ask


def qdrant_edge(songs: np.ndarray, folder: Path) -> Ask:
    """Several vectors a point, MaxSim over all of them."""
    from qdrant_edge import (
        Distance,
        EdgeConfig,
        EdgeShard,
        EdgeVectorParams,
        HnswIndexConfig,
        MultiVectorComparator,
        MultiVectorConfig,
        Point,
        Query,
        SearchParams,
        SearchRequest,
        UpdateOperation,
    )

    place = folder / "qdrant"
    place.mkdir()
    several = MultiVectorConfig(MultiVectorComparator.MaxSim)
    vectors = {"clips": EdgeVectorParams(songs.shape[2], Distance.Dot, multivector_config=several)}
    shard = EdgeShard.create(
        str(place), EdgeConfig(vectors, hnsw_config=HnswIndexConfig(0, 100, 10_000))
    )
    for start in range(0, len(songs), 500):
        points = [
            Point(start + i, {"clips": song.tolist()})
            for i, song in enumerate(songs[start : start + 500])
        ]
        shard.update(UpdateOperation.upsert_points(points))

    def ask(query: Passages) -> list[int]:
        weighted = (query.emb * query.weight[:, None]).tolist()
        request = SearchRequest(Query.Nearest(weighted, using="clips"), K,
                                params=SearchParams(exact=True))  # fmt: skip
        return [point.id for point in shard.search(request)]

    return ask


PEERS = {
    "faiss": ("FAISS Flat over clips, MaxSim of 1,000 nearest", faiss_flat),
    "lancedb": ("LanceDB multivector", lancedb_multivector),
    "qdrant_edge": ("Qdrant Edge multivector", qdrant_edge),
}


def measure(ask: Ask, queries: list[Passages], truth: list[list[int]]) -> tuple[float, float]:
    """Median milliseconds, and the share of the true first ten that is found."""
    ask(queries[0])
    took, hits = [], 0
    for query, best in zip(queries, truth, strict=True):
        start = time.perf_counter()
        found = ask(query)
        took.append(1e3 * (time.perf_counter() - start))
        hits += len(set(found) & set(best))
    return float(np.median(took)), hits / (K * len(queries))


def beside(
    name: str, peer: Ask, ours: dict[str, Ask], queries: list[Passages], truth: list[list[int]]
) -> None:
    """A peer, and each of our ways measured at once behind it: the machine's clock may change."""
    took, recall = measure(peer, queries, truth)
    print(f"  {name}: {took:.1f} ms, recall@{K} {recall:.3f}")
    for way, ask in ours.items():
        own, own_recall = measure(ask, queries, truth)
        print(f"    {took / own:.0f} times as long as Longplay, {way} ({own:.1f} ms, recall@{K} "
              f"{own_recall:.3f})", flush=True)  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure search beside other libraries.")
    parser.add_argument("--songs", type=int, default=20_000)
    parser.add_argument("--clips", type=int, default=30, help="clips of a song (30)")
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    args = parser.parse_args()
    installed = [peer for peer in args.peers if find_spec(peer)]
    for peer in set(args.peers) - set(installed):
        print(f"{PEERS[peer][0]}: not installed, left out")
    packages = {"faiss": "faiss-cpu", "qdrant_edge": "qdrant-edge-py"}
    print_machine("numpy", *(packages.get(peer, peer) for peer in installed))
    model = EmbeddingModel()
    songs = model.songs(np.random.default_rng(0), args.songs, args.clips)
    table, by_length = as_table(songs), {}
    for passages in (1, 8):
        queries = draw_queries(model, args.queries, passages, 70 + passages)
        best = [search_songs(q.emb, q.weight, table, model.tau, K, mode="exact") for q in queries]
        by_length[passages] = queries, [found.rows.tolist() for found in best]
    codes = [make_codes(table.parts[0], table.offsets)]
    print(f"{args.songs} songs x {args.clips} clips x {model.dim}")
    budgets = {f"{budget} songs without proof": budget for budget in BUDGETS}
    ways = {
        way: rows_of(asker(table, codes, model.tau, budget))
        for way, budget in {"certified": None, **budgets}.items()
    }
    for peer in installed:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            peer_ask = PEERS[peer][1](songs, Path(folder))
            print(f"{PEERS[peer][0]}: built in {time.perf_counter() - start:.0f} s")
            for passages, (queries, truth) in by_length.items():
                beside(f"{passages} passages", peer_ask, ways, queries, truth)


def rows_of(ask: Callable[[Passages], Ranking]) -> Ask:
    """Songs alone."""
    return lambda query: ask(query).rows.tolist()


if __name__ == "__main__":
    main()
