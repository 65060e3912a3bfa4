"""A library against a dictionary: any order of changes and questions gives the same answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from fake_embedder import FakeEmbedder
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index import Library
from index.exact import pair_score

NAMES = st.sampled_from([f"{letter}.mp3" for letter in "abcdefgh"])
CONTENTS = st.integers(0, 30)


class LibraryMachine(RuleBasedStateMachine):
    """The dictionary holds path -> content, in the order in which songs got their ids."""

    @initialize()
    def create(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.music = self.root / "music"
        self.music.mkdir()
        self.embedder = FakeEmbedder()
        self.library = Library.create(self.root / "m.lp", self.embedder)
        self.expected: dict[str, bytes] = {}

    def teardown(self) -> None:
        if hasattr(self, "root"):
            shutil.rmtree(self.root)

    @rule(names=st.lists(NAMES, min_size=1, max_size=4, unique=True), first=CONTENTS)
    def add(self, names: list[str], first: int) -> None:
        for i, name in enumerate(names):
            (self.music / name).write_bytes(b"content %d" % (first + i))
        report = self.library.add([self.music / name for name in names])
        assert not report.skipped
        for name in names:
            content = (self.music / name).read_bytes()
            here = self.expected.get(name)
            if here == content or (here is None and content in self.expected.values()):
                continue
            self.expected.pop(name, None)
            self.expected[name] = content

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.expected)), unique=True))
        ids = {Path(s.path).name: s.id for s in self.library.songs()}
        assert self.library.remove([ids[name] for name in names]) == len(names)
        for name in names:
            del self.expected[name]

    @precondition(lambda self: self.expected)
    @rule(data=st.data(), new=NAMES)
    def rename(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(sorted(self.expected)))
        if new in self.expected:
            return
        ids = {Path(s.path).name: s.id for s in self.library.songs()}
        (self.music / old).rename(self.music / new)
        report = self.library.add([self.music / new])
        assert [Path(path).name for path in report.renamed] == [new]
        self.expected[new] = self.expected.pop(old)
        assert self.library.song(ids[old]).record.path == str(self.music / new)

    @rule()
    def compact(self) -> None:
        self.library.compact()
        assert not self.library.compact()

    @rule()
    def reopen(self) -> None:
        self.library = Library.open(self.root / "m.lp", self.embedder)
        self.library.verify()

    @rule(text=st.sampled_from(["a piano", "drums. then strings", "one. two. three"]),
          k=st.integers(1, 9), mode=st.sampled_from(["exact", "certified"]),
          where=st.sampled_from([None, "path LIKE '%a.mp3' OR path LIKE '%b.mp3'"]))  # fmt: skip
    def search(self, text: str, k: int, mode: str, where: str | None) -> None:
        query = self.embedder.embed_text(text)
        scores = {}
        for name in self.expected:
            if where is None or name in ("a.mp3", "b.mp3"):
                clips = self.embedder.embed_song(self.path_like(name)).clip_emb
                scores[name] = pair_score(
                    query.passage_emb, query.passage_weight, clips, self.embedder.tau
                )
        best = sorted(scores.values(), reverse=True)[:k]
        hits = self.library.search(text, k, where, mode=mode)
        assert hits.exact
        assert np.allclose([h.score for h in hits], best)
        assert all(np.isclose(scores[Path(h.path).name], h.score) for h in hits)

    def path_like(self, name: str) -> Path:
        """A file with what the library holds of a song, whatever its own file holds by now."""
        path = self.root / "content"
        path.write_bytes(self.expected[name])
        return path

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "library"):
            assert len(self.library) == len(self.expected)
            names = {Path(s.path).name for s in self.library.songs()}
            assert names == self.expected.keys()


TestLibraryMachine = LibraryMachine.TestCase
TestLibraryMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
