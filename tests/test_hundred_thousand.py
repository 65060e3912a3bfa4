"""Many songs removed and added back: the same answers, and no growth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, unit_rows

from index import Library
from index.records import SongRecord, TextRecord
from index.store import Store
from retrieval.embedder import SongEmbedding, TextEmbedding


def commit_songs(folder: Path, count: int) -> None:
    """The same songs, each with a text, in commits of 5,000: only their ids are others."""
    for start in range(0, count, 5000):
        store, rng = Store.open(folder), np.random.default_rng(start)
        first_song, first_text = store.manifest.next_song, store.manifest.next_text
        songs, texts = [], []
        for i in range(start, min(start + 5000, count)):
            clips, id = 1 + i % 3, first_song + i - start
            times = np.stack([np.arange(clips) * 10.0, np.arange(clips) * 10.0 + 10], axis=1)
            record = SongRecord(id, f"/music/{i:06d}.mp3", i, i, f"{i:064x}", 10.0 * clips,
                                meta={"bpm": i % 200})  # fmt: skip
            songs.append((record, SongEmbedding(unit_rows(rng, clips, 16), times, 10.0 * clips)))
            text = TextRecord(first_text + i - start, f"text {i}", (f"text {i}",), id)
            emb = TextEmbedding([f"text {i}"], unit_rows(rng, 1, 16), np.ones(1, np.float32))
            texts.append((text, emb))
        store.commit(songs, texts)
        store.tidy()


def answers(folder: Path, song: Path) -> object:
    library = Library.open(folder, FakeEmbedder())
    library.verify()
    found = [
        [(hit.path, hit.score) for hit in library.search(text, 50, where)]
        for text in ("a piano", "drums. then strings", "one. two. three")
        for where in (None, "bpm < 20")
    ]
    return found, [(hit.text, hit.score) for hit in library.texts(song, 20)], len(library)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("count", [1200, pytest.param(100_000, marks=pytest.mark.slow)])
def test_songs_removed_and_added_back_leave_the_same_library(tmp_path: Path, count: int) -> None:
    folder, song = tmp_path / "m.lp", tmp_path / "song.mp3"
    song.write_bytes(b"a song")
    Library.create(folder, FakeEmbedder())
    commit_songs(folder, count)
    library = Library.open(folder, FakeEmbedder())
    library.compact()
    before, bytes_before = answers(folder, song), size_of(folder)
    for _ in range(2):
        library.remove([s.id for s in library.songs()])
        library.compact()
        assert len(library) == 0
        assert library.search("a piano") == []
        assert size_of(folder) < 3000  # two manifests: nothing is left behind
        commit_songs(folder, count)
        library = Library.open(folder, FakeEmbedder())
        library.compact()
        assert answers(folder, song) == before
        assert size_of(folder) <= 1.01 * bytes_before  # ids of more digits
