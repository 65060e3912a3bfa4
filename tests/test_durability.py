from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import FakeEmbedder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lossy_disk import FATES, LossyDisk

from index import Library
from index.arrays import Column, dump_columns, view_columns
from index.cli import main
from index.manifest import BACKUP_NAME, MANIFEST_NAME
from index.store import Store
from index.tiers import FAN, due_run, size_class
from retrieval.errors import DamagedLibraryError, LibraryError, LibraryWriteError

GOLDEN = Path(__file__).parent / "golden"


def make_music(folder: Path, first: int, last: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, last):
        (folder / f"{i:03d}.mp3").write_bytes(f"song {i}".encode())
    return folder


def state(folder: Path) -> tuple[object, ...]:
    """All answers of a library, to compare with another state of it."""
    library = Library.open(folder, FakeEmbedder())
    library.verify()
    hits = library.search("a piano. then strings", k=1000)
    songs = tuple((h.id, h.path, round(h.score, 9)) for h in hits)
    texts = tuple(library._state.text(int(row)).text for row in library._state.living_texts)
    return songs, texts


def test_a_library_of_format_1_is_read_and_becomes_one_of_now(tmp_path: Path) -> None:
    folder = tmp_path / "old.lp"
    shutil.copytree(GOLDEN / "format-1", folder)
    library = Library.open(folder, FakeEmbedder())
    hits = library.search("a piano. then strings")
    assert [(h.id, round(h.score, 6)) for h in hits] == [
        (3, 0.458714), (4, 0.387088), (1, 0.20483)
    ]  # fmt: skip
    before = state(folder)
    assert [s.title for s in library.songs("bpm = 102")] == ["Song 2"]
    assert library.compact()
    assert b'"format": 3' in (folder / MANIFEST_NAME).read_bytes()
    assert state(folder) == before
    assert library.info()["songs"] == 3
    library.add([make_music(tmp_path / "music", 0, 3)])
    assert len(library) == 6


def test_a_library_of_format_2_is_read_and_becomes_one_of_now(tmp_path: Path) -> None:
    folder = tmp_path / "old.lp"
    shutil.copytree(GOLDEN / "format-2", folder)
    library = Library.open(folder, FakeEmbedder())
    hits = library.search("a piano. then strings")
    assert [(h.id, round(h.score, 6)) for h in hits] == [
        (3, 0.387088), (4, 0.366386), (1, 0.349025)
    ]  # fmt: skip
    before = state(folder)
    assert [s.title for s in library.songs("bpm = 103")] == ["Song 3"]
    library.add([make_music(tmp_path / "music", 0, 3)])
    library.remove([s.id for s in library.songs("path LIKE '%00_.mp3'")])
    assert b'"format": 3' in (folder / MANIFEST_NAME).read_bytes()
    assert state(folder) == before
    assert library.compact()
    assert state(folder) == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    from index.manifest import _seal, dump_manifest

    folder = tmp_path / "new.lp"
    Library.create(folder, FakeEmbedder())
    import json

    body = json.loads(dump_manifest(Store.open(folder).manifest))
    del body["checksum"]
    (folder / MANIFEST_NAME).write_bytes(_seal({**body, "format": 4}))
    with pytest.raises(LibraryError, match="format 4"):
        Library.open(folder)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=400))
@example(([1] * 7 + [17]) * 40)  # small ones between larger ones that are too few to join
def test_adding_leaves_few_segments_and_writes_little_again(batches: list[int]) -> None:
    sizes: list[int] = []
    written = 0
    for size in batches:
        sizes.append(size)
        while (run := due_run(sizes)) is not None:
            first, last = run
            joined = sum(sizes[first:last])
            written += joined
            sizes[first:last] = [joined]
    total = sum(batches)
    assert sum(sizes) == total
    classes = size_class(total) + 1
    assert len(sizes) <= (FAN - 1) * classes
    assert written <= total * 2 * (classes + 1)


