"""Files -> embeddings -> commits."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from index.records import SongRecord, TextRecord
from index.renames import Moved, Places
from index.snapshot import Snapshot
from index.store import Store
from retrieval.audio import file_sha256
from retrieval.data.scan import Found
from retrieval.embedder import Embedder, SongEmbedding, StagedEmbedder, TextEmbedding
from retrieval.errors import AudioError, NotAudioError
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.plain import OneByOne

if TYPE_CHECKING:
    from retrieval.pipeline.stream import Pipeline

#: A commit is made after this many songs or seconds, whichever comes first.
COMMIT_SONGS, COMMIT_S = 16, 30.0


@dataclass
class AddReport:
    """What became of the files of one ``add``: paths, and for skipped ones the reason too."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    renamed: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Plan:
    """What is to become of a file, as far as it can be known before the files ahead are done.

    Attributes:
        item: the file.
        embed: whether its embedding is needed.
        facts: size and time, None where it cannot be read.
        digest: SHA-256, empty where it was not needed.
        skipped: why it cannot be used.
    """

    item: Found
    embed: bool = False
    facts: os.stat_result | None = None
    digest: str = ""
    skipped: AudioError | None = None


class Adder:
    """Adds to a library whose lock is held, in commits of a few songs each.

    Args:
        store: is committed to.
        snapshot: its state as it is now.
        model: embeds songs and texts; asked for only when there is something to embed.
        options: how songs are embedded.
    """

    def __init__(
        self,
        store: Store,
        snapshot: Snapshot,
        model: Callable[[], Embedder],
        options: EmbedOptions | None = None,
    ):
        self._store, self._model, self._options = store, model, options
        records = snapshot.records()
        self._by_path = {r.path: r for r in records}
        self._hashes = Counter(r.sha256 for r in records)
        self._coming: set[str] = set()
        self._places = Places(records)
        self._next_song = store.manifest.next_song
        self._next_text = store.manifest.next_text
        self._clear()

    def add_all(
        self, found: Sequence[Found], on_file: Callable[[str, int, int], None]
    ) -> AddReport:
        """Add files; what was embedded is committed even where something stops the rest."""
        report = AddReport()
        stages = _Stages(self._model, self._options)
        plans = map(self._plan, found)
        outcomes = stages.embed(plans, lambda plan: plan.item.path if plan.embed else None)
        try:
            for number, (plan, outcome) in enumerate(outcomes, start=1):
                self._take(plan, outcome, stages, report)
                if len(self._songs) >= COMMIT_SONGS or time.monotonic() - self._since > COMMIT_S:
                    self.commit()
                on_file(str(plan.item.path), number, len(found))
        finally:
            stages.close()
            self.commit()
        return report

    def add_text(self, text: str, song: int | None = None, kind: str = "human") -> int:
        """Embed a text for the next commit; returns its id."""
        embedding = self._model().embed_text(text)
        record = TextRecord(self._next_text, text, tuple(embedding.passages), song, kind)
        self._texts.append((record, embedding))
        self._next_text += 1
        return record.id

    def commit(self) -> None:
        """Write what waits."""
        if self._songs or self._texts or self._moved:
            self._store.commit(self._songs, self._texts, frozenset(self._dead), moved=self._moved)
            self._store.tidy()
        self._clear()

    def _clear(self) -> None:
        self._songs: list[tuple[SongRecord, SongEmbedding]] = []
        self._texts: list[tuple[TextRecord, TextEmbedding]] = []
        self._dead: set[int] = set()
        self._moved: dict[int, Moved] = {}
        self._since = time.monotonic()

    def _plan(self, item: Found) -> _Plan:
        """Look at a file; some files ahead of it may still be on their way."""
        old = self._by_path.get(str(item.path))
        try:
            facts = _file_facts(item.path)
            if old and (old.size, old.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                return _Plan(item)
            digest = file_sha256(item.path)
        except AudioError as error:
            return _Plan(item, skipped=error)
        if old and old.sha256 == digest:
            return _Plan(item)
        known = self._hashes[digest] or digest in self._coming
        if old is None and known:
            return _Plan(item, False, facts, digest)
        self._coming.add(digest)
        return _Plan(item, True, facts, digest)

    def _take(
        self,
        plan: _Plan,
        outcome: SongEmbedding | AudioError | None,
        stages: _Stages,
        report: AddReport,
    ) -> None:
        path = str(plan.item.path)
        self._coming.discard(plan.digest if plan.embed else "")
        outcome = outcome or plan.skipped
        if outcome is None and not plan.digest:
            report.unchanged.append(path)
            return
        if outcome is None and self._hashes[plan.digest]:
            self._meet_again(plan, report)
            return
        if outcome is None:  # the file whose content it shares was replaced or is no use
            try:
                outcome = stages.embed_one(plan.item.path)
            except AudioError as error:
                outcome = error
        if isinstance(outcome, AudioError):
            report.skipped.append((path, f"{type(outcome).__name__}: {outcome}"))
            return
        self._keep(plan, outcome, report)

    def _keep(self, plan: _Plan, embedding: SongEmbedding, report: AddReport) -> None:
        assert plan.facts is not None
        old = self._by_path.get(str(plan.item.path))
        record = self._record(plan.item, plan.facts, plan.digest, embedding)
        self._add_song(record, embedding, old)
        for caption in plan.item.song.captions if plan.item.song else ():
            self.add_text(caption.text, record.id, caption.kind)
        (report.replaced if old else report.added).append(record.path)

    def _meet_again(self, plan: _Plan, report: AddReport) -> None:
        """A new path with known content: a renamed file where the old path is gone, else a copy."""
        path = str(plan.item.path)
        gone = self._places.gone(plan.digest, self._by_path)
        if gone is None:
            report.duplicates.append(path)
            return
        assert plan.facts is not None
        self._move(gone, Moved(path, plan.facts.st_size, plan.facts.st_mtime_ns))
        report.renamed.append(path)

    def _move(self, old: SongRecord, moved: Moved) -> None:
        del self._by_path[old.path]
        self._by_path[moved.path] = moved.of(old)
        self._places.put(moved.of(old))
        self._moved[old.id] = moved

    def _record(
        self, item: Found, facts: os.stat_result, digest: str, embedding: SongEmbedding
    ) -> SongRecord:
        record = SongRecord(
            self._next_song,
            str(item.path),
            facts.st_size,
            facts.st_mtime_ns,
            digest,
            embedding.duration_s,
            added=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        if item.song is None:
            return record
        song = item.song
        return replace(record, title=song.title, tags=song.tags, meta=dict(song.meta))

    def _add_song(
        self, record: SongRecord, embedding: SongEmbedding, old: SongRecord | None
    ) -> None:
        self._songs.append((record, embedding))
        self._by_path[record.path] = record
        self._hashes[record.sha256] += 1
        self._places.put(record)
        self._next_song += 1
        if old is not None:
            self._hashes[old.sha256] -= 1
            self._dead.add(old.id)


class _Stages:
    """What embeds, started when there is something to embed."""

    def __init__(self, model: Callable[[], Embedder], options: EmbedOptions | None):
        self._model, self._options = model, options
        self._started: Pipeline | OneByOne | None = None

    def embed(
        self, plans: Iterator[_Plan], path_of: Callable[[_Plan], Path | None]
    ) -> Iterator[tuple[_Plan, SongEmbedding | AudioError | None]]:
        for plan in plans:
            if path_of(plan) is not None:
                yield from self._stages.embed(chain([plan], plans), path_of)
                return
            yield plan, None

    def embed_one(self, path: Path) -> SongEmbedding:
        return self._stages.embed_one(path)

    def close(self) -> None:
        if self._started is not None:
            self._started.close()

    @property
    def _stages(self) -> Pipeline | OneByOne:
        if self._started is None:
            model = self._model()
            if isinstance(model, StagedEmbedder):
                self._started = model.pipeline(self._options or EmbedOptions())
            else:
                self._started = OneByOne(model)
        return self._started


def _file_facts(path: Path) -> os.stat_result:
    """Size and times of a regular file; a pipe or a device could keep ``add`` waiting for ever."""
    try:
        facts = path.stat()
    except OSError as error:
        raise NotAudioError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(facts.st_mode):
        raise NotAudioError(f"{path}: is no regular file, expected an audio file")
    return facts
