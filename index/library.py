"""The public face: :class:`Library`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from index.bounds import Balls, make_balls
from index.candidates import mean_vector, write_faiss
from index.catalog import Catalog
from index.exact import Ragged, stack
from index.lock import writer_lock
from index.manifest import Manifest
from index.moments import Moment, find_moments
from index.records import SongRecord, TextRecord
from index.scan import Found, absolute, find_songs
from index.search import Ranking, search_songs, search_texts
from index.store import Store, StoredSong, StoredText
from retrieval.audio import file_sha256
from retrieval.embedder import Embedder, GeneratedCaption, SongEmbedding, TextEmbedding
from retrieval.errors import AudioError, LibraryError, ModelMismatchError, TextError

#: A commit is made after this many songs or seconds, whichever comes first.
COMMIT_SONGS, COMMIT_S = 16, 30.0


@dataclass(frozen=True)
class Hit:
    """One song of an answer; ``moments`` tells where each passage of the query was heard."""

    id: int
    path: str
    title: str
    score: float
    duration_s: float
    moments: list[Moment]


@dataclass(frozen=True)
class TextHit:
    """One stored text of an answer; ``song`` is the id of the song that it came with."""

    id: int
    text: str
    score: float
    song: int | None


class Hits(list[Hit]):
    """An answer: a list, with ``exact``, ``bound_gap`` and ``scored`` of :class:`Ranking`."""

    def __init__(self, hits: Iterable[Hit], ranking: Ranking, query: TextEmbedding):
        super().__init__(hits)
        self.exact, self.bound_gap = ranking.exact, ranking.bound_gap
        self.scored = ranking.scored
        self.passages = query.passages


@dataclass
class AddReport:
    """What became of the files of one ``add``: paths, and for skipped ones the reason too."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


