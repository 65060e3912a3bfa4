"""One committed state of a library, ready to be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from index.catalog import Catalog
from index.catalog_file import catalog_of
from index.code_files import forget
from index.codes import Codes
from index.export import mean_vector
from index.keywords import Keywords
from index.records import Scalar, SongRecord, TextRecord
from index.segment import Part, SongPart, TextPart, content_key
from index.store import Store
from index.table import Ragged
from retrieval.errors import DamagedLibraryError, LibraryError

P = TypeVar("P", bound=Part)
#: As many clips tell how songs ask; more would not make codes better.
_SAMPLE_CLIPS = 1 << 14


class Snapshot:
    """Songs and texts as they were at a commit; each derived table is made when first asked for.

    A row is the place of a song (or text) among all that were ever written and not yet compacted
    away; :attr:`living` names the rows that count.

    Args:
        store: its segments are opened here, once, and read when they are needed.

    Raises:
        DamagedLibraryError: a file is missing or has another length.
    """

    def __init__(self, store: Store):
        self.manifest, self._folder = store.manifest, store.folder
        self._segments = store.segments()

    # -- songs ------------------------------------------------------------------------------

    @cached_property
    def song_ids(self) -> np.ndarray:
        """int64 ``[rows]``, rising."""
        return _joined([part.ids for part in self._songs], np.int64)

    @cached_property
    def living(self) -> np.ndarray:
        """Rows of songs that were not removed, rising."""
        return np.flatnonzero(~np.isin(self.song_ids, _array(self.manifest.dead_songs)))

    @cached_property
    def clips(self) -> Ragged:
        """Clips of all rows."""
        return _table(self._songs, "clip_emb")

    @cached_property
    def durations_s(self) -> np.ndarray:
        """float64 ``[rows]``."""
        return _joined([part.durations_s for part in self._songs], np.float64)

    def same_content(self, sha256: str) -> np.ndarray:
        """Rows of songs whose file had this hash, rising."""
        contents = _joined([part.contents for part in self._songs], np.int64)
        return np.flatnonzero(contents == content_key(sha256))

    def record(self, row: int) -> SongRecord:
        """Record of one song."""
        part, place = self._place(self._songs, row)
        record = part.record(place)
        moved = self.manifest.moved.get(record.id)
        return moved.of(record) if moved else record

    def clip_times(self, row: int) -> np.ndarray:
        """``[clips, 2]`` of one song, in seconds."""
        part, place = self._place(self._songs, row)
        return part.column("clip_times", place)

    def records(self) -> list[SongRecord]:
        """Records of all living songs."""
        return [self.record(int(row)) for row in self.living]

    def row_of(self, id: int) -> int:
        """Row of a living song; LibraryError where the id is unknown."""
        row = int(np.searchsorted(self.song_ids, id))
        known = row < len(self.song_ids) and self.song_ids[row] == id
        if not known or id in self.manifest.dead_songs:
            raise LibraryError(f"id: {id} is not in the library")
        return row

    def rows(self, where: str | None, params: Mapping[str, Scalar] | None = None) -> np.ndarray:
        """Rows that a filter leaves, rising; the one place where songs are filtered."""
        if where is None:
            return self.living
        found = np.array(self.catalog.filter(where, params), np.int64)
        rows = self.living[np.isin(self.song_ids[self.living], found)]
        if len(rows) != len(found):
            raise DamagedLibraryError("catalogue: holds songs that are not in the library")
        return rows

    @cached_property
    def catalog(self) -> Catalog:
        """What can be filtered by."""
        return catalog_of(self.manifest, self._folder, self.records)

    @cached_property
    def keywords(self) -> Keywords:
        """What is written about songs."""
        captions: dict[int, list[str]] = {}
        for row in self.living_texts.tolist():
            record = self.text(row)
            if record.song is not None:
                captions.setdefault(record.song, []).append(record.text)
        return Keywords(
            (r.id, r.title or Path(r.path).stem, " ".join(r.tags), " ".join(captions.get(r.id, ())))
            for r in self.records()
        )

    @cached_property
    def clip_codes(self) -> list[Codes | None]:
        """Codes of the clips of each segment, for certified search; None for small ones."""
        self._forget_codes()
        return [part.codes(self._folder) for part in self._songs]

    @cached_property
    def mean_vectors(self) -> np.ndarray:
        """One vector a row, float32 ``[rows, dim]``, for FAISS."""
        vectors = [mean_vector(self.clips.rows(row)) for row in range(len(self.clips))]
        return np.stack(vectors) if vectors else np.zeros((0, self.manifest.dim), np.float32)

    # -- texts ------------------------------------------------------------------------------

    @cached_property
    def passages(self) -> Ragged:
        """Passages of all rows of texts."""
        weights = [part.columns["passage_weight"] for part in self._texts]
        return _table(self._texts, "passage_emb", _joined(weights, np.float32))

    @cached_property
    def passage_codes(self) -> list[Codes | None]:
        """Codes of the passages of each segment, for bounds of what clips ask."""
        self._forget_codes()
        return [part.codes(self._folder, self._some_clips) for part in self._texts]

    def text(self, row: int) -> TextRecord:
        """Record of one text."""
        part, place = self._place(self._texts, row)
        return part.record(place)

    @cached_property
    def living_texts(self) -> np.ndarray:
        """Rows of texts that were not removed, by themselves or with their song."""
        ids = _joined([part.ids for part in self._texts], np.int64)
        songs = _joined([part.songs for part in self._texts], np.int64)
        dead = np.isin(ids, _array(self.manifest.dead_texts))
        return np.flatnonzero(~dead & ~np.isin(songs, _array(self.manifest.dead_songs)))

    @cached_property
    def distinct_texts(self) -> np.ndarray:
        """Rows of living texts, the same text once."""
        keys = _joined([part.keys for part in self._texts], np.int64)[self.living_texts]
        _, first = np.unique(keys, return_index=True)
        return self.living_texts[np.sort(first)]

    # -- inside -----------------------------------------------------------------------------

    @cached_property
    def _songs(self) -> list[SongPart]:
        parts = [segment.songs for segment in self._segments]
        return self._checked([part for part in parts if part is not None], "clip_emb")

    @cached_property
    def _texts(self) -> list[TextPart]:
        parts = [segment.texts for segment in self._segments]
        return self._checked([part for part in parts if part is not None], "passage_emb")

    def _forget_codes(self) -> None:
        forget(self._folder, {file.sha256 for s in self.manifest.segments for file in s.files})

    def _some_clips(self) -> np.ndarray | None:
        """Clips of the library by chance, ``[clips, dim]``: songs that ask are much like these."""
        rng, found = np.random.default_rng(0), []
        for part in self.clips.parts:
            share = max(1, _SAMPLE_CLIPS * len(part) // self.clips.n_rows)
            found.append(part[np.sort(rng.permutation(len(part))[:share])].astype(np.float32))
        return np.concatenate(found) if found else None

    def _checked(self, parts: list[P], name: str) -> list[P]:
        for part in parts:
            shape = part.columns[name].shape
            if len(shape) != 2 or shape[1] != self.manifest.dim:
                raise DamagedLibraryError(
                    f"{part.path}: holds {name} {list(shape)}, expected [rows, {self.manifest.dim}]"
                )
        return parts

    def _place(self, parts: list[P], row: int) -> tuple[P, int]:
        for part in parts:
            if row < len(part):
                return part, row
            row -= len(part)
        raise LibraryError(f"row: {row} is over the last")


def _array(ids: frozenset[int]) -> np.ndarray:
    return np.fromiter(ids, np.int64, len(ids))


def _joined(parts: Sequence[np.ndarray], dtype: type[np.generic]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _table(parts: Sequence[Part], name: str, weight: np.ndarray | None = None) -> Ragged:
    counts = _joined([part.columns["count"] for part in parts], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ragged(tuple(part.columns[name] for part in parts), offsets, weight)
