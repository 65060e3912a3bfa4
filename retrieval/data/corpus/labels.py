"""What is true when, as labels for training: the facts of the captions without their words."""

from __future__ import annotations

import math
from collections.abc import Iterator

from retrieval.data.corpus.facts import SectionFacts, SongFacts
from retrieval.data.corpus.theory import key_name
from retrieval.data.manifest import Label

# Tempo classes are 9 % apart (an eighth of an octave): finer than the words for tempo, and coarse
# enough that a class is met often.
_TEMPO_STEPS = 8


def make_labels(facts: SongFacts) -> tuple[Label, ...]:
    """Labels of kind instrument, key, tempo, level, function, style and mood.

    The first five are by section, one after another; a section after one with the same label
    prolongs it. Unknown facts give no label.
    """
    found: list[Label] = []
    open_: dict[tuple[str, str], int] = {}
    for section in facts.sections:
        still: dict[tuple[str, str], int] = {}
        for kind, name in _of_section(section):
            at = open_.get((kind, name))
            start_s = round(section.start_s, 3) if at is None else found[at].start_s
            label = Label(kind, name, start_s, round(section.end_s, 3))
            if at is None:
                at = len(found)
                found.append(label)
            else:
                found[at] = label
            still[kind, name] = at
        open_ = still
    whole = [("style", facts.style)] * bool(facts.style) + [("mood", m) for m in facts.moods]
    end_s = round(facts.duration_s, 3)
    return tuple(found) + tuple(Label(kind, name, 0.0, end_s) for kind, name in whole)


def tempo_class(bpm: float) -> str:
    """The tempo of the nearest class, in beats a minute."""
    return str(round(60 * 2 ** (round(_TEMPO_STEPS * math.log2(bpm / 60)) / _TEMPO_STEPS)))


def _of_section(section: SectionFacts) -> Iterator[tuple[str, str]]:
    for name in section.instruments:
        yield "instrument", name
    if section.key:
        yield "key", key_name(*section.key)
    if section.bpm:
        yield "tempo", tempo_class(section.bpm)
    yield "level", section.level
    if section.function:
        yield "function", section.function
