"""The public face: :class:`Library`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from index.adding import Adder, AddReport
from index.exact import pair_score
from index.export import write_faiss
from index.hits import Hit, Hits, StoredSong, TextHit
from index.keywords import fuse_ranks
from index.lock import writer_lock
from index.manifest import Manifest
from index.moments import find_moments
from index.query import Query, QueryEmbedding, Song, embed_query
from index.records import Scalar, SongRecord
from index.repair import RepairReport, repair
from index.search import Ranking, as_passages, search_each, search_texts
from index.snapshot import Snapshot
from index.store import Store
from retrieval.data.scan import absolute, find_songs
from retrieval.embedder import Embedder, GeneratedCaption
from retrieval.errors import (
    DamagedLibraryError,
    LibraryError,
    MissingFileError,
    ModelMismatchError,
    SearchError,
)
from retrieval.pipeline.options import EmbedOptions

#: Values of the names with a colon in a ``where`` expression.
Params = Mapping[str, Scalar] | None


class Library:
    """A folder of songs and texts that can be searched.

    Reading sees one whole committed state: the last one when it was first read, changed or
    :meth:`refresh`-ed through this object. One process may change it at a time; readers never
    wait for it.
    """

    def __init__(self, store: Store, model: Embedder | None):
        self._store, self._model = store, model
        self._snapshot: Snapshot | None = None

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
        return len(self._state.living)

    # -- changing ---------------------------------------------------------------------------

    def add(
        self,
        paths: Sequence[str | Path],
        on_file: Callable[[str, int, int], None] = lambda path, done, total: None,
        options: EmbedOptions | None = None,
    ) -> AddReport:
        """Add audio files, folders of them, or manifests (with their captions).

        Files that are there unchanged are passed over, so the same call goes on after a stop.
        Every 16 songs or 30 s are committed together.

        Args:
            paths: what to add.
            on_file: called with path, number done and number in all, after each file.
            options: how songs are decoded and embedded
                (:class:`retrieval.pipeline.options.EmbedOptions`).

        Returns:
            What became of each file; unreadable ones are in ``skipped``, with the reason.

        Raises:
            LibraryLockedError: another process is changing the library.
        """
        with writer_lock(self._store.folder):
            try:
                return self._adder(options).add_all(find_songs(paths), on_file)
            finally:
                self._snapshot = None

    def add_texts(self, texts: Iterable[str]) -> list[int]:
        """Store texts by themselves; returns their ids.

        Raises:
            TextError: one of them is empty; none is stored then.
        """
        with writer_lock(self._store.folder):
            adder = self._adder()
            ids = [adder.add_text(text) for text in texts]
            adder.commit()
            self._snapshot = None
        return ids

    def remove(self, ids: Iterable[int]) -> int:
        """Remove songs with their texts, by id; returns how many there were.

        Raises:
            LibraryError: an id is unknown; nothing is removed then.
        """
        wanted = frozenset(ids)
        with writer_lock(self._store.folder):
            self.refresh()
            for id in sorted(wanted):
                self._state.row_of(id)
            if wanted:
                self._store.commit(dead_songs=wanted)
                self._store.tidy()
                self._snapshot = None
        return len(wanted)

    def compact(self) -> bool:
        """Join all segments, and free what removed songs and texts take; False if that is done.

        Adding and removing do the needful by themselves; this does the rest.

        Raises:
            LibraryLockedError: another process is changing the library.
        """
        with writer_lock(self._store.folder):
            self.refresh()
            try:
                return self._store.compact(everything=True)
            finally:
                self._snapshot = None

    def refresh(self) -> None:
        """Take up what other processes have committed since."""
        self._store, self._snapshot = self._store.latest(), None

    # -- asking -----------------------------------------------------------------------------

    def search(
        self,
        query: str | Query,
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        exact: str = "always",
        budget: int | None = None,
        mode: str = "auto",
        pooling: str = "attention",
        hybrid: bool = False,
    ) -> Hits:
        """Songs that fit a text of any length, or a sum of texts and songs.

        Args:
            query: what the song is like, or ``Text("slow") + 0.5 * Song("a.mp3") - Text("drums")``;
                files that are asked with are left out of the answer.
            k: most songs to return.
            where: SQL expression that songs must meet, such as ``bpm > 120`` or
                ``has(tags, :tag)``.
            params: values of the names with a colon in ``where``.
            exact: ``always``, or ``budget``: then at most ``budget`` songs are scored, best bound
                first, and the answer says whether it is proven, and if not, by how much another
                song might at most score higher.
            budget: with ``exact="budget"``; 100, or ten times k where that is more.
            mode: how the answer is found, which does not change it: ``exact`` scores every song,
                ``certified`` bounds all and scores those that can win, ``auto`` takes the quicker.
            pooling: the model's ``attention``, or a baseline score.
            hybrid: rank by sound and by words together: the best 100 of each (10 k where that is
                more), joined by reciprocal rank fusion. ``exact`` then tells of the sound.

        Raises:
            TextError: a text is empty. AudioError: a file gives no usable sound.
            FilterError: ``where`` is not valid. SearchError: no part has a weight above 0,
            or ``exact``, ``budget`` or ``mode`` is out of range.
        """
        if not hybrid:
            return self.search_each(
                [query], k, where,
                params=params, exact=exact, budget=budget, mode=mode, pooling=pooling,
            )[0]  # fmt: skip
        words = query if isinstance(query, str) else query.words
        depth = max(100, 10 * k)
        asked, rows = self._asked(query, self._state.rows(where, params))
        (ranking,) = self._rank(
            [asked], depth, [rows], exact=exact, budget=budget, mode=mode, pooling=pooling
        )
        by_sound = self._state.song_ids[ranking.rows].tolist()
        by_words = [id for id, _ in self._by_words(words, rows, every=False)[:depth]]
        fused = fuse_ranks([by_sound, by_words])[:k]
        chosen = [self._state.row_of(id) for id, _ in fused]
        return self._answer(asked, chosen, ranking, pooling)

    def search_each(
        self,
        queries: Sequence[str | Query],
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        exact: str = "always",
        budget: int | None = None,
        mode: str = "auto",
        pooling: str = "attention",
    ) -> list[Hits]:
        """What :meth:`search` answers to each query, in less time than one by one."""
        rows = self._state.rows(where, params)
        asked = [self._asked(query, rows) for query in queries]
        rankings = self._rank(
            [query for query, _ in asked], k, [own for _, own in asked],
            exact=exact, budget=budget, mode=mode, pooling=pooling,
        )  # fmt: skip
        return [
            self._answer(query, ranking.rows.tolist(), ranking, pooling)
            for (query, _), ranking in zip(asked, rankings, strict=True)
        ]

    def find(
        self, words: str, k: int = 10, where: str | None = None, *, params: Params = None
    ) -> list[tuple[SongRecord, float]]:
        """Songs with all these words in title, tags or captions, by BM25; no model is needed.

        Returns:
            Records and scores, best first.

        Raises:
            SearchError: there is no word. FilterError: ``where`` is not valid.
        """
        state = self._state
        found = self._by_words(words, state.rows(where, params), every=True)[:k]
        return [(state.record(state.row_of(id)), score) for id, score in found]

    def similar(
        self,
        path: str | Path,
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        start_s: float = 0.0,
        end_s: float = float("inf"),
    ) -> Hits:
        """Songs that sound like a file, or like a moment of it; the file itself is left out.

        Raises:
            AudioError: the file gives no usable sound. SearchError: the moment is not in it.
        """
        return self.search(Song(path, start_s, end_s), k, where, params=params)

    def texts(self, path: str | Path, k: int = 5) -> list[TextHit]:
        """Stored texts that fit a song best, the same text once.

        Raises:
            AudioError: the file gives no usable sound.
        """
        song = self.model.embed_song(path)
        ranking = search_texts(
            song.clip_emb,
            self._state.passages,
            self._store.manifest.tau,
            k,
            rows=self._state.distinct_texts,
            codes=lambda: self._state.passage_codes,
        )
        hits = []
        for row, score in zip(ranking.rows, ranking.scores, strict=True):
            record = self._state.text(int(row))
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
        state = self._state
        write_faiss(path, state.mean_vectors[state.living], state.song_ids[state.living].tolist())
        return len(self)

    def songs(self, where: str | None = None, *, params: Params = None) -> list[SongRecord]:
        """Records of all songs, or of those that meet an expression."""
        return [self._state.record(int(row)) for row in self._state.rows(where, params)]

    def song(self, id: int) -> StoredSong:
        """One song with its clips; LibraryError where the id is unknown."""
        state = self._state
        row = state.row_of(id)
        return StoredSong(state.record(row), state.clips.rows(row), state.clip_times(row))

    def info(self) -> dict[str, object]:
        """Facts about the library, JSON-ready."""
        manifest, state = self._store.manifest, self._state
        return {
            "path": str(self._store.folder),
            "songs": len(self),
            "texts": len(state.living_texts),
            "hours": float(state.durations_s[state.living].sum()) / 3600,
            "clips": int(np.diff(state.clips.offsets)[state.living].sum()),
            "dim": manifest.dim,
            "dtype": manifest.dtype,
            "tau": manifest.tau,
            "generation": manifest.generation,
            "segments": len(manifest.segments),
            "model": manifest.model_digest,
            "columns": state.catalog.columns,
        }

    def verify(self) -> int:
        """Check every file against its checksum; returns how many there are.

        Raises:
            DamagedLibraryError: names every file that is damaged.
        """
        found = self._store.damaged()
        if found:
            raise DamagedLibraryError(
                f"library {self._store.folder}: {len(found)} of {self._store.n_files} files are "
                f"damaged: {'; '.join(found.values())}. `longplay repair` drops them, names what "
                "is lost and keeps the rest"
            )
        return self._store.n_files

    @staticmethod
    def repair(path: str | Path) -> RepairReport:
        """Drop what is damaged, keep the rest, and tell what is lost; nothing if all is well.

        Raises:
            LibraryError: there is no library, or nothing of it is left.
            LibraryLockedError: another process is changing it.
        """
        folder = Path(path).expanduser()
        with writer_lock(folder):
            return repair(folder)

    # -- inside -----------------------------------------------------------------------------

    def _asked(self, query: str | Query, rows: np.ndarray) -> tuple[QueryEmbedding, np.ndarray]:
        """A query's embedding, and ``rows`` without the files that it asks with."""
        asked = embed_query(query, self.model)
        for content in asked.contents:
            rows = np.setdiff1d(rows, self._state.same_content(content))
        return asked, rows

    def _rank(
        self,
        asked: Sequence[QueryEmbedding],
        k: int,
        rows: Sequence[np.ndarray],
        *,
        exact: str,
        budget: int | None,
        mode: str,
        pooling: str,
    ) -> list[Ranking]:
        state = self._state
        return search_each(
            [as_passages(query.passage_emb, query.passage_weight) for query in asked],
            state.clips,
            self._store.manifest.tau,
            k,
            rows=rows,
            mode=mode,
            codes=lambda: state.clip_codes,
            budget=_budget(exact, budget, k),
            pooling=pooling,
        )

    def _answer(
        self, query: QueryEmbedding, rows: Sequence[int], ranking: Ranking, pooling: str
    ) -> Hits:
        """Rows as hits, with their scores by sound and the moments in which they fit."""
        tau, state, hits = self._store.manifest.tau, self._state, []
        known = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
        for row in rows:
            clips, times = state.clips.rows(row), state.clip_times(row)
            moments = find_moments(query.passage_emb, clips, times, tau)
            score = known.get(row)
            if score is None:
                score = pair_score(query.passage_emb, query.passage_weight, clips, tau, pooling)
            r = state.record(row)
            hits.append(Hit(r.id, r.path, r.title, score, r.duration_s, moments))
        return Hits(hits, ranking, query.passages)

    def _by_words(self, text: str, rows: np.ndarray, *, every: bool) -> list[tuple[int, float]]:
        allowed = set(self._state.song_ids[rows].tolist())
        found = self._state.keywords.search(text, every=every)
        return [(id, score) for id, score in found if id in allowed]

    @property
    def _state(self) -> Snapshot:
        while self._snapshot is None:
            try:
                self._snapshot = Snapshot(self._store)
            except MissingFileError:
                # Another process may have compacted since the manifest was read.
                latest = self._store.latest()
                if latest.manifest.generation == self._store.manifest.generation:
                    raise
                self._store = latest
        return self._snapshot

    def _adder(self, options: EmbedOptions | None = None) -> Adder:
        self.refresh()
        return Adder(self._store, self._state, lambda: self.model, options)


def _budget(exact: str, budget: int | None, k: int) -> int | None:
    if exact == "budget":
        return max(100, 10 * k) if budget is None else budget
    if exact != "always":
        raise SearchError(f"exact: got {exact!r}, expected always or budget")
    if budget is not None:
        raise SearchError(f"budget: got {budget}, which needs exact='budget'")
    return None


def _load(model: Embedder | str | Path | None) -> Embedder:
    if model is None or isinstance(model, str | Path):
        from retrieval.checkpoint import load_model

        return load_model(model)
    return model


__all__ = ["AddReport", "Hit", "Hits", "Library", "Query", "Song", "TextHit"]
