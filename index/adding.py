"""Files -> embeddings -> commits."""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from index.records import SongRecord, TextRecord
from index.renames import Moved, Places
from index.scan import Found
from index.snapshot import Snapshot
from index.store import Store
from retrieval.audio import file_sha256
from retrieval.embedder import Embedder, SongEmbedding, TextEmbedding
from retrieval.errors import AudioError, NonFiniteAudioError, NotAudioError

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


class Adder:
    """Adds to a library whose lock is held, in commits of a few songs each.

    Args:
        store: is committed to.
        snapshot: its state as it is now.
        model: embeds songs and texts; asked for only when there is something to embed.
    """

    def __init__(self, store: Store, snapshot: Snapshot, model: Callable[[], Embedder]):
        self._store, self._model = store, model
        records = snapshot.records()
        self._by_path = {r.path: r for r in records}
        self._hashes = Counter(r.sha256 for r in records)
        self._places = Places(records)
        self._next_song = store.manifest.next_song
        self._next_text = store.manifest.next_text
        self._clear()

    def add_all(
        self, found: Sequence[Found], on_file: Callable[[str, int, int], None]
    ) -> AddReport:
        """Add files; what was embedded is committed even where something stops the rest."""
        report = AddReport()
        try:
            for number, item in enumerate(found, start=1):
                self._add(item, report)
                if len(self._songs) >= COMMIT_SONGS or time.monotonic() - self._since > COMMIT_S:
                    self.commit()
                on_file(str(item.path), number, len(found))
        finally:
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

    def _add(self, item: Found, report: AddReport) -> None:
        path = str(item.path)
        old = self._by_path.get(path)
        try:
            facts = _file_facts(item.path)
            if old and (old.size, old.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                report.unchanged.append(path)
                return
            digest = file_sha256(item.path)
            if old and old.sha256 == digest:
                report.unchanged.append(path)
                return
            if old is None and self._hashes[digest]:
                gone = self._places.gone(digest, self._by_path)
                if gone is not None:
                    self._move(gone, Moved(path, facts.st_size, facts.st_mtime_ns))
                (report.renamed if gone else report.duplicates).append(path)
                return
            embedding = self._model().embed_song(item.path)
            if not np.isfinite(embedding.clip_emb).all():
                raise NonFiniteAudioError(f"{path}: the model gave NaN or infinity for it")
        except AudioError as error:
            report.skipped.append((path, f"{type(error).__name__}: {error}"))
            return
        self._add_song(self._record(item, facts, digest, embedding), embedding, old)
        for caption in item.song.captions if item.song else ():
            self.add_text(caption.text, self._next_song - 1, caption.kind)
        (report.replaced if old else report.added).append(path)

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


def _file_facts(path: Path) -> os.stat_result:
    """Size and times of a regular file; a pipe or a device could keep ``add`` waiting for ever."""
    try:
        facts = path.stat()
    except OSError as error:
        raise NotAudioError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(facts.st_mode):
        raise NotAudioError(f"{path}: is no regular file, expected an audio file")
    return facts
