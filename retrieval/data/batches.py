"""Training batches as a pure function of the seed and the step, so that a run can resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from retrieval.caption_format import format_caption
from retrieval.captioner import PAD
from retrieval.data.arrangements import ArrangedSongs, Arrangement, draw_arrangements, put_together
from retrieval.data.augment import Augment, SongView, draw_view
from retrieval.data.labels import LabelSet
from retrieval.data.manifest import Caption
from retrieval.data.order import Part, SongOrder
from retrieval.data.resident import ResidentClips
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
        caption_ids: int64 ``[k, length]`` for the generator head, of the songs in
            ``caption_song``; None without one.
        caption_song: int64 ``[k]``, numbers of songs.
        contrast_song: int64 ``[m]``, numbers of the songs that have false captions here.
        contrast_texts: passages of ``m * versions`` texts: each such song's true caption, then
            false ones, the true one again where there are fewer.
        contrast_mask: bool ``[m, versions]``, False on what was filled up.
        arranged: songs in two orders of their sections.
        labels: float ``[clips of all songs, labels]``, NaN where unknown; see
            :class:`retrieval.data.labels.LabelSet`.
    """

    songs: SongBatch
    texts: list[list[str]]
    target: Tensor
    song_key: Tensor
    text_key: Tensor
    caption_ids: Tensor | None
    caption_song: Tensor
    contrast_song: Tensor
    contrast_texts: list[list[str]]
    contrast_mask: Tensor
    arranged: ArrangedSongs
    labels: Tensor


@dataclass(frozen=True)
class Extras:
    """How much of a step is beside songs and one text each.

    Attributes:
        captions: songs whose caption the generator head learns to write, at most.
        contrasts: songs with false captions, at most.
        versions: texts of each of them, the true one included.
        tags: chance that the text is made of the song's tags.
        queries: chance that it is one of its short queries, where it has some.
        orders: songs heard in two orders of their sections, at most.
    """

    captions: int = 8
    contrasts: int = 8
    versions: int = 4
    tags: float = 0.15
    queries: float = 0.0
    orders: int = 0

    def __post_init__(self) -> None:
        if min(self.tags, self.queries) < 0 or self.tags + self.queries > 1:
            raise ConfigError(
                f"data.extras: tags {self.tags}, queries {self.queries}, expected chances that "
                "sum to at most 1"
            )


@dataclass(frozen=True)
class _Sample:
    """One song and one text of a step, before they are put together."""

    song_id: str
    prepared: Tensor
    filled: Tensor
    position: np.ndarray
    times: Tensor
    place: Tensor
    text: TextView
    view: SongView
    labels: Tensor


_AS_IT_IS = Augment()
_NO_TEXT = TextView([""], torch.zeros(1, 1), None)