class Library:
    """A folder of songs and texts that can be searched.

    Reading sees the state that was last committed when the library was opened or changed through
    this object. One process may change it at a time.
    """

    def __init__(self, store: Store, model: Embedder | None):
        self._store, self._model = store, model

    @classmethod
    def create(
        cls,
        path: str | Path,
        model: Embedder | str | Path | None = None,
        dtype: str = "float32",
    ) -> Library:
        """Make a new, empty library.

        Args:
            path: folder to make.
            model: a model, the folder of a checkpoint, or None for the shipped one.
            dtype: of stored embeddings, ``float32`` or ``float16`` (half the size).

        Raises:
            LibraryError: something is there already, or ``dtype`` is neither.
            CheckpointError: the model cannot be loaded.
        """
        if dtype not in ("float32", "float16"):
            raise LibraryError(f"dtype: got {dtype!r}, expected float32 or float16")
        loaded = _load(model)
        hint = str(absolute(Path(model))) if isinstance(model, str | Path) else None
        manifest = Manifest(
            0, loaded.digest, hint, loaded.dim, dtype, float(loaded.clip_s), float(loaded.tau)
        )
        return cls(Store.create(Path(path).expanduser(), manifest), loaded)

    @classmethod
    def open(cls, path: str | Path, model: Embedder | str | Path | None = None) -> Library:
        """Open a library at its last commit.

        Args:
            path: its folder.
            model: as in :meth:`create`; by default the one that it was made with, loaded when it
                is first needed.

        Raises:
            LibraryError: there is none. DamagedLibraryError: its manifest is damaged.
            ModelMismatchError: it was made with another model.
        """
        library = cls(Store.open(Path(path).expanduser()), None)
        if model is not None:
            library._set_model(_load(model))
        return library

    @property
    def model(self) -> Embedder:
        """The model, loaded when first used."""
        if self._model is None:
            self._set_model(_load(self._store.manifest.model_path))
        assert self._model is not None
        return self._model

    def _set_model(self, model: Embedder) -> None:
        expected = self._store.manifest.model_digest
        if model.digest != expected:
            raise ModelMismatchError(
                f"library {self._store.folder}: was made with model {expected[:12]}, got "
                f"{model.digest[:12]}; open it with that checkpoint, or add the songs to a new "
                "library"
            )
        self._model = model

    def __len__(self) -> int:
        return len(self._songs)

    # -- changing ---------------------------------------------------------------------------

    def add(
        self,
        paths: Sequence[str | Path],
        on_file: Callable[[str, int, int], None] = lambda path, done, total: None,
    ) -> AddReport:
        """Add audio files, folders of them, or manifests (with their captions).

        Files that are there unchanged are passed over, so the same call goes on after a stop.
        Every 16 songs or 30 s are committed together.

        Args:
            paths: what to add.
            on_file: called with path, number done and number in all, after each file.

        Returns:
            What became of each file; unreadable ones are in ``skipped``, with the reason.

        Raises:
            LibraryLockedError: another process is changing the library.
        """
        report = AddReport()
        with writer_lock(self._store.folder):
            self._refresh()
            found = find_songs(paths)
            batch = _Batch(self)
            try:
                for number, item in enumerate(found, start=1):
                    self._add_one(item, batch, report)
                    batch.commit_if_due()
                    on_file(str(item.path), number, len(found))
            finally:
                batch.commit()
        return report

    def _add_one(self, item: Found, batch: _Batch, report: AddReport) -> None:
        path = str(item.path)
        try:
            facts = item.path.stat() if item.path.is_file() else None
            old = batch.by_path.get(path)
            if old and facts and (old.size, old.mtime_ns) == (facts.st_size, facts.st_mtime_ns):
                report.unchanged.append(path)
                return
            digest = file_sha256(item.path)
            if old and old.sha256 == digest:
                report.unchanged.append(path)
                return
            if old is None and digest in batch.by_hash:
                report.duplicates.append(path)
                return
            embedding = self.model.embed_song(item.path)
        except (AudioError, OSError) as error:
            report.skipped.append((path, f"{type(error).__name__}: {error}"))
            return
        facts = item.path.stat()
        record = SongRecord(
            batch.next_song, path, facts.st_size, facts.st_mtime_ns, digest, embedding.duration_s
        )
        if item.song is not None:
            song = item.song
            record = replace(record, title=song.title, tags=song.tags, meta=dict(song.meta))
        batch.add_song(record, embedding, old)
        for caption in item.song.captions if item.song else ():
            batch.add_text(
                caption.text, self.model.embed_text(caption.text), record.id, caption.kind
            )
        (report.replaced if old else report.added).append(path)

    def add_texts(self, texts: Iterable[str]) -> list[int]:
        """Store texts by themselves; returns their ids.

        Raises:
            TextError: one of them is empty; none is stored then.
        """
        with writer_lock(self._store.folder):
            self._refresh()
            batch = _Batch(self)
            ids = [batch.add_text(t, self.model.embed_text(t), None, "human") for t in texts]
            batch.commit()
        return ids

    def remove(self, ids: Iterable[int]) -> int:
        """Remove songs with their texts, by id; returns how many there were.

        Raises:
            LibraryError: an id is unknown; nothing is removed then.
        """
        wanted = frozenset(ids)
        with writer_lock(self._store.folder):
            self._refresh()
            unknown = sorted(wanted - {s.record.id for s in self._songs})
            if unknown:
                raise LibraryError(f"ids: {unknown[0]} is not in the library")
            if wanted:
                self._store.commit(dead_songs=wanted)
                self._forget()
        return len(wanted)

    # -- asking -----------------------------------------------------------------------------

    def search(
        self,
        text: str,
        k: int = 10,
        where: str | None = None,
        *,
        mode: str = "exact",
        budget: int | None = None,
        pooling: str = "attention",
    ) -> Hits:
        """Songs that fit a text of any length.

        Args:
            text: what the song is like.
            k: most songs to return.
            where: SQL expression that songs must meet, such as ``bpm > 120``.
            mode: ``exact`` or ``certified``; both give the same, proven answer.
            budget: most songs to score; the answer then says whether it is exact.
            pooling: the model's ``attention``, or a baseline score.

        Raises:
            TextError: the text is empty. FilterError: ``where`` is not valid.
        """
        return self._search(
            self.model.embed_text(text), k, self._rows(where), mode, budget, pooling
        )

    def similar(self, path: str | Path, k: int = 10, where: str | None = None) -> Hits:
        """Songs that sound like a file: each of its clips asks with equal weight.

        The file itself is left out where it is in the library.

        Raises:
            AudioError: the file gives no usable sound.
        """
        song = self.model.embed_song(path)
        count = len(song.clip_emb)
        passages = [f"{start:.0f}-{end:.0f} s" for start, end in song.clip_times]
        weight = np.full(count, 1 / count, np.float32)
        rows = self._rows(where)
        own = file_sha256(path)
        same = [i for i, s in enumerate(self._songs) if s.record.sha256 == own]
        if same:
            rows = np.setdiff1d(np.arange(len(self)) if rows is None else rows, same)
        return self._search(TextEmbedding(passages, song.clip_emb, weight), k, rows)

    def texts(self, path: str | Path, k: int = 5) -> list[TextHit]:
        """Stored texts that fit a song best, the same text once.

        Raises:
            AudioError: the file gives no usable sound.
        """
        song = self.model.embed_song(path)
        ranking = search_texts(
            song.clip_emb,
            self._passages,
            self._store.manifest.tau,
            k,
            rows=self._distinct_texts,
        )
        hits = []
        for row, score in zip(ranking.rows, ranking.scores, strict=True):
            record = self._texts[row].record
            hits.append(TextHit(record.id, record.text, float(score), record.song))
        return hits

    def caption(self, path: str | Path) -> GeneratedCaption:
        """A new caption with times for a song; raises as :meth:`similar` does."""
        return self.model.caption(path)

    def export_faiss(self, path: str | Path) -> int:
        """Write a plain FAISS file, one mean vector a song under the song's id; returns how many.

        It ranks songs as ``search(..., pooling="mean")`` does, for the query
        ``sum_p passage_weight[p] * passage_emb[p]``.
        """
        dim = self._store.manifest.dim
        vectors = [mean_vector(s.clip_emb) for s in self._songs]
        table = np.stack(vectors) if vectors else np.zeros((0, dim), np.float32)
        write_faiss(path, table, [s.record.id for s in self._songs])
        return len(vectors)

    def songs(self, where: str | None = None) -> list[SongRecord]:
        """Records of all songs, or of those that meet an expression."""
        rows = self._rows(where)
        return [self._songs[i].record for i in (range(len(self)) if rows is None else rows)]

    def song(self, id: int) -> StoredSong:
        """One song with its clips; LibraryError where the id is unknown."""
        for song in self._songs:
            if song.record.id == id:
                return song
        raise LibraryError(f"id: {id} is not in the library")

    def info(self) -> dict[str, object]:
        """Facts about the library, JSON-ready."""
        manifest = self._store.manifest
        return {
            "path": str(self._store.folder),
            "songs": len(self),
            "texts": len(self._texts),
            "hours": sum(s.record.duration_s for s in self._songs) / 3600,
            "clips": len(self._clips.emb),
            "dim": manifest.dim,
            "dtype": manifest.dtype,
            "tau": manifest.tau,
            "generation": manifest.generation,
            "segments": len(manifest.segments),
            "model": manifest.model_digest,
            "columns": self._catalog.columns,
        }

    def verify(self) -> int:
        """Check every file against its checksum; returns how many there are.

        Raises:
            DamagedLibraryError: names the first file that is damaged.
        """
        return self._store.verify()

    # -- inside -----------------------------------------------------------------------------

    def _search(
        self,
        query: TextEmbedding,
        k: int,
        rows: np.ndarray | None,
        mode: str = "exact",
        budget: int | None = None,
        pooling: str = "attention",
    ) -> Hits:
        tau = self._store.manifest.tau
        ranking = search_songs(
            query.passage_emb,
            query.passage_weight,
            self._clips,
            tau,
            k,
            rows=rows,
            mode=mode,
            balls=self._song_balls if mode == "certified" else None,
            budget=budget,
            pooling=pooling,
        )
        hits = []
        for row, score in zip(ranking.rows, ranking.scores, strict=True):
            song = self._songs[row]
            moments = find_moments(query.passage_emb, song.clip_emb, song.clip_times, tau)
            r = song.record
            hits.append(Hit(r.id, r.path, r.title, float(score), r.duration_s, moments))
        return Hits(hits, ranking, query)

    def _rows(self, where: str | None) -> np.ndarray | None:
        """Rows that a filter leaves; the one place where songs are filtered."""
        if where is None:
            return None
        ids = self._catalog.filter(where)
        row_of = {s.record.id: i for i, s in enumerate(self._songs)}
        return np.array([row_of[i] for i in ids], np.int64)

    def _refresh(self) -> None:
        """Take up what other processes have committed; called with the lock held."""
        self._store = Store.open(self._store.folder, self._store.disk)
        self._forget()

    def _forget(self) -> None:
        for name in ("_content", "_clips", "_passages", "_song_balls", "_catalog",
                     "_distinct_texts"):  # fmt: skip
            self.__dict__.pop(name, None)

    @cached_property
    def _content(self) -> tuple[list[StoredSong], list[StoredText]]:
        return self._store.load()

    @property
    def _songs(self) -> list[StoredSong]:
        return self._content[0]

    @property
    def _texts(self) -> list[StoredText]:
        return self._content[1]

    @cached_property
    def _clips(self) -> Ragged:
        return stack([s.clip_emb for s in self._songs], self._store.manifest.dim)

    @cached_property
    def _passages(self) -> Ragged:
        weights = [t.passage_weight for t in self._texts]
        return stack([t.passage_emb for t in self._texts], self._store.manifest.dim, weights)

    @cached_property
    def _song_balls(self) -> Balls:
        return make_balls(self._clips)

    @cached_property
    def _distinct_texts(self) -> np.ndarray:
        first: dict[str, int] = {}
        for i, text in enumerate(self._texts):
            first.setdefault(text.record.text, i)
        return np.array(sorted(first.values()), np.int64)

    @cached_property
    def _catalog(self) -> Catalog:
        return Catalog([s.record for s in self._songs])


