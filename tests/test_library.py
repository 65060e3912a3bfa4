from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import FakeEmbedder

from index import Library
from index.cli import main
from index.files import Disk
from index.lock import writer_lock
from index.store import Store
from retrieval.embedder import SongEmbedding
from retrieval.errors import (
    DamagedLibraryError,
    LibraryError,
    LibraryLockedError,
    LibraryWriteError,
    ManifestError,
    ModelMismatchError,
    TextError,
)


def test_add_search_reopen(tmp_path: Path, library: Library, music: Path) -> None:
    report = library.add([music])
    assert len(report.added) == 12
    hits = library.search("a piano. then strings", k=5)
    assert hits.exact
    assert len(hits) == 5
    assert [m.passage for m in hits[0].moments] == [0, 1]
    again = Library.open(tmp_path / "music.lp", FakeEmbedder())
    assert [(h.path, h.score) for h in again.search("a piano. then strings", k=5)] == [
        (h.path, h.score) for h in hits
    ]
    exact = again.search("a piano. then strings", k=5, mode="exact")
    assert [h.id for h in exact] == [h.id for h in hits]
    nearest = again.search("a piano. then strings", k=5, exact="budget", budget=12)
    assert nearest.exact
    assert [h.id for h in nearest] == [h.id for h in hits]
    quick = again.search("a piano. then strings", k=5, exact="never")
    assert quick.exact  # of so few all are scored
    assert [h.id for h in quick] == [h.id for h in hits]


def test_broken_files_are_named_and_nothing_is_added_twice(library: Library, music: Path) -> None:
    (music / "bad.mp3").write_bytes(b"BAD")
    report = library.add([music, music / "missing.mp3"])
    assert len(report.added) == 12
    assert {Path(p).name for p, _ in report.skipped} == {"bad.mp3", "missing.mp3"}
    assert all("NotAudioError" in reason for _, reason in report.skipped)
    second = library.add([music])
    assert (len(second.added), len(second.unchanged), len(library)) == (0, 12, 12)


def test_changed_copied_and_touched_files(library: Library, music: Path) -> None:
    library.add([music])
    old = library.song(1).record
    (music / "00.mp3").write_bytes(b"another song")
    os.utime(music / "02.mp3", (1, 1))
    (music / "copy.mp3").write_bytes((music / "04.mp3").read_bytes())
    report = library.add([music])
    assert [Path(p).name for p in report.replaced] == ["00.mp3"]
    assert [Path(p).name for p in report.duplicates] == ["copy.mp3"]
    assert len(report.unchanged) == 11
    assert len(library) == 12
    with pytest.raises(LibraryError, match="id"):
        library.song(old.id)


def test_a_content_that_was_replaced_can_come_back(library: Library, music: Path) -> None:
    library.add([music])
    old = (music / "00.mp3").read_bytes()
    (music / "00.mp3").write_bytes(b"another song")
    (music / "moved.mp3").write_bytes(old)
    report = library.add([music])
    assert [Path(p).name for p in report.replaced] == ["00.mp3"]
    assert [Path(p).name for p in report.added] == ["moved.mp3"]


def test_a_renamed_file_is_the_same_song(tmp_path: Path, library: Library, music: Path) -> None:
    row = {"id": "s", "audio": "music/00.mp3", "title": "A", "meta": {"bpm": 90},
           "captions": [{"text": "a caption"}]}  # fmt: skip
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    library.add([tmp_path / "m.jsonl", music])
    (before,) = library.songs("bpm = 90")
    calls: list[object] = []
    library._model.embed_song = lambda path: calls.append(path)  # type: ignore
    (music / "00.mp3").rename(music / "zz.mp3")
    (music / "copy.mp3").write_bytes((music / "02.mp3").read_bytes())
    report = library.add([music])
    assert [Path(p).name for p in report.renamed] == ["zz.mp3"]
    assert [Path(p).name for p in report.duplicates] == ["copy.mp3"]
    assert len(report.unchanged) == 11
    assert not calls
    for _ in range(2):
        (after,) = library.songs("bpm = 90 AND path LIKE '%zz.mp3'")
        assert after == replace(before, path=str(music / "zz.mp3"))
        assert library.songs("path LIKE '%/00.mp3'") == []
        assert len(library) == 12
        assert [r.id for r, _ in library.find("caption")] == [before.id]
        assert {h.path for h in library.search("x", k=20)} >= {after.path}
        library = Library.open(tmp_path / "music.lp", FakeEmbedder())
        if library.compact():  # the second time round the record itself was written anew
            assert library._store.manifest.moved == {}
    assert not library.add([music]).renamed
    (music / "zz.mp3").rename(music / "00.mp3")
    assert len(library.add([music / "00.mp3"]).renamed) == 1
    library.remove([before.id])
    assert library._store.manifest.moved == {}
    assert len(library.add([music / "00.mp3"]).added) == 1


