"""One committed state of a library, in memory and ready to be searched."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from index.bounds import Balls, make_balls
from index.candidates import mean_vector
from index.catalog import Catalog
from index.exact import Ragged, stack
from index.store import Store, StoredSong
from retrieval.errors import LibraryError


class Snapshot:
    """Songs and texts as they were at a commit; each derived table is made when first asked for.

    Args:
        store: is read once, here.

    Raises:
        DamagedLibraryError: a file is missing or damaged.
    """

    def __init__(self, store: Store):
        self.dim = store.manifest.dim
        self.songs, self.texts = store.load()

    @cached_property
    def clips(self) -> Ragged:
        """All clips of all songs; row i belongs to ``songs[i]``."""
        return stack([s.clip_emb for s in self.songs], self.dim)

    @cached_property
    def passages(self) -> Ragged:
        """All passages of all texts; row i belongs to ``texts[i]``."""
        weights = [t.passage_weight for t in self.texts]
        return stack([t.passage_emb for t in self.texts], self.dim, weights)

    @cached_property
    def song_balls(self) -> Balls:
        """Groups of clips for certified search."""
        return make_balls(self.clips)

    @cached_property
    def mean_vectors(self) -> np.ndarray:
        """One vector a song, float32 ``[songs, dim]``, for FAISS."""
        vectors = [mean_vector(s.clip_emb) for s in self.songs]
        return np.stack(vectors) if vectors else np.zeros((0, self.dim), np.float32)

    @cached_property
    def distinct_texts(self) -> np.ndarray:
        """Rows of texts, the same text once."""
        first: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            first.setdefault(text.record.text, i)
        return np.array(sorted(first.values()), np.int64)

    @cached_property
    def catalog(self) -> Catalog:
        """What can be filtered by."""
        return Catalog([s.record for s in self.songs])

    @cached_property
    def row_of(self) -> dict[int, int]:
        """Id of a song -> its row."""
        return {s.record.id: i for i, s in enumerate(self.songs)}

    def rows(self, where: str | None) -> np.ndarray:
        """Rows that a filter leaves, rising; the one place where songs are filtered."""
        if where is None:
            return np.arange(len(self.songs))
        return np.array([self.row_of[i] for i in self.catalog.filter(where)], np.int64)

    def song(self, id: int) -> StoredSong:
        """One song with its clips; LibraryError where the id is unknown."""
        if id not in self.row_of:
            raise LibraryError(f"id: {id} is not in the library")
        return self.songs[self.row_of[id]]