class _Batch:
    """Songs and texts that wait for the next commit."""

    def __init__(self, library: Library):
        self.library = library
        records = [s.record for s in library._songs]
        self.by_path = {r.path: r for r in records}
        self.by_hash = {r.sha256 for r in records}
        self.next_song = library._store.manifest.next_song
        self.next_text = library._store.manifest.next_text
        self._clear()

    def _clear(self) -> None:
        self.songs: list[tuple[SongRecord, SongEmbedding]] = []
        self.texts: list[tuple[TextRecord, TextEmbedding]] = []
        self.dead: set[int] = set()
        self.since = time.monotonic()

    def add_song(
        self, record: SongRecord, embedding: SongEmbedding, old: SongRecord | None
    ) -> None:
        self.songs.append((record, embedding))
        self.by_path[record.path] = record
        self.by_hash.add(record.sha256)
        self.next_song += 1
        if old is not None:
            self.dead.add(old.id)

    def add_text(self, text: str, embedding: TextEmbedding, song: int | None, kind: str) -> int:
        record = TextRecord(self.next_text, text, tuple(embedding.passages), song, kind)
        self.texts.append((record, embedding))
        self.next_text += 1
        return record.id

    def commit_if_due(self) -> None:
        if len(self.songs) >= COMMIT_SONGS or time.monotonic() - self.since > COMMIT_S:
            self.commit()

    def commit(self) -> None:
        if self.songs or self.texts:
            self.library._store.commit(self.songs, self.texts, frozenset(self.dead))
            self.library._forget()
        self._clear()


def _load(model: Embedder | str | Path | None) -> Embedder:
    if model is None or isinstance(model, str | Path):
        from retrieval.checkpoint import load_model

        return load_model(model)
    return model


__all__ = ["AddReport", "Hit", "Hits", "Library", "TextError", "TextHit"]
