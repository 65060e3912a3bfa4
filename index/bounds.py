"""Upper bounds of the fusion score from groups of clips or passages (design section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from index.table import Ragged

#: Neighbouring clips in a group; more makes bounds cheaper and looser.
GROUP_CLIPS = 8
# Room for rounding, far above the error of float64 sums of unit vectors.
_SLACK = 1e-9


@dataclass(frozen=True)
class Balls:
    """Groups of rows as balls: every row of group k lies within ``radius[k]`` of ``centre[k]``.

    Attributes:
        centre: float64 ``[groups, dim]``.
        radius: float64 ``[groups]``.
        begins: int64 ``[owners]``, the first group of each owner.
    """

    centre: np.ndarray
    radius: np.ndarray
    begins: np.ndarray


def make_balls(table: Ragged, group: int = GROUP_CLIPS) -> Balls:
    """Group each owner's rows, ``group`` neighbours at a time; 0 for all of an owner's rows."""
    centres, radii = [np.zeros((0, table.dim))], [np.zeros(0)]
    begins = np.zeros(len(table), np.int64)
    groups = 0
    for first, last, rows in table.blocks():
        edges = table.offsets[first : last + 1] - table.offsets[first]
        starts: list[int] = []
        for i, (start, end) in enumerate(pairwise(edges.tolist()), start=first):
            begins[i] = groups + len(starts)
            starts += range(start, end, group) if group else [start]
        groups += len(starts)
        counts = np.diff([*starts, len(rows)])
        emb = rows.astype(np.float64)
        centre = np.add.reduceat(emb, starts, axis=0) / counts[:, None]
        distance = np.sqrt(((emb - np.repeat(centre, counts, axis=0)) ** 2).sum(axis=1))
        centres.append(centre)
        radii.append(np.maximum.reduceat(distance, starts))
    return Balls(np.concatenate(centres), np.concatenate(radii) + _SLACK, begins)


def song_bounds(passage_emb: np.ndarray, passage_weight: np.ndarray, balls: Balls) -> np.ndarray:
    """``U[j] >= S[j]`` of one query with every song: float64 ``[songs]``.

    ``max_c <q, clip_c> <= max_k (<q, m_k> + |q| r_k)``. Attention lies between the least and the
    greatest similarity, so a passage of negative weight counts with the least one,
    ``min_k (<q, m_k> - |q| r_k)``.
    """
    if not len(balls.begins):
        return np.zeros(0)
    query = passage_emb.astype(np.float64)
    norm = np.sqrt((query * query).sum(axis=1))
    weight = np.asarray(passage_weight, np.float64)
    sign = np.where(weight < 0, -1.0, 1.0)
    reach = balls.centre @ (query * sign[:, None]).T + balls.radius[:, None] * norm[None, :]
    best = np.maximum.reduceat(reach, balls.begins, axis=0)
    return best @ np.abs(weight) + _SLACK * max(1.0, float(np.abs(weight).sum()))


def text_bounds(clip_emb: np.ndarray, balls: Balls) -> np.ndarray:
    """``U[i] >= S[i]`` of every stored text with one song: float64 ``[texts]``.

    The weights of a text sum to 1, so its score is at most the best similarity of any of its
    passages with any clip; passages lie in balls here, and clips are the queries.
    """
    if not len(balls.begins):
        return np.zeros(0)
    clips = clip_emb.astype(np.float64)
    norm = float(np.sqrt((clips * clips).sum(axis=1)).max())
    reach = (balls.centre @ clips.T).max(axis=1) + balls.radius * norm
    # Stored weights are float32, so their sum may be a little above 1.
    best = np.maximum.reduceat(reach, balls.begins)
    return best + np.abs(best) * 1e-5 + _SLACK
