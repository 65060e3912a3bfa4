"""Training batches as a pure function of the seed and the step, so that a run can resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from retrieval.caption_format import format_caption
from retrieval.captioner import PAD
from retrieval.data.cache import CachedSong
from retrieval.data.views import TextView, random_view
from retrieval.errors import ConfigError
from retrieval.model import CoLLAP, SongBatch, song_places


@dataclass  # not frozen: Lightning moves its tensors in place
class TrainBatch:
    """One process's share of a step; text i belongs to song i.

    Attributes:
        songs: as the model reads them.
        texts: passages of each text.
        target: ``[n, passages, clips]``, where passages should attend (see ``alignment_loss``).
        song_key, text_key: int64 ``[n]``, equal where song or caption is the same.
        caption_ids: int64 ``[n, length]`` for the generator head, None without one.
    """

    songs: SongBatch
    texts: list[list[str]]
    target: Tensor
    song_key: Tensor
    text_key: Tensor
    caption_ids: Tensor | None


class TrainSteps(Dataset[TrainBatch]):
    """Step number -> batch.

    Songs are gone through in a new random order each round; songs that share ``meta["group"]``
    (variants that differ in their order only) stand side by side, so that they are one another's
    negatives.

    Args:
        songs: usable training songs, each with at least one caption.
        net: for its tokenizer and its augmentation; its weights are not read.
        batch_size: songs a step, over all processes.
        train_clips: most clips that a step reads of a song, spread over its whole length.
        seed: of everything.
        rank: number of this process.
        world: how many processes there are.
    """

    def __init__(
        self,
        songs: Sequence[CachedSong],
        net: CoLLAP,
        batch_size: int,
        train_clips: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        self.songs = [s for s in songs if s.song.captions]
        if len(self.songs) < 2:
            raise ConfigError(f"training songs with captions: got {len(self.songs)}, need 2")
        if batch_size % world:
            raise ConfigError(f"data.batch_size: got {batch_size}, expected a multiple of {world}")
        self.net, self.train_clips, self.seed = net, train_clips, seed
        self.batch_size = min(batch_size, len(self.songs) // world * world)
        if self.batch_size < 2:
            raise ConfigError(f"data.batch_size: got {batch_size}, expected at least 2")
        self.rank, self.world = rank, world

    def __getitem__(self, step: int) -> TrainBatch:
        """This process's share of one step."""
        share = self.batch_size // self.world
        picks = self.order(step)[self.rank * share : (self.rank + 1) * share]
        samples = [self._sample(step, i) for i in picks]
        return self._collate(samples)

    def order(self, step: int) -> list[int]:
        """Songs of a step over all processes.

        Where one round of all songs ends within a step, a song may stand in it twice; the losses
        do not take it for its own negative.
        """
        rounds, start = divmod(step * self.batch_size, len(self.songs))
        order = self._round(rounds)[start:]
        if len(order) < self.batch_size:
            order = order + self._round(rounds + 1)
        return order[: self.batch_size]

    def _round(self, number: int) -> list[int]:
        groups: dict[object, list[int]] = {}
        for i, cached in enumerate(self.songs):
            groups.setdefault(cached.song.meta.get("group", cached.song.id), []).append(i)
        lists = list(groups.values())
        rng = np.random.default_rng([self.seed, 1, number])
        return [i for g in rng.permutation(len(lists)) for i in lists[g]]

    def _sample(self, step: int, i: int) -> tuple[CachedSong, Tensor, np.ndarray, TextView]:
        cached = self.songs[i]
        rng = np.random.default_rng([self.seed, 2, step, i])
        rows = pick_clips(len(cached.times), self.train_clips, rng)
        view = random_view(cached.song, self.net.split, cached.times[rows], rng)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        prepared = self.net.audio.augment(cached.prepared(rows.tolist()), generator)
        return cached, prepared, rows, view

    def _collate(
        self, samples: list[tuple[CachedSong, Tensor, np.ndarray, TextView]]
    ) -> TrainBatch:
        n, clips = len(samples), max(len(rows) for _, _, rows, _ in samples)
        passages = max(len(view.passages) for *_, view in samples)
        mask = torch.zeros(n, clips, dtype=torch.bool)
        position = torch.zeros(n, clips, dtype=torch.int64)
        place = torch.zeros(n, clips, 2)
        target = torch.zeros(n, passages, clips)
        for i, (cached, _, rows, view) in enumerate(samples):
            mask[i, : len(rows)] = True
            position[i, : len(rows)] = torch.from_numpy(rows)
            place[i, : len(rows)] = song_places(cached.times[rows], cached.duration_s)
            target[i, : len(view.passages), : len(rows)] = view.target
        songs = SongBatch(
            torch.cat([prepared for _, prepared, _, _ in samples]),
            torch.cat([cached.filled[rows] for cached, _, rows, _ in samples]),
            mask,
            position,
            place,
        )
        return TrainBatch(
            songs,
            [view.passages for *_, view in samples],
            target,
            torch.tensor([text_key(cached.song.id) for cached, *_ in samples]),
            torch.tensor([text_key(view.caption.text) for *_, view in samples]),
            self._caption_ids([(cached, view) for cached, _, _, view in samples]),
        )

    def _caption_ids(self, pairs: list[tuple[CachedSong, TextView]]) -> Tensor | None:
        head = self.net.captioner
        if head is None:
            return None
        rows = []
        for cached, view in pairs:
            line = format_caption(view.caption, cached.duration_s)
            ids = head.encode(self.net.text.token_ids(line), timed=bool(view.caption.sections))
            rows.append(torch.tensor(ids))
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


class StepSampler(Sampler[int]):
    """The steps of one validation interval.

    Args:
        steps: in an interval.
        next_step: the number of steps that training has made so far; a resumed run starts there.
    """

    def __init__(self, steps: int, next_step: Callable[[], int]):
        self.steps, self.next_step = steps, next_step

    def __iter__(self) -> Iterator[int]:
        start = self.next_step()
        return iter(range(start, start + self.steps))

    def __len__(self) -> int:
        return self.steps


def pick_clips(clips: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Rising clip numbers: all, or ``most`` of them, one from each equal part of the song."""
    if clips <= most:
        return np.arange(clips)
    edges = np.linspace(0, clips, most + 1)
    rows = np.floor(rng.uniform(edges[:-1], edges[1:])).astype(np.int64)
    return np.unique(rows.clip(0, clips - 1))


def text_key(text: str) -> int:
    """A 63-bit number for a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
