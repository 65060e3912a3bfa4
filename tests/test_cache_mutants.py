"""Damage to caches of codes and of the catalogue: the right answer, whatever was done to them."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import warnings
from pathlib import Path

import pytest
from fake_embedder import FakeEmbedder
from test_library_endurance import clone, in_child, make_music, mutate

from index import Library, catalog_file, code_files
from retrieval.errors import LongplayError


def ask(folder: Path, song: Path) -> object:
    library = Library.open(folder, FakeEmbedder())
    hits = library.search("a piano. then strings", 4, "id > 1", mode="certified")
    texts = library.texts(song, k=3)
    return [(h.id, h.score) for h in hits], [(t.text, t.score) for t in texts], hits.exact


def try_mutants(folder: Path, song: Path, seed: int, count: int, sealed: bool) -> None:
    """Each cache in turn; a sealed one has the hash in its name made right again."""
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    warnings.simplefilter("ignore")  # sealed mutants may hold any number
    rng, cache = random.Random(seed), folder / code_files.FOLDER
    right = ask(folder, song)
    whole = {path.name: path.read_bytes() for path in cache.iterdir()}
    assert sorted(name.rpartition(".")[2] for name in whole) == ["catalog1", "codes5", "codes5"]
    for i in range(count):
        name = sorted(whole)[i % 3]
        data = mutate(whole[name], rng)
        new = name
        if sealed:
            first, _, end = name.partition("-")
            new = f"{first}-{hashlib.sha256(data).hexdigest()}.{end.rpartition('.')[2]}"
        (cache / name).unlink()
        (cache / new).write_bytes(data)
        signal.alarm(60)  # a hang is a signal, and the parent sees it
        try:
            found = ask(folder, song)
            assert sealed or found == right, f"{name}: another answer, mutant {i} of seed {seed}"
        except LongplayError:
            assert sealed
        signal.alarm(0)
        for path in cache.iterdir():
            path.unlink()
        for name, data in whole.items():
            (cache / name).write_bytes(data)


@pytest.mark.parametrize(
    ("count", "sealed"),
    [
        (60, False),
        (60, True),
        pytest.param(3000, False, marks=pytest.mark.slow),
        pytest.param(3000, True, marks=pytest.mark.slow),
    ],
)
def test_damaged_caches_never_change_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, sealed: bool
) -> None:
    monkeypatch.setattr(code_files.codes_of, "__defaults__", (1, lambda: None))
    monkeypatch.setattr(catalog_file, "LEAST_SONGS", 1)
    monkeypatch.setattr("index.search._FEW_SIMILARITIES", 0)
    paths = make_music(tmp_path / "music", 8)
    library = Library.create(tmp_path / "m.lp", FakeEmbedder())
    library.add(paths)
    library.add_texts(["a text", "another text. it is long.", "a third"])
    library.compact()
    ask(tmp_path / "m.lp", paths[0])
    copy = clone(tmp_path / "m.lp", 0)
    child = in_child(lambda: try_mutants(copy, paths[0], 0, count, sealed))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
