"""Views of a song for training: a stretch, or its sections in another order, with true texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from retrieval.data.manifest import Caption, Section
from retrieval.errors import ConfigError

#: Labels of a timed caption, ``0-27 %:``.
TIME_LABEL = re.compile(r"\s*\d{1,3}-\d{1,3} %:\s*")
_INSIDE = 0.5  # share of a section that a stretch must hold to be described by it


@dataclass(frozen=True)
class Augment:
    """How often a step sees a song otherwise than whole and in order.

    Attributes:
        span: chance of a random stretch with the part of a caption that is about it.
        shuffle: chance that the sections are put in another order, and the caption with them.
        min_span_s: shortest stretch.
    """

    span: float = 0.0
    shuffle: float = 0.0
    min_span_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.span, self.shuffle) < 0 or self.span + self.shuffle > 1:
            raise ConfigError(
                f"data.augment: span {self.span}, shuffle {self.shuffle}, expected chances that "
                "sum to at most 1"
            )


@dataclass(frozen=True)
class SongView:
    """A song as one step sees it.

    Attributes:
        clips: int64 ``[n]``, rows of the song's clips in the order in which they are heard.
        times_s: float64 ``[n, 2]``, when each is heard in this view.
        duration_s: of the view.
        captions: what is true of it; never empty.
    """

    clips: np.ndarray
    times_s: np.ndarray
    duration_s: float
    captions: tuple[Caption, ...]


def draw_view(
    times_s: np.ndarray,
    duration_s: float,
    captions: tuple[Caption, ...],
    augment: Augment,
    rng: np.random.Generator,
) -> SongView:
    """The whole song, a stretch of it, or its sections in another order.

    Args:
        times_s: ``[clips, 2]``, when the song's clips begin and end.
        duration_s: of the song.
        captions: its captions; where none says what is heard when, the view is the whole song.
        augment: chances.
        rng: source of all randomness.
    """
    whole = SongView(np.arange(len(times_s)), np.asarray(times_s), duration_s, captions)
    chance = rng.random()
    if chance < augment.span:
        return draw_span(whole, augment.min_span_s, rng) or whole
    if chance < augment.span + augment.shuffle:
        return shuffle_sections(whole, rng) or whole
    return whole


def draw_span(view: SongView, min_span_s: float, rng: np.random.Generator) -> SongView | None:
    """A random stretch of whole clips and the parts of the captions that are about it.

    Returns:
        None where the song is too short, or no caption has a section inside the stretch.
    """
    if view.duration_s <= min_span_s:
        return None
    length = rng.uniform(min_span_s, view.duration_s)
    start = rng.uniform(0, view.duration_s - length)
    middle = view.times_s.mean(axis=1)
    inside = np.flatnonzero((middle >= start) & (middle < start + length))
    if not len(inside):
        return None
    start, end = float(view.times_s[inside[0], 0]), float(view.times_s[inside[-1], 1])
    captions = tuple(c for caption in view.captions if (c := cut_caption(caption, start, end)))
    if not captions:
        return None
    times = view.times_s[inside] - start
    return SongView(view.clips[inside], times, end - start, captions)


def cut_caption(caption: Caption, start_s: float, end_s: float) -> Caption | None:
    """The sections of a caption that lie mostly within a stretch, their times counted from it.

    What the caption says of the whole song is left out: it may not be true of a part.

    Returns:
        None where no section lies inside, and for a query: it says where in the whole song.
    """
    if caption.form == "query":
        return None
    kept = []
    for section in caption.sections:
        start, end = max(section.start_s, start_s), min(section.end_s, end_s)
        if end - start >= _INSIDE * (section.end_s - section.start_s):
            kept.append(replace(section, start_s=start - start_s, end_s=end - start_s))
    return _written(caption, kept, end_s - start_s) if kept else None


def stands_alone(caption: Caption) -> bool:
    """Whether the sections of a caption may be read in another order.

    Those of timed captions, and of people's, may. A long caption of the corpus tells each section
    by what was before it.
    """
    return len(caption.sections) > 1 and caption.form in ("", "timed")


def heard_sections(caption: Caption, times_s: np.ndarray) -> list[tuple[Section, np.ndarray]]:
    """Sections that have clips, and the rows of those whose middle lies in them."""
    middle = times_s.mean(axis=1)
    return [
        (section, rows)
        for section in caption.sections
        if len(rows := np.flatnonzero((middle >= section.start_s) & (middle < section.end_s)))
    ]


def one_after_another(times_s: np.ndarray) -> np.ndarray:
    """Times ``[clips, 2]`` of clips of these lengths, heard in this order from 0 on."""
    lengths = times_s[:, 1] - times_s[:, 0]
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, ends], axis=1)


def shuffle_sections(view: SongView, rng: np.random.Generator) -> SongView | None:
    """The sections in another order, clips and caption alike.

    Only captions whose sections can stand alone are kept.

    Returns:
        None where there is no such caption, or it has fewer than two sections with clips.
    """
    alone = [c for c in view.captions if stands_alone(c)]
    if not alone:
        return None
    caption = alone[0]
    stretches = heard_sections(caption, view.times_s)
    if len(stretches) < 2:
        return None
    order = rng.permutation(len(stretches))
    rows = np.concatenate([stretches[i][1] for i in order])
    times = one_after_another(view.times_s[rows])
    sections, at = [], 0
    for i in order:
        section, its = stretches[i]
        start, end = float(times[at, 0]), float(times[at + len(its) - 1, 1])
        sections.append(replace(section, start_s=start, end_s=end))
        at += len(its)
    shuffled = _written(caption, sections, float(times[-1, 1]))
    return SongView(view.clips[rows], times, float(times[-1, 1]), (shuffled,))


def one_form(captions: Sequence[Caption], rng: np.random.Generator) -> list[Caption]:
    """The captions of one form, each form equally likely: a song has one long and many queries."""
    forms = sorted({caption.form for caption in captions})
    form = forms[int(rng.integers(len(forms)))]
    return [caption for caption in captions if caption.form == form]


def _written(caption: Caption, sections: Sequence[Section], duration_s: float) -> Caption:
    """A caption from its sections alone, with the labels that its form has."""
    parts = []
    for section in sections:
        label = ""
        if caption.form == "timed":
            start, end = (round(100 * s / duration_s) for s in (section.start_s, section.end_s))
            label = f"{start}-{end} %: "
        parts.append(label + section.text)
    return replace(caption, text=" ".join(parts), sections=tuple(sections), negatives=())
