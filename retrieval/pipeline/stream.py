"""Files in, embeddings out in the same order; decoding, features and the network overlap."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from retrieval.embedder import SongEmbedding
from retrieval.errors import AudioError
from retrieval.inference import LongplayModel
from retrieval.pipeline.encode import Features, SongEncoder
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.plain import checked
from retrieval.pipeline.pool import DecodePool

Item = TypeVar("Item")
# Items that need no embedding wait behind those that do, but no more of them than this.
_MAX_WAITING = 256


@dataclass(frozen=True)
class _Waiting(Generic[Item]):
    """An item on its way; without a path it only keeps its place."""

    item: Item
    path: Path | None
    features: Future[Features] | None


class Pipeline:
    """Embeds files; close it, since worker processes stand behind it.

    A file is decoded in a worker process, cut and turned into features in a thread, and encoded
    in the thread that iterates. Only a few songs are on their way at a time.
    """

    def __init__(self, model: LongplayModel, options: EmbedOptions):
        self.encoder = SongEncoder(model, options)
        most = 64 if model.device.type == "cuda" else 8
        workers = options.workers or min(_cores(), most)
        self._pool = DecodePool(workers, options.limits)
        self._threads = ThreadPoolExecutor(1, "features")
        # One song for each worker, one that becomes features, and those that fill a batch.
        self._ahead = workers + (6 if self.encoder.together else 2)

    def close(self) -> None:
        """End the workers and drop what is on its way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pool.close()
        self._threads.shutdown()

    def embed(
        self, items: Iterable[Item], path_of: Callable[[Item], Path | None]
    ) -> Iterator[tuple[Item, SongEmbedding | AudioError | None]]:
        """Embed many files.

        Args:
            items: taken a little ahead of what is given out.
            path_of: file of an item, or None where it only keeps its place in the order.

        Yields:
            Every item in order, with its embedding, the error that its file gave, or None.
        """
        waiting: deque[_Waiting[Item]] = deque()
        source = iter(items)
        more = True
        while more or waiting:
            ahead = sum(one.path is not None for one in waiting)
            while more and ahead < self._ahead and len(waiting) < _MAX_WAITING:
                try:
                    item = next(source)
                except StopIteration:
                    more = False
                    break
                path = path_of(item)
                waiting.append(_Waiting(item, path, self._start(path) if path else None))
                ahead += path is not None
            if waiting:
                yield from self._finish(self._take(waiting))

    def embed_one(self, path: Path) -> SongEmbedding:
        """Embed a file at once; raises ``AudioError`` where it cannot be used."""
        return checked(path, self.encoder.embed([self._start(path).result()])[0])

    def _start(self, path: Path) -> Future[Features]:
        samples = self._pool.submit(path, self.encoder.sample_rate_hz)
        return self._threads.submit(lambda: self.encoder.features(samples.result()))

    def _take(
        self, waiting: deque[_Waiting[Item]]
    ) -> list[tuple[_Waiting[Item], Features | AudioError | None]]:
        """The first that waits, and where batches are filled, those after it that are ready."""
        taken: list[tuple[_Waiting[Item], Features | AudioError | None]] = []
        clips = 0
        while waiting and (not taken or clips < self.encoder.together):
            future = waiting[0].features
            if taken and future is not None and not future.done():
                break
            found: Features | AudioError | None = None
            try:
                found = None if future is None else future.result()
            except AudioError as error:
                found = error
            clips += len(found) if isinstance(found, Features) else 0
            taken.append((waiting.popleft(), found))
        return taken

    def _finish(
        self, taken: list[tuple[_Waiting[Item], Features | AudioError | None]]
    ) -> Iterator[tuple[Item, SongEmbedding | AudioError | None]]:
        songs = [found for _, found in taken if isinstance(found, Features)]
        embedded = iter(self.encoder.embed(songs) if songs else [])
        for one, found in taken:
            outcome: SongEmbedding | AudioError | None
            if isinstance(found, Features):
                assert one.path is not None
                try:
                    outcome = checked(one.path, next(embedded))
                except AudioError as error:
                    outcome = error
            else:
                outcome = found
            yield one.item, outcome


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
