"""Hundreds of kills, commits under eight readers, and thousands of damaged files."""

from __future__ import annotations

import json
import os
import random
import resource
import select
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_embedder import FakeEmbedder

from index import Library
from index.exact import pair_score
from index.files import sha256_hex
from index.manifest import MANIFEST_NAME, _seal
from retrieval.errors import LongplayError

pytestmark = pytest.mark.slow


def make_music(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{i:03d}.mp3" for i in range(count)]
    for i, path in enumerate(paths):
        path.write_bytes(b"song %d" % i)
    return paths


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked process; returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()  # pytest shows it where the parent fails
            raise
        finally:
            os._exit(status)
    return child


def change_until_killed(folder: Path, paths: list[Path], seed: int, pipe: int) -> None:
    """Tell before and after each change what the library then holds."""
    rng = random.Random(seed)
    library = Library.open(folder, FakeEmbedder())
    held = {Path(s.path).name for s in library.songs()}
    while True:
        chosen = rng.sample(paths, rng.randint(1, 6))
        names = {p.name for p in chosen}
        kind = rng.choice(["add", "add", "remove", "compact"])
        after = {"add": held | names, "remove": held - names}.get(kind, held)
        os.write(pipe, (json.dumps(["begin", sorted(after)]) + "\n").encode())
        if kind == "add":
            library.add(chosen)
        elif kind == "remove":
            library.remove([s.id for s in library.songs() if Path(s.path).name in names & held])
        else:
            library.compact()
        held = after
        os.write(pipe, (json.dumps(["end", sorted(held)]) + "\n").encode())


def test_killed_two_hundred_times_a_committed_song_is_never_lost(tmp_path: Path) -> None:
    folder, embedder = tmp_path / "m.lp", FakeEmbedder()
    paths = make_music(tmp_path / "music", 40)
    Library.create(folder, embedder)
    query = embedder.embed_text("a piano. then strings")
    score = {
        p.name: pair_score(
            query.passage_emb, query.passage_weight, embedder.embed_song(p).clip_emb, embedder.tau
        )
        for p in paths
    }
    held: set[str] = set()
    rng = random.Random(0)
    between = 0
    for seed in range(200):
        read, write = os.pipe()
        child = in_child(lambda s=seed, w=write: change_until_killed(folder, paths, s, w))
        os.close(write)
        time.sleep(rng.uniform(0.01, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read) as lines:
            told = [json.loads(line) for line in lines if line.endswith("\n")]
        allowed = [held, *(set(names) for kind, names in told if kind == "end")][-1:]
        if told and told[-1][0] == "begin":
            allowed.append(set(told[-1][1]))
            between += 1
        library = Library.open(folder, embedder)
        library.verify()
        hits = library.search("a piano. then strings", k=100)
        held = {Path(h.path).name for h in hits}
        assert held in allowed
        assert all(abs(h.score - score[Path(h.path).name]) < 1e-9 for h in hits)
    assert between > 50  # most kills came in the middle of a change


def read_until(folder: Path, stop: int, pipe: int) -> None:
    """Open and ask until told to stop; write every answer."""
    while not select.select([stop], [], [], 0)[0]:
        library = Library.open(folder, FakeEmbedder())
        ids = sorted(h.id for h in library.search("a piano", k=1000))
        os.write(pipe, (json.dumps(ids) + "\n").encode())


def test_eight_readers_see_only_whole_states(tmp_path: Path) -> None:
    folder = tmp_path / "m.lp"
    paths = make_music(tmp_path / "music", 240)
    library = Library.create(folder, FakeEmbedder())
    states = {()}
    stop_read, stop_write = os.pipe()
    logs = [tmp_path / f"reader-{i}" for i in range(8)]

    def reader(log: Path) -> None:
        with log.open("wb") as file:
            read_until(folder, stop_read, file.fileno())

    children = [in_child(lambda log=log: reader(log)) for log in logs]
    rng = random.Random(1)
    for i in range(200):
        if i % 10 == 9:
            library.remove(rng.sample([s.id for s in library.songs()], 3))
        elif i % 25 == 12:
            library.compact()
        else:
            library.add([paths[i]])
        states.add(tuple(sorted(s.id for s in library.songs())))
    os.write(stop_write, b"x")
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    answers = [tuple(json.loads(line)) for log in logs for line in log.read_text().splitlines()]
    assert set(answers) <= states
    assert len(set(answers)) > 40


def ask_everything(folder: Path, song: Path) -> object:
    library = Library.open(folder, FakeEmbedder())
    hits = library.search("a piano. then strings", k=20)
    texts = library.texts(song, k=20)
    found = [(h.id, h.path, h.score) for h in hits], [(t.id, t.text, t.score) for t in texts]
    return found, [s.id for s in library.songs("duration_s > 0")], library.info()["hours"]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, set, cut, doubled, moved, or numbers in it made huge."""
    place, length = rng.randrange(len(data)), rng.randrange(1, 40)
    before, middle, after = data[:place], data[place : place + length], data[place + length :]
    kind = rng.randrange(7)
    if kind == 0:
        return before + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    if kind == 1:
        return before + bytes([rng.choice([0, 255, 32, 34, 123])]) + data[place + 1 :]
    if kind == 2:
        return before
    if kind == 3:
        return before + middle * rng.randrange(2, 50) + after
    if kind == 4:
        return before + after
    if kind == 5:
        return before + rng.randbytes(length) + after
    return before + rng.choice([b"9" * 18, b"-1", b"1e400", b"null", b"[" * 2000]) + after


def seal_again(folder: Path, name: str, data: bytes) -> None:
    """What an attacker can do: make lengths and checksums right for the changed file."""
    path = folder / MANIFEST_NAME
    if name == MANIFEST_NAME:
        try:
            body = json.loads(data)
            body.pop("checksum", None)
            data = _seal(body)
        except (ValueError, AttributeError, RecursionError):
            pass
        path.write_bytes(data)
        return
    (folder / name).write_bytes(data)
    body = json.loads(path.read_bytes())
    del body["checksum"]
    for segment in body["segments"]:
        for file in segment["files"]:
            if file["name"] == name:
                file["bytes"], file["sha256"] = len(data), sha256_hex(data)
    path.write_bytes(_seal(body))


def try_mutants(folder: Path, song: Path, seed: int, count: int, sealed: bool) -> None:
    """Each file of each kind in turn; anything but a typed error or the right answer ends it."""
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    warnings.simplefilter("ignore")  # sealed mutants may hold any embedding
    rng = random.Random(seed)
    right = ask_everything(folder, song)
    names = sorted(p.name for p in folder.iterdir() if p.name[0] in "0m" and "backup" not in p.name)
    whole = {name: (folder / name).read_bytes() for name in [*names, MANIFEST_NAME]}
    for i in range(count):
        name = names[i % len(names)]
        data = mutate(whole[name], rng)
        if sealed:
            seal_again(folder, name, data)
        else:
            (folder / name).write_bytes(data)
        signal.alarm(10)  # a hang is a signal, and the parent sees it
        try:
            found = ask_everything(folder, song)
            if not sealed and found != right and data != whole[name]:
                raise AssertionError(f"{name}: another answer, mutant {i} of seed {seed}")
        except LongplayError:
            pass
        signal.alarm(0)
        for changed in (name, MANIFEST_NAME):
            (folder / changed).write_bytes(whole[changed])


@pytest.mark.parametrize("sealed", [False, True])
def test_ten_thousand_mutants_are_an_error_or_the_right_answer(
    tmp_path: Path, sealed: bool
) -> None:
    paths = make_music(tmp_path / "music", 6)
    folder = tmp_path / "m.lp"
    library = Library.create(folder, FakeEmbedder())
    library.add(paths[:4])
    library.add(paths[4:])
    library.remove([2])
    library.add_texts(["a text", "another text. it is long."])
    children = [
        in_child(lambda s=seed: try_mutants(clone(folder, s), paths[0], s, 2500, sealed))
        for seed in range(4)
    ]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 4


def clone(folder: Path, seed: int) -> Path:
    copy = folder.with_name(f"clone-{seed}.lp")
    shutil.copytree(folder, copy)
    return copy


@pytest.mark.parametrize("name", ["../x-songs.jsonl", "/etc/passwd", "00000001-songs.jsonl\0"])
def test_no_name_in_a_manifest_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "m.lp"
    Library.create(folder, FakeEmbedder()).add(make_music(tmp_path / "music", 3))
    body = json.loads((folder / MANIFEST_NAME).read_bytes())
    del body["checksum"]
    body["segments"][0]["files"][0]["name"] = name
    (folder / MANIFEST_NAME).write_bytes(_seal(body))
    with pytest.raises(LongplayError, match="damaged"):
        Library.open(folder, FakeEmbedder()).search("x")


def test_a_full_disk_leaves_the_library_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "m.lp"
    paths = make_music(tmp_path / "music", 12)
    library = Library.create(folder, FakeEmbedder())
    library.add(paths[:6])
    answers = ask_everything(folder, paths[0])

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))  # a write beyond fails
        with pytest.raises(LongplayError, match="as it was"):
            library.add(paths[6:])

    child = in_child(fill)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ask_everything(folder, paths[0]) == answers
    library.add(paths[6:])
    assert len(library) == 12


def test_a_folder_that_cannot_be_written_says_so() -> None:
    root = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    root.chmod(0o755)
    folder = root / "m.lp"
    paths = make_music(root / "music", 4)
    Library.create(folder, FakeEmbedder()).add(paths[:2])
    folder.chmod(0o555)

    def ask() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write everywhere, nobody may not
        library = Library.open(folder, FakeEmbedder())
        with pytest.raises(LongplayError, match=r"cannot be (written to|changed)"):
            library.add(paths)
        assert len(library.search("x")) == 2

    try:
        child = in_child(ask)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        folder.chmod(0o755)
        shutil.rmtree(root)
