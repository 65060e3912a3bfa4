"""Where in a song each passage of a text was heard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.exact import attention_weights
from retrieval.fusion import peak_clips


@dataclass(frozen=True)
class Moment:
    """A stretch of a song that a passage attends to.

    Attributes:
        start_s: begin in seconds.
        end_s: end in seconds.
        weight: share of the passage's attention that lies in it, 0..1.
        passage: number of the passage in the text.
    """

    start_s: float
    end_s: float
    weight: float
    passage: int


def find_moments(
    passage_emb: np.ndarray, clip_emb: np.ndarray, clip_times: np.ndarray, tau: float
) -> list[Moment]:
    """One moment for each passage: the clips around its attention peak with half of it or more.

    Args:
        passage_emb: ``[passages, dim]``.
        clip_emb: ``[clips, dim]``.
        clip_times: ``[clips, 2]`` in seconds.
        tau: temperature.
    """
    moments = []
    for number, row in enumerate(attention_weights(passage_emb, clip_emb, tau)):
        first, last = peak_clips(row)
        weight = float(row[first : last + 1].sum())
        start_s, end_s = float(clip_times[first, 0]), float(clip_times[last, 1])
        moments.append(Moment(start_s, end_s, weight, number))
    return moments
