"""One file after another, for models that are not made of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from retrieval.embedder import Embedder, SongEmbedding
from retrieval.errors import AudioError, NonFiniteAudioError

Item = TypeVar("Item")


class OneByOne:
    """What :class:`retrieval.pipeline.stream.Pipeline` does, without processes or threads."""

    def __init__(self, model: Embedder):
        self._model = model

    def embed(
        self, items: Iterable[Item], path_of: Callable[[Item], Path | None]
    ) -> Iterator[tuple[Item, SongEmbedding | AudioError | None]]:
        """See :meth:`retrieval.pipeline.stream.Pipeline.embed`."""
        for item in items:
            path = path_of(item)
            found: SongEmbedding | AudioError | None = None
            try:
                found = None if path is None else self.embed_one(path)
            except AudioError as error:
                found = error
            yield item, found

    def embed_one(self, path: Path) -> SongEmbedding:
        """Embed a file; raises ``AudioError`` where it cannot be used."""
        return checked(path, self._model.embed_song(path))

    def close(self) -> None:
        """Nothing is held."""


def checked(path: Path, embedding: SongEmbedding) -> SongEmbedding:
    """The same; NonFiniteAudioError where it holds NaN or infinity."""
    if not np.isfinite(embedding.clip_emb).all():
        raise NonFiniteAudioError(f"{path}: the model gave NaN or infinity for it")
    return embedding