def test_compaction_changes_no_answer_and_frees_what_was_removed(tmp_path: Path) -> None:
    folder, music = tmp_path / "m.lp", make_music(tmp_path / "music", 0, 40)
    library = Library.create(folder, FakeEmbedder())
    for i in range(0, 40, 4):
        library.add([music / f"{j:03d}.mp3" for j in range(i, i + 4)])
    library.add_texts(["one text", "another text", "one text"])
    library.remove(range(5, 25))
    before = state(folder)
    size = sum(p.stat().st_size for p in folder.iterdir())
    assert library.compact()
    assert not library.compact()
    assert state(folder) == before
    assert len(Store.open(folder).manifest.segments) == 1
    assert not Store.open(folder).manifest.dead_songs
    assert sum(p.stat().st_size for p in folder.iterdir()) < 0.75 * size


def test_removed_and_added_back_again_and_again_nothing_grows(tmp_path: Path) -> None:
    folder, music = tmp_path / "m.lp", make_music(tmp_path / "music", 0, 30)
    library = Library.create(folder, FakeEmbedder())
    library.add([music])
    library.compact()
    answers = [(h.path, h.score) for h in library.search("a piano", k=30)]
    size = sum(p.stat().st_size for p in folder.iterdir())
    for _ in range(4):
        library.remove([song.id for song in library.songs()])
        assert len(library) == 0
        library.add([music])
    library.compact()
    assert [(h.path, h.score) for h in library.search("a piano", k=30)] == answers
    assert sum(p.stat().st_size for p in folder.iterdir()) < 1.05 * size


def test_a_reader_keeps_its_state_while_segments_are_joined(tmp_path: Path) -> None:
    folder, music = tmp_path / "m.lp", make_music(tmp_path / "music", 0, 9)
    writer = Library.create(folder, FakeEmbedder())
    for i in range(9):
        writer.add([music / f"{i:03d}.mp3"])
    reader, late = (Library.open(folder, FakeEmbedder()) for _ in range(2))
    assert len(reader) == 9
    writer.remove([1, 2])
    writer.compact()
    assert len(reader.search("x", k=20)) == 9  # what it opened stays readable
    assert len(late.search("x", k=20)) == 7  # what it had not opened yet is gone: the latest state
    reader.refresh()
    assert len(reader.search("x", k=20)) == 7


def change(folder: Path, disk: LossyDisk, music: Path) -> None:
    """A change of every kind."""
    library = Library(Store(folder, Store.open(folder).manifest, disk), FakeEmbedder())
    library.add([music])
    moved = music / "moved.mp3"
    (music / "005.mp3").rename(moved)
    try:
        library.add([moved])
    finally:  # the next crash starts from the same files
        moved.rename(music / "005.mp3")
    library.remove([2, 3])
    library.compact()


def whole_states(folder: Path, music: Path, scratch: Path) -> set[tuple[object, ...]]:
    """The states that a crash may leave: before, between and after the changes."""
    states = {state(folder)}
    shutil.copytree(folder, scratch)
    library = Library.open(scratch, FakeEmbedder())
    moved = music / "moved.mp3"
    for step in (
        lambda: library.add([music]),
        lambda: (music / "005.mp3").rename(moved),
        lambda: library.add([moved]),
        lambda: moved.rename(music / "005.mp3"),
        lambda: library.remove([2, 3]),
        library.compact,
    ):
        step()
        states.add(state(scratch))
    return states


