"""Songs that are easily taken for one another, side by side in a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def tag_likeness(tags: Sequence[Sequence[str]]) -> np.ndarray:
    """Share of tags that two songs have in common, of all that either has (Jaccard's index).

    Args:
        tags: of each song.

    Returns:
        float32 ``[songs, songs]``, 0..1; 0 with a song that has none.
    """
    number = {tag: i for i, tag in enumerate(sorted({tag for song in tags for tag in song}))}
    has = np.zeros((len(tags), len(number)), np.float32)
    for row, song in zip(has, tags, strict=True):
        row[[number[tag] for tag in song]] = 1
    common = has @ has.T
    count = has.sum(axis=1)
    return common / np.maximum(count[:, None] + count[None, :] - common, 1)


def blocks_of_alike(likeness: np.ndarray, size: int, rng: np.random.Generator) -> list[list[int]]:
    """Divide songs into blocks: a random song and those left that are most like it.

    Args:
        likeness: ``[songs, songs]``.
        size: songs of a block; the last has what remains.
        rng: of the songs that blocks begin with, and of ties.

    Returns:
        Blocks in a random order; each song is in one of them.
    """
    left = np.ones(len(likeness), bool)
    blocks = []
    for first in rng.permutation(len(likeness)).tolist():
        if not left[first]:
            continue
        left[first] = False
        others = rng.permutation(np.flatnonzero(left))
        nearest = others[np.argsort(-likeness[first, others], kind="stable")[: size - 1]]
        left[nearest] = False
        blocks.append([first, *nearest.tolist()])
    # The last blocks are of leftovers, which are like nothing: not all in the last steps.
    return [blocks[i] for i in rng.permutation(len(blocks))]
