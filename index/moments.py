"""Where in a song each passage of a text was heard."""

from __future__ import annotations

from collections.abc import Sequence
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


@dataclass(frozen=True)
class Stretch:
    """Moments that are about the same stretch of a song, for people.

    Attributes:
        start_s: begin of the first of them in seconds.
        end_s: end of the last.
        moments: of different passages, in the order of these.
    """

    start_s: float
    end_s: float
    moments: tuple[Moment, ...]


def merge_moments(moments: Sequence[Moment]) -> list[Stretch]:
    """Stretches in the order in which they are heard.

    A moment joins the stretch before it where they share at least half of the shorter of the two;
    those that only touch, or overlap a little, stay apart, so that a course is not blurred.

    Args:
        moments: of one song, each passage once.
    """
    stretches: list[Stretch] = []
    for moment in sorted(moments, key=lambda m: (m.start_s, m.end_s, m.passage)):
        last = stretches[-1] if stretches else None
        if last is not None and _shared(last, moment) >= 0.5:
            joined = tuple(sorted((*last.moments, moment), key=lambda m: m.passage))
            end_s = max(last.end_s, moment.end_s)
            stretches[-1] = Stretch(last.start_s, end_s, joined)
        else:
            stretches.append(Stretch(moment.start_s, moment.end_s, (moment,)))
    return stretches


def _shared(stretch: Stretch, moment: Moment) -> float:
    """Length of what is in both, over the shorter length."""
    both = min(stretch.end_s, moment.end_s) - max(stretch.start_s, moment.start_s)
    shorter = min(stretch.end_s - stretch.start_s, moment.end_s - moment.start_s)
    return both / shorter if shorter > 0 else 0.0


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
