"""Splits for collections that have none of their own."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from retrieval.data.manifest import Song
from retrieval.errors import ManifestError


def split_songs(
    songs: Sequence[Song], fold: int = 0, folds: int = 3, val: float = 0.2
) -> list[Song]:
    """Give every song a split: one fold is ``test``, a share of the rest is ``val``.

    Songs that share a caption stay together, so that no test text was seen in training. The
    order is by a hash of the texts, so it depends on nothing else.

    Args:
        songs: any songs.
        fold: which of the folds is the test split, from 0.
        folds: how many folds; 0 for no test split at all.
        val: share of the other songs that becomes the validation split.
    """
    if folds and not 0 <= fold < folds:
        raise ManifestError(f"fold: got {fold}, expected 0 to {folds - 1}")
    groups: dict[str, list[Song]] = defaultdict(list)
    for song in songs:
        groups[_text_hash(song)].append(song)
    part: dict[str, str] = {}
    rest: list[str] = []
    placed = 0
    for key in sorted(groups):
        in_test = bool(folds) and placed * folds // max(len(songs), 1) == fold
        placed += len(groups[key])
        if in_test:
            part[key] = "test"
        else:
            rest.append(key)
    rest.sort(key=lambda key: hashlib.sha256(f"val {key}".encode()).hexdigest())
    wanted = val * sum(len(groups[key]) for key in rest)
    taken = 0
    for key in rest:
        part[key] = "val" if taken < wanted else "train"
        taken += len(groups[key])
    return [replace(song, split=part[_text_hash(song)]) for song in songs]


def _text_hash(song: Song) -> str:
    human = [c.text for c in song.captions if c.kind == "human"]
    text = " ".join(human) if human else song.id
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()
