"""Which clips become a song: each next one fits the one before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.data.corpus.splice.features import ClipFeatures, tempo_distance

_NEAREST = 8
# Weights of the parts of a distance; an octave of tempo or an unrelated key weighs as much as
# twice the usual difference in timbre.
_TEMPO, _KEY = 4.0, 2.0


@dataclass(frozen=True)
class SplicePlan:
    """Clips of one song, in order, by their number."""

    clips: tuple[int, ...]


def plan_songs(
    features: Sequence[ClipFeatures], count: int, lengths: tuple[int, int], rng: random.Random
) -> list[SplicePlan]:
    """Draw songs.

    Args:
        features: of all clips that may be used.
        count: how many songs.
        lengths: fewest and most clips a song.
        rng: source of all randomness.

    Returns:
        At most ``count`` songs; none where there are fewer clips than a song needs. No song has
        the clips of another in the same order.
    """
    if len(features) < lengths[0]:
        return []
    timbre = np.stack([f.timbre for f in features])
    timbre = (timbre - timbre.mean(axis=0)) / (timbre.std(axis=0) + 1e-6)
    timbre /= np.sqrt(timbre.shape[1])
    chroma = np.stack([f.chroma for f in features])
    plans: dict[tuple[int, ...], None] = {}
    order = list(range(len(features)))
    rng.shuffle(order)
    for attempt in range(count * 3):
        first = order[attempt % len(order)]
        wanted = rng.randint(lengths[0], min(lengths[1], len(features)))
        plans[_walk(first, wanted, timbre, chroma, features, rng)] = None
        if len(plans) == count:
            break
    return [SplicePlan(clips) for clips in plans]


def _walk(
    first: int, wanted: int, timbre: np.ndarray, chroma: np.ndarray,
    features: Sequence[ClipFeatures], rng: random.Random,
) -> tuple[int, ...]:  # fmt: skip
    chosen = [first]
    while len(chosen) < wanted:
        here = chosen[-1]
        distance = np.linalg.norm(timbre - timbre[here], axis=1)
        tempo = np.array([tempo_distance(features[here].bpm, f.bpm) for f in features])
        distance = distance + _TEMPO * tempo + _KEY * (1 - chroma @ chroma[here])
        distance[chosen] = np.inf
        nearest = np.argsort(distance, kind="stable")[: min(_NEAREST, len(features) - len(chosen))]
        chosen.append(int(rng.choice(list(nearest))))
    return tuple(chosen)