def test_many_renames_leave_the_manifest_small(
    library: Library, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.store._FEW", 3)
    library.add([music])
    ids = [song.id for song in library.songs()]
    for path in sorted(music.glob("**/*.mp3")):
        path.rename(path.with_name(f"new-{path.name}"))
    assert len(library.add([music]).renamed) == 12
    assert library._store.manifest.moved == {}
    assert [song.id for song in library.songs("path LIKE '%/new-__.mp3'")] == ids


def test_a_song_that_the_model_cannot_hear_is_skipped(tmp_path: Path, music: Path) -> None:
    class Deaf(FakeEmbedder):
        def embed_song(self, path: str | Path) -> SongEmbedding:
            found = super().embed_song(path)
            if Path(path).name == "04.mp3":
                found.clip_emb[0, 0] = np.nan
            return found

    report = Library.create(tmp_path / "deaf.lp", Deaf()).add([music])
    assert len(report.added) == 11
    assert "NaN" in report.skipped[0][1]


def test_similar_leaves_the_song_itself_out(library: Library, music: Path) -> None:
    library.add([music])
    hits = library.similar(music / "00.mp3", k=12)
    assert len(hits) == 11
    assert str(music / "00.mp3") not in [h.path for h in hits]


def test_manifest_brings_texts_and_metadata(tmp_path: Path, library: Library, music: Path) -> None:
    rows = [
        {"id": f"s{i}", "audio": f"music/{i:02d}.mp3", "captions": [{"text": f"caption {i}"}],
         "tags": ["jazz"], "meta": {"bpm": 100 + i, "genre": "jazz" if i else "rock"}}
        for i in (0, 2, 4)
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    library.add([tmp_path / "m.jsonl"])
    found = library.texts(music / "02.mp3", k=10)
    assert {hit.text for hit in found} == {"caption 0", "caption 2", "caption 4"}
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    names = [Path(s.path).stem for s in library.songs("bpm > 101 AND genre = 'jazz'")]
    assert names == ["02", "04"]
    assert len(library.search("x", where="bpm < 0")) == 0
    assert library.add_texts(["a loose text", "another"])
    assert len(library.texts(music / "02.mp3", k=10)) == 5
    library.remove([h.id for h in library.search("x", k=1)])
    assert len(library) == 2
    assert len(library.texts(music / "02.mp3", k=10)) == 4


def test_errors_are_clear(tmp_path: Path, library: Library, music: Path) -> None:
    with pytest.raises(TextError):
        library.search("  ")
    with pytest.raises(LibraryError, match="exists already"):
        Library.create(tmp_path / "music.lp", FakeEmbedder())
    with pytest.raises(LibraryError, match="not found"):
        Library.open(tmp_path / "nothing")
    with pytest.raises(LibraryError, match="id: 5"):
        library.remove([5])
    with pytest.raises(ManifestError):
        library.add([tmp_path / "missing.jsonl"])

    class Other(FakeEmbedder):
        digest = "e" * 64

    with pytest.raises(ModelMismatchError, match="made with"):
        Library.open(tmp_path / "music.lp", Other())


def test_an_empty_library_answers(library: Library, music: Path) -> None:
    assert list(library.search("x")) == []
    assert library.texts(music / "00.mp3") == []
    assert library.verify() == 1


def test_one_writer_at_a_time(tmp_path: Path, library: Library, music: Path) -> None:
    with writer_lock(tmp_path / "music.lp"), pytest.raises(LibraryLockedError, match="process"):
        library.add([music])


class FailingDisk(Disk):
    """The n-th step on the disk fails, and with it everything after."""

    def __init__(self, steps: int):
        self.steps = steps

    def _step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise OSError(28, "No space left on device")

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        data = b"".join(pieces)
        if self.steps == 0:
            path.write_bytes(data[: len(data) // 2])  # a torn write
        self._step()
        super().write(path, [data])

    def sync_file(self, path: Path) -> None:
        self._step()
        super().sync_file(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        self._step()
        super().sync_folder(folder)


def test_a_crash_at_any_step_leaves_a_whole_state(tmp_path: Path, music: Path) -> None:
    states = set()
    for steps in range(20):
        path = tmp_path / f"crash-{steps}.lp"
        Library.create(path, FakeEmbedder()).add([music / "album"])
        broken = Library(Store.open(path, FailingDisk(steps)), FakeEmbedder())
        failed = False
        try:
            broken.add([music])
        except LibraryWriteError:
            failed = True
        after = Library.open(path, FakeEmbedder())
        states.add((failed, len(after)))
        assert len(after) in (6, 12)
        after.verify()
        after.add([music])
        assert len(after) == 12
        assert len(list(after.search("x", k=20))) == 12
    assert {(True, 6), (False, 12)} <= states


def ask_everything(folder: Path, song: Path) -> object:
    """All that the files of a library can answer."""
    library = Library.open(folder, FakeEmbedder())
    hits = library.search("a piano. then strings", k=20)
    texts = library.texts(song, k=20)
    return hits, texts, library.songs(), library.verify()


def test_any_flipped_bit_is_found(tmp_path: Path, library: Library, music: Path) -> None:
    library.add([music])
    library.add_texts(["a text"])
    rng = np.random.default_rng(0)
    song = music / "00.mp3"
    leave = ("lock", "manifest.backup.json")
    files = [p for p in (tmp_path / "music.lp").iterdir() if p.name not in leave]
    assert len(files) == 5
    for file in files:
        good = file.read_bytes()
        for _ in range(40):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            file.write_bytes(bad)
            with pytest.raises((DamagedLibraryError, LibraryError)):
                ask_everything(tmp_path / "music.lp", song)
        file.write_bytes(good[:-1])
        with pytest.raises(DamagedLibraryError):
            ask_everything(tmp_path / "music.lp", song)
        file.write_bytes(good)
    ask_everything(tmp_path / "music.lp", song)
    assert Library.open(tmp_path / "music.lp", FakeEmbedder()).verify() == 5


def test_killed_in_the_middle_of_add(tmp_path: Path, music: Path) -> None:
    for i in range(100, 160):
        (music / f"{i}.mp3").write_bytes(f"song {i}".encode())
    script = tmp_path / "add.py"
    script.write_text(
        "import time\n"
        "from fake_embedder import FakeEmbedder\n"
        "from index import Library\n"
        "class Slow(FakeEmbedder):\n"
        "    def embed_song(self, path):\n"
        "        time.sleep(0.02)\n"
        "        return super().embed_song(path)\n"
        f"library = Library.create({str(tmp_path / 'k.lp')!r}, Slow())\n"
        f"library.add([{str(music)!r}])\n"
    )
    beside = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, str(script)], env=beside)
    manifest = tmp_path / "k.lp" / "manifest.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if manifest.exists() and json.loads(manifest.read_bytes())["generation"] >= 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    library = Library.open(tmp_path / "k.lp", FakeEmbedder())
    kept = len(library)
    assert kept >= 32
    assert kept < 72
    library.verify()
    report = library.add([music])
    assert len(report.unchanged) == kept
    assert len(library) == 72


def test_command_line(tmp_path: Path, library: Library, music: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("index.library._load", lambda model: FakeEmbedder())
    folder = str(tmp_path / "music.lp")
    assert main(["add", folder, str(music), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["added"]) == 12
    (music / "bad.mp3").write_bytes(b"BAD")
    assert main(["add", folder, str(music)]) == 1
    assert "bad.mp3" in capsys.readouterr().out
    assert main(["search", folder, "a piano", "-k", "2", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 2
    song = str(music / "00.mp3")
    commands = [
        ["texts", folder, song],
        ["similar", folder, song],
        ["similar", folder, song, "--from", "0:05", "--to", "9"],
        ["search", folder, "a piano", "--like", f"{song}@0-0:15", "--unlike", "drums"],
        ["caption", folder, song],
        ["info", folder],
        ["verify", folder],
        ["export", folder, str(tmp_path / "x.faiss")],
        ["remove", folder, "1"],
    ]
    for command in commands:
        assert main(command) == 0, command
        capsys.readouterr()
        if command[0] != "remove":
            assert main([*command, "--json"]) == 0
            json.loads(capsys.readouterr().out)
    assert main(["search", folder, " "]) == 2
    assert "error: text" in capsys.readouterr().err
    (tmp_path / "music.lp" / "manifest.json").write_bytes(b"{}")
    assert main(["info", folder]) == 3