def test_a_power_cut_at_any_call_leaves_one_whole_state(tmp_path: Path) -> None:
    base = tmp_path / "base.lp"
    library = Library.create(base, FakeEmbedder())
    library.add([make_music(tmp_path / "first", 0, 5)])
    library.add_texts(["a text"])
    music = make_music(tmp_path / "second", 5, 8)
    states = whole_states(base, music, tmp_path / "scratch.lp")
    assert len(states) == 4
    calls, seen = 0, set()
    while True:
        finished = False
        for fate in FATES:
            for renames_last in (False, True):
                folder = tmp_path / "crash.lp"
                shutil.copytree(base, folder)
                disk = LossyDisk(calls)
                try:
                    change(folder, disk, music)
                    finished = True
                except LibraryWriteError:
                    pass
                disk.crash(fate, renames_last)
                found = state(folder)
                assert found in states, (calls, fate, renames_last)
                seen.add(found)
                Library.open(folder, FakeEmbedder()).add([music])
                for path in tmp_path.glob("crash.lp*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        if finished:
            break
        calls += 1
    assert calls > 25
    assert seen == states


def test_the_power_cut_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without syncing, the test above finds a damaged library: it can fail."""
    monkeypatch.setattr(LossyDisk, "sync_file", lambda self, path: None)
    folder = tmp_path / "m.lp"
    Library.create(folder, FakeEmbedder())
    disk = LossyDisk(10_000)
    library = Library(Store(folder, Store.open(folder).manifest, disk), FakeEmbedder())
    library.add([make_music(tmp_path / "music", 0, 5)])
    disk.crash("zeroed", renames_last=True)
    with pytest.raises(DamagedLibraryError):
        state(folder)


@pytest.mark.parametrize(
    ("part", "songs", "texts"),
    [("songs.safetensors", 4, 1), ("songs.jsonl", 4, 1), ("texts.jsonl", 8, 0), ("", 8, 1)],
)
def test_repair_drops_what_is_damaged_and_names_it(
    tmp_path: Path, part: str, songs: int, texts: int
) -> None:
    folder = tmp_path / "m.lp"
    library = Library.create(folder, FakeEmbedder())
    library.add([make_music(tmp_path / "a", 0, 4)])
    library.add([make_music(tmp_path / "b", 4, 9)])
    library.remove([6])
    library.add_texts(["a text"])
    file = folder / MANIFEST_NAME
    if part:
        number = 3 + 1 if part.startswith("texts") else 2  # removing took a number as well
        file = folder / f"{number:08d}-{part}"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    if part:
        with pytest.raises(DamagedLibraryError, match="longplay repair"):
            Library.open(folder).verify()
    report = Library.repair(folder)
    found = state(folder)
    assert (len(found[0]), len(found[1])) == (songs, texts)  # type: ignore[arg-type]
    assert report.manifest == (not part)
    assert list(report.damaged) == ([file.name] if part else [])
    if part == "songs.safetensors":
        assert len(report.lost_songs) == 4
        Library.open(folder, FakeEmbedder()).add([tmp_path / "b"])
        assert len(state(folder)[0]) == 9  # type: ignore[arg-type]
    assert not Library.repair(folder).damaged


def test_repair_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "m.lp"
    Library.create(folder, FakeEmbedder()).add([make_music(tmp_path / "a", 0, 4)])
    assert main(["repair", str(folder)]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    (folder / "00000001-songs.jsonl").write_bytes(b"")
    assert main(["verify", str(folder)]) == 3
    assert main(["repair", str(folder)]) == 1
    assert "4 songs" in capsys.readouterr().out
    assert main(["compact", str(folder)]) == 0
    for name in (MANIFEST_NAME, BACKUP_NAME):
        (folder / name).write_bytes(b"{")
    assert main(["repair", str(folder)]) == 2


def test_arrays_are_what_the_safetensors_library_reads(tmp_path: Path) -> None:
    from safetensors.numpy import load

    rng = np.random.default_rng(0)
    arrays = {
        "b": rng.normal(size=(7, 5)).astype(np.float16),
        "a": rng.integers(0, 9, 3),
        "c": rng.normal(size=(4, 2)),
        "d": rng.normal(size=9).astype(np.float32),
    }
    columns = {
        name: Column([x[:2], x[2:]], x.dtype.name, x.shape[1:]) for name, x in arrays.items()
    }
    data = b"".join(dump_columns(columns))
    ours = view_columns(np.frombuffer(data, np.uint8))
    for found in (load(data), ours):
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 400))
def test_any_bytes_are_arrays_or_an_error(place: int, value: int, cut: int) -> None:
    columns = {
        "id": Column([np.arange(4)], "int64"),
        "x": Column([np.ones((4, 3), np.float32)], "float32", (3,)),
    }
    data = bytearray(b"".join(dump_columns(columns)))
    data[place % len(data)] = value
    try:
        found = view_columns(np.frombuffer(bytes(data[: len(data) - cut % len(data)]), np.uint8))
    except DamagedLibraryError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())
