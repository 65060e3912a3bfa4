"""The public face: :class:`Library`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from index.adding import Adder, AddReport
from index.asking import Asking, Params
from index.export import write_faiss
from index.hits import Hit, Hits, StoredSong, TextHit
from index.lock import writer_lock
from index.manifest import Manifest
from index.query import Query, Song
from index.records import SongRecord
from index.repair import RepairReport, repair
from index.snapshot import Snapshot
from index.store import Store
from retrieval.data.scan import absolute, find_songs
from retrieval.embedder import Embedder, GeneratedCaption
from retrieval.errors import (
    DamagedLibraryError,
    LibraryError,
    MissingFileError,
    ModelMismatchError,
)
from retrieval.pipeline.options import EmbedOptions


class Library(Asking):
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

        Files that are there unchanged are passed over, so the same call goes on after a stop. A
        file whose content is that of a song whose own file is gone was renamed: the song keeps its
        id, texts and metadata, and nothing is embedded again.
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

    # -- telling ----------------------------------------------------------------------------

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


def _load(model: Embedder | str | Path | None) -> Embedder:
    if model is None or isinstance(model, str | Path):
        from retrieval.checkpoint import load_model

        return load_model(model)
    return model


__all__ = ["AddReport", "Hit", "Hits", "Library", "Query", "Song", "TextHit"]