class TrainSteps(Dataset[TrainBatch]):
    """Step number -> batch.

    Args:
        parts: collections of usable training songs, and how many of a step come from each.
        net: for its tokenizer; its weights are not read.
        train_clips: most clips that a step reads of a song, spread over its whole length.
        seed: of everything.
        rank: number of this process.
        world: how many processes there are.
        augment: how often a song is seen otherwise than whole and in order.
        labels: what is asked of clips.
        extras: captions to write and to tell apart.
        texts: False where no loss reads texts: each song's is then one empty passage.
        resident: keep all clips in memory; ``songs.prepared`` of a batch is then their numbers,
            for :attr:`resident` to take.
        alike: see :class:`~retrieval.data.order.SongOrder`.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        net: CoLLAP,
        train_clips: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        augment: Augment = _AS_IT_IS,
        labels: LabelSet | None = None,
        extras: Extras = Extras(),
        texts: bool = True,
        resident: bool = False,
        alike: int = 1,
    ):
        self.order = SongOrder(parts, seed, alike)
        self.songs = [song for part in parts for song in part.songs]
        if self.order.step_size % world:
            raise ConfigError(
                f"data.batch_size: got {self.order.step_size}, expected a multiple of {world}"
            )
        self.net, self.train_clips, self.seed = net, train_clips, seed
        self.rank, self.world, self.augment = rank, world, augment
        self.labels, self.extras, self.texts = labels or LabelSet(()), extras, texts
        self.resident = ResidentClips(self.songs) if resident else None
        self._split = cache(net.split)  # the same captions come again every round

    def __getitem__(self, step: int) -> TrainBatch:
        """This process's share of one step."""
        share = self.order.step_size // self.world
        picks = self.order.step(step)[self.rank * share : (self.rank + 1) * share]
        return self._collate([self._sample(step, i) for i in picks], step)

    def _sample(self, step: int, i: int) -> _Sample:
        cached = self.songs[i]
        rng = np.random.default_rng([self.seed, 2, step, i])
        captions = cached.song.captions
        song = draw_view(cached.times.numpy(), cached.duration_s, captions, self.augment, rng)
        position = pick_clips(len(song.clips), self.train_clips, rng)
        times = torch.from_numpy(song.times_s[position])
        text = _NO_TEXT if not self.texts else self._text(cached.song.tags, song, times, rng)
        clips = song.clips[position].tolist()
        if self.resident is None:
            prepared = cached.prepared(clips)
        else:
            prepared = self.resident.numbers(i, clips)
        return _Sample(
            cached.song.id, prepared, cached.filled[clips], position, times,
            song_places(times, song.duration_s), text, song,
            self.labels.target(cached.song, cached.times[clips]),
        )  # fmt: skip

    def _text(
        self, tags: Sequence[str], song: SongView, times: Tensor, rng: np.random.Generator
    ) -> TextView:
        drawn, extras = rng.random(), self.extras
        if drawn < extras.tags:
            return random_view(song.captions, self._split, times, rng, tags=tags)
        asked = drawn < extras.tags + extras.queries
        queries = [c for c in song.captions if asked and c.form == "query"]
        return random_view(queries or song.captions, self._split, times, rng)

    def _collate(self, samples: list[_Sample], step: int) -> TrainBatch:
        passages = max(len(s.text.passages) for s in samples)
        songs = self._song_batch(samples)
        target = torch.zeros(len(samples), passages, songs.clip_mask.shape[1])
        for i, sample in enumerate(samples):
            target[i, : len(sample.text.passages), : len(sample.position)] = sample.text.target
        rng = np.random.default_rng([self.seed, 3, step, self.rank])
        contrast_song, contrast_texts, contrast_mask = self._contrasts(samples, rng)
        caption_song, caption_ids = self._captions(samples, rng)
        return TrainBatch(
            songs,
            [s.text.passages for s in samples],
            target,
            torch.tensor([text_key(s.song_id) for s in samples]),
            torch.tensor([text_key(" ".join(s.text.passages)) for s in samples]),
            caption_ids,
            caption_song,
            contrast_song,
            contrast_texts,
            contrast_mask,
            self._arranged(samples, rng),
            torch.cat([s.labels for s in samples]),
        )

    def _song_batch(self, samples: list[_Sample]) -> SongBatch:
        n, clips = len(samples), max(len(s.position) for s in samples)
        mask = torch.zeros(n, clips, dtype=torch.bool)
        position = torch.zeros(n, clips, dtype=torch.int64)
        place = torch.zeros(n, clips, 2)
        for i, sample in enumerate(samples):
            heard = len(sample.position)
            mask[i, :heard] = True
            position[i, :heard] = torch.from_numpy(sample.position)
            place[i, :heard] = sample.place
        prepared = torch.cat([s.prepared for s in samples])
        return SongBatch(prepared, torch.cat([s.filled for s in samples]), mask, position, place)

    def _contrasts(
        self, samples: list[_Sample], rng: np.random.Generator
    ) -> tuple[Tensor, list[list[str]], Tensor]:
        """True and false captions of some of the songs that have false ones."""
        versions = self.extras.versions
        chosen: list[int] = []
        texts: list[list[str]] = []
        rows: list[list[bool]] = []
        for i in rng.permutation(len(samples)).tolist():
            told = [c for c in samples[i].view.captions if c.negatives]
            if not told or len(chosen) == -(-self.extras.contrasts // self.world):
                continue
            caption = told[int(rng.integers(len(told)))]
            false = draw_negatives(caption, versions - 1, rng)
            spare = versions - 1 - len(false)
            all_ = [caption.text, *false, *[caption.text] * spare]
            texts += [[p.text for p in self._split(text)] for text in all_]
            rows.append([True] * (1 + len(false)) + [False] * spare)
            chosen.append(i)
        mask = torch.tensor(rows, dtype=torch.bool).reshape(len(rows), versions)
        return torch.tensor(chosen, dtype=torch.int64), texts, mask

    def _arranged(self, samples: list[_Sample], rng: np.random.Generator) -> ArrangedSongs:
        """Some of the songs in two orders of their sections."""
        first = np.cumsum([0, *(len(s.position) for s in samples)])
        pairs: list[tuple[int, np.ndarray, tuple[Arrangement, Arrangement]]] = []
        for i in rng.permutation(len(samples)).tolist():
            if len(pairs) == -(-self.extras.orders // self.world):
                break
            sample = samples[i]
            pair = draw_arrangements(sample.view.captions, sample.times.numpy(), self._split, rng)
            if pair is not None:
                pairs.append((int(first[i]), sample.position, pair))
        return put_together(pairs)

    def _captions(
        self, samples: list[_Sample], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """What the generator head learns to write: the timed caption where a song has one."""
        head = self.net.captioner
        order = rng.permutation(len(samples)).tolist()
        told = [i for i in order if samples[i].text.caption is not None]
        told = told[: -(-self.extras.captions // self.world)]
        if head is None or not told:
            return torch.zeros(0, dtype=torch.int64), None
        rows = []
        for i in told:
            view, caption = samples[i].view, samples[i].text.caption
            wanted = next((c for c in view.captions if c.form == "timed"), caption)
            assert isinstance(wanted, Caption)
            ids = self.net.text.token_ids(format_caption(wanted, view.duration_s))
            rows.append(torch.tensor(head.encode(ids, timed=bool(wanted.sections))))
        padded = pad_sequence(rows, batch_first=True, padding_value=PAD)
        return torch.tensor(told, dtype=torch.int64), padded


def draw_negatives(caption: Caption, most: int, rng: np.random.Generator) -> list[str]:
    """False versions of a caption: the one in another order always, for order is hardest."""
    order = rng.permutation(len(caption.negatives))
    swapped = [k for k in order if caption.negatives[k].change == "swap"]
    others = [k for k in order if caption.negatives[k].change != "swap"]
    return [caption.negatives[k].text for k in (*swapped, *others)[:most]]


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
