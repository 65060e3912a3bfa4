"""Training batches as a pure function of the seed and the step, so that a run can resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler

from retrieval.caption_format import format_caption
from retrieval.captioner import PAD
from retrieval.data.augment import Augment, SongView, draw_view
from retrieval.data.cache import CachedSong
from retrieval.data.manifest import Caption
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


@dataclass(frozen=True)
class _Sample:
    """One song and one text of a step, before they are put together."""

    song_id: str
    prepared: Tensor
    filled: Tensor
    position: np.ndarray
    place: Tensor
    text: TextView
    caption_ids: list[int] | None


_AS_IT_IS = Augment()


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
        augment: how often a song is seen otherwise than whole and in order.
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
        augment: Augment = _AS_IT_IS,
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
        self.rank, self.world, self.augment = rank, world, augment

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

    def _sample(self, step: int, i: int) -> _Sample:
        cached = self.songs[i]
        rng = np.random.default_rng([self.seed, 2, step, i])
        captions = cached.song.captions
        song = draw_view(cached.times.numpy(), cached.duration_s, captions, self.augment, rng)
        position = pick_clips(len(song.clips), self.train_clips, rng)
        times = torch.from_numpy(song.times_s[position])
        text = random_view(song.captions, self.net.split, times, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        clips = song.clips[position].tolist()
        prepared = self.net.audio.augment(cached.prepared(clips), generator)
        place = song_places(times, song.duration_s)
        head = self._caption_ids(song, text.caption)
        return _Sample(cached.song.id, prepared, cached.filled[clips], position, place, text, head)

    def _collate(self, samples: list[_Sample]) -> TrainBatch:
        n, clips = len(samples), max(len(s.position) for s in samples)
        passages = max(len(s.text.passages) for s in samples)
        mask = torch.zeros(n, clips, dtype=torch.bool)
        position = torch.zeros(n, clips, dtype=torch.int64)
        place = torch.zeros(n, clips, 2)
        target = torch.zeros(n, passages, clips)
        for i, sample in enumerate(samples):
            heard = len(sample.position)
            mask[i, :heard] = True
            position[i, :heard] = torch.from_numpy(sample.position)
            place[i, :heard] = sample.place
            target[i, : len(sample.text.passages), :heard] = sample.text.target
        songs = SongBatch(
            torch.cat([s.prepared for s in samples]),
            torch.cat([s.filled for s in samples]),
            mask,
            position,
            place,
        )
        rows = [torch.tensor(s.caption_ids) for s in samples if s.caption_ids is not None]
        return TrainBatch(
            songs,
            [s.text.passages for s in samples],
            target,
            torch.tensor([text_key(s.song_id) for s in samples]),
            torch.tensor([text_key(s.text.caption.text) for s in samples]),
            pad_sequence(rows, batch_first=True, padding_value=PAD) if rows else None,
        )

    def _caption_ids(self, song: SongView, caption: Caption) -> list[int] | None:
        """What the generator head learns to write: the timed caption where a song has one."""
        head = self.net.captioner
        if head is None:
            return None
        wanted = next((c for c in song.captions if c.form == "timed"), caption)
        line = format_caption(wanted, song.duration_s)
        return head.encode(self.net.text.token_ids(line), timed=bool(wanted.sections))


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
