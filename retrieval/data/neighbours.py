"""Songs that are easily taken for one another, side by side in a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tag_table(tags: Sequence[Sequence[str]]) -> np.ndarray:
    """Which song has which of all tags: float32 ``[songs, tags]``, 0 or 1."""
    number = {tag: i for i, tag in enumerate(sorted({tag for song in tags for tag in song}))}
    has = np.zeros((len(tags), len(number)), np.float32)
    for row, song in zip(has, tags, strict=True):
        row[[number[tag] for tag in song]] = 1
    return has


def likeness(has: np.ndarray, one: int, others: np.ndarray) -> np.ndarray:
    """Share of tags that a song has in common with others, of all that either has (Jaccard).

    Args:
        has: of :func:`tag_table`.
        one: a song.
        others: int64, songs.

    Returns:
        float32 ``[others]``, 0..1; 0 where neither has any.
    """
    theirs = has[others]
    common = theirs @ has[one]
    return common / np.maximum(theirs.sum(axis=1) + has[one].sum() - common, 1)


def blocks_of_alike(has: np.ndarray, size: int, rng: np.random.Generator) -> list[list[int]]:
    """Divide songs into blocks: a random song and those left that are most like it.

    Args:
        has: of :func:`tag_table`.
        size: songs of a block; the last has what remains.
        rng: of the songs that blocks begin with, and of ties.

    Returns:
        Blocks in a random order; each song is in one of them.
    """
    left = np.ones(len(has), bool)
    blocks = []
    for first in rng.permutation(len(has)).tolist():
        if not left[first]:
            continue
        left[first] = False
        others = rng.permutation(np.flatnonzero(left))
        nearest = others[np.argsort(-likeness(has, first, others), kind="stable")[: size - 1]]
        left[nearest] = False
        blocks.append([first, *nearest.tolist()])
    # The last blocks are of leftovers, which are like nothing: not all in the last steps.
    return [blocks[i] for i in rng.permutation(len(blocks))]
