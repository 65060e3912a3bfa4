"""Which songs a step sees: several collections, each gone through round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from retrieval.data.cache import CachedSong
from retrieval.data.neighbours import blocks_of_alike, tag_table
from retrieval.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """A collection and how many of its songs a step takes; songs without captions are left out."""

    songs: Sequence[CachedSong]
    per_step: int


def share_out(
    collections: Sequence[Sequence[CachedSong]], shares: Sequence[float] | None, batch_size: int
) -> list[Part]:
    """Divide a step among collections.

    Args:
        collections: usable training songs.
        shares: of a step, one a collection; None makes one collection of all of them.
        batch_size: songs a step, over all processes.

    Raises:
        ConfigError: shares and collections do not fit, or there are too few songs.
    """
    told = [[song for song in songs if song.song.captions] for songs in collections]
    if shares is None:
        every = [song for songs in told for song in songs]
        return [Part(every, min(batch_size, len(every)))]
    if len(shares) != len(told) or min(shares) < 0 or sum(shares) <= 0:
        raise ConfigError(
            f"data.shares: got {list(shares)}, expected {len(told)} numbers, one a manifest, "
            "none negative"
        )
    counts = [round(batch_size * share / sum(shares)) for share in shares]
    return [
        Part(songs, min(count, len(songs)))
        for songs, count in zip(told, counts, strict=True)
        if songs and count
    ]


class SongOrder:
    """Step number -> songs, numbered through all parts.

    The songs of a part are gone through in a new random order each round; songs that share
    ``meta["group"]`` (variants that differ in their order only) stand side by side, so that they
    are one another's negatives.

    Args:
        parts: collections.
        seed: of the order.
        alike: so many groups that have most tags in common stand side by side too, since songs
            drawn at random are told apart by their style alone; 1 draws each at random.

    Raises:
        ConfigError: ``alike`` is below 1, or a step has fewer than two songs.
    """

    def __init__(self, parts: Sequence[Part], seed: int, alike: int = 1):
        self.parts, self.seed, self.alike = list(parts), seed, alike
        if alike < 1:
            raise ConfigError(f"data.alike: got {alike}, expected at least 1")
        self._rounds: dict[int, tuple[int, list[int]]] = {}
        self._groups = [_groups(part.songs) for part in self.parts]
        self._tags = [
            tag_table([part.songs[group[0]].song.tags for group in groups])
            for part, groups in zip(self.parts, self._groups, strict=True)
        ]
        self.step_size = sum(part.per_step for part in self.parts)
        if self.step_size < 2:
            raise ConfigError(
                f"training songs with captions: {self.step_size} a step, expected at least 2"
            )

    def step(self, number: int) -> list[int]:
        """Songs of a step over all processes.

        Where one round of a part ends within a step, a song may stand in it twice; the losses do
        not take it for its own negative.
        """
        picks, offset = [], 0
        for which, part in enumerate(self.parts):
            rounds, start = divmod(number * part.per_step, len(part.songs))
            order = self._round(which, rounds)[start:]
            if len(order) < part.per_step:
                order = order + self._round(which, rounds + 1)
            picks += [offset + i for i in order[: part.per_step]]
            offset += len(part.songs)
        return picks

    def _round(self, which: int, number: int) -> list[int]:
        """A part's songs in the order of a round, kept for all steps of the round."""
        kept = self._rounds.get(which)
        if kept is None or kept[0] != number:
            kept = self._rounds[which] = number, self._make_round(which, number)
        return kept[1]

    def _make_round(self, which: int, number: int) -> list[int]:
        groups = self._groups[which]
        rng = np.random.default_rng([self.seed, 1, which, number])
        if self.alike == 1:
            return [i for g in rng.permutation(len(groups)) for i in groups[g]]
        blocks = blocks_of_alike(self._tags[which], self.alike, rng)
        return [i for block in blocks for g in block for i in groups[g]]


def _groups(songs: Sequence[CachedSong]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for i, cached in enumerate(songs):
        groups.setdefault(cached.song.meta.get("group", cached.song.id), []).append(i)
    return list(groups.values())


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
