"""``python -m benchmarks.search_scale``: cost of certified search from 1,000 songs to a million.

Also a library on disk: how fast it is built, its size, opening, and the delay from adding to an
answer. A million songs of 30 clips need 16 GB of disk for the drawn vectors, in ``--folder``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.embeddings import EmbeddingModel
from benchmarks.machine import print_machine
from benchmarks.search import K, asker, draw_queries
from index.codes import make_codes
from index.exact import fast_scores
from index.files import sha256_hex
from index.library import Library
from index.manifest import Manifest
from index.records import SongRecord
from index.store import Store
from index.table import Ragged
from retrieval.embedder import SongEmbedding, TextEmbedding

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
CLIPS = 30
_CHUNK = 10_000
_EXACT_UP_TO = 100_000


def draw_file(model: EmbeddingModel, songs: int, path: Path) -> np.ndarray:
    """Clips of many songs on disk, float16 ``[songs * clips, dim]``, mapped."""
    shape = (songs * CLIPS, model.dim)
    rows = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    for start in range(0, songs, _CHUNK):
        n = min(_CHUNK, songs - start)
        drawn = model.songs(np.random.default_rng(start), n, CLIPS, "float16")
        rows[start * CLIPS : (start + n) * CLIPS] = drawn.reshape(-1, model.dim)
    rows.flush()
    return np.load(path, mmap_mode="r")


def own_memory_gb() -> float:
    """Memory of this process that is not a mapped file (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1e6
    return float("nan")


def measure_sizes(model: EmbeddingModel, rows: np.ndarray, sizes: Sequence[int]) -> list[dict]:
    """Milliseconds and songs scored at each size."""
    found = []
    for songs in sizes:
        table = Ragged((rows[: songs * CLIPS],), np.arange(songs + 1, dtype=np.int64) * CLIPS)
        start = time.perf_counter()
        codes = [make_codes(table.parts[0], table.offsets)]
        build_s = time.perf_counter() - start
        row = {"songs": songs, "build_s": build_s, "memory_gb": own_memory_gb()}
        ask = asker(table, codes, model.tau)
        for passages in (1, 8):
            queries = draw_queries(model, 60, passages, 50)
            ask(queries[0])
            took, scored = [], []
            for query in queries:
                start = time.perf_counter()
                answer = ask(query)
                took.append(1e3 * (time.perf_counter() - start))
                scored.append(answer.scored)
                if not answer.exact:
                    raise RuntimeError(
                        f"certified: got an answer that is not exact ({songs} songs)"
                    )
            row[f"p50_{passages}"], row[f"p95_{passages}"] = np.percentile(took, [50, 95])
            row[f"scored_{passages}"] = np.median(scored)
        if songs <= _EXACT_UP_TO:
            query = queries[0]
            start = time.perf_counter()
            fast_scores(query.emb, query.weight, table, model.tau)
            row["exact_8"] = 1e3 * (time.perf_counter() - start)
        print(f"{songs:9} songs: codes in {build_s:.1f} s, own memory {row['memory_gb']:.1f} GB")
        for n in (1, 8):
            print(f"    {n} passages: p50 {row[f'p50_{n}']:.1f} ms, p95 {row[f'p95_{n}']:.1f} ms, "
                  f"{row[f'scored_{n}']:.0f} songs scored", flush=True)  # fmt: skip
        found.append(row)
    return found


def draw(found: list[dict], path: Path) -> None:
    """The picture of cost against songs."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4))
    songs = [row["songs"] for row in found]
    for passages, mark in ((1, "o"), (8, "s")):
        axes.plot(songs, [r[f"p50_{passages}"] for r in found], mark + "-",
                  label=f"certified, {passages} passage{'s' * (passages > 1)}")  # fmt: skip
    exact = [(r["songs"], r["exact_8"]) for r in found if "exact_8" in r]
    axes.plot(*zip(*exact, strict=True), "^--", color="grey", label="every song, 8 passages")
    axes.set(xscale="log", yscale="log", xlabel="songs of 30 clips", ylabel="ms, median")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


class _Drawn:
    """Stands in for a model that gives drawn vectors."""

    clip_s, digest = 10.0, "d" * 64

    def __init__(self, model: EmbeddingModel):
        self.dim, self.tau, self._model = model.dim, model.tau, model

    def embed_text(self, text: str) -> TextEmbedding:
        """Passages drawn from the text's hash."""
        rng = np.random.default_rng(int(sha256_hex(text.encode())[:8], 16))
        return TextEmbedding([text], self._model.passages(rng, 1, 1, "short")[0], np.ones(1))


def measure_library(model: EmbeddingModel, rows: np.ndarray, songs: int, folder: Path) -> None:
    """A library of drawn songs: building, size, opening, first and later searches, adding."""
    drawn = _Drawn(model)
    manifest = Manifest(0, drawn.digest, None, model.dim, "float16", 10.0, model.tau)
    start = time.perf_counter()
    store = Store.create(folder, manifest)
    for first in range(0, songs, _CHUNK):
        store.commit([_song(i, rows) for i in range(first, min(first + _CHUNK, songs))])
        store.tidy()
    library = Library(store, drawn)
    library.compact()
    build_s = time.perf_counter() - start
    start = time.perf_counter()
    library.search("anything", mode="certified")
    codes_s = time.perf_counter() - start
    sizes = {p: sum(f.stat().st_size for f in folder.glob(p)) for p in ("*-songs.*", "cache/*")}
    print(f"\na library of {songs} songs, float16: written and joined in {build_s:.0f} s "
          f"({songs / build_s:.0f} songs/s), codes and first search {codes_s:.0f} s; "
          f"{sizes['*-songs.*'] / songs:.0f} bytes a song and {sizes['cache/*'] / songs:.0f} of "
          "codes")  # fmt: skip
    # What was joined is still mapped: giving gigabytes of deleted files back takes a second.
    del library, store
    start = time.perf_counter()
    library = Library.open(folder, drawn)
    open_ms = 1e3 * (time.perf_counter() - start)
    start = time.perf_counter()
    library.search("anything")
    first_s = time.perf_counter() - start
    took = []
    for i in range(30):
        start = time.perf_counter()
        library.search(f"something {i}")
        took.append(1e3 * (time.perf_counter() - start))
    print(f"  opened in {open_ms:.0f} ms; first search, which checks every byte, {first_s:.1f} s; "
          f"later ones p50 {np.median(took):.1f} ms with moments")  # fmt: skip
    start = time.perf_counter()
    library._store.latest().commit([_song(songs, rows, place=0)])
    library.refresh()
    hits = library.search("anything", k=K)
    delay_ms = 1e3 * (time.perf_counter() - start)
    print(f"  from adding a song (embedded already) to an answer over it: {delay_ms:.0f} ms"
          f"{'' if hits.exact else ', not exact'}")  # fmt: skip


def _song(
    number: int, rows: np.ndarray, place: int | None = None
) -> tuple[SongRecord, SongEmbedding]:
    place = number if place is None else place
    start = np.arange(CLIPS) * 10.0
    sha256 = sha256_hex(str(number).encode())
    record = SongRecord(
        number + 1, f"/music/{number}.mp3", 1, 1, sha256, CLIPS * 10.0, f"song {number}"
    )
    clips = np.asarray(rows[place * CLIPS : (place + 1) * CLIPS])
    return record, SongEmbedding(clips, np.stack([start, start + 10], axis=1), CLIPS * 10.0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure how search grows.")
    parser.add_argument("--most", type=int, default=SIZES[-1], help="songs at most (a million)")
    parser.add_argument("--folder", type=Path, help="for the drawn vectors (a temporary one)")
    parser.add_argument("--picture", type=Path, help="where to draw cost against songs")
    args = parser.parse_args()
    print_machine("numpy")
    model = EmbeddingModel()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        sizes = [size for size in SIZES if size <= args.most]
        start = time.perf_counter()
        rows = draw_file(model, sizes[-1], Path(folder, "clips.npy"))
        print(f"drawn in {time.perf_counter() - start:.0f} s", flush=True)
        measure_library(model, rows, min(100_000, sizes[-1]), Path(folder, "library.lp"))
        found = measure_sizes(model, rows, sizes)
    if args.picture:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
