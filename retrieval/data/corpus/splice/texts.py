"""The texts of a spliced song, from its clips' captions and their times."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from retrieval.data.corpus.captions.grammar import join, say, sentence
from retrieval.data.corpus.captions.make import Texts
from retrieval.data.corpus.captions.short import QUERY_WORDS, SHORT_WORDS
from retrieval.data.corpus.captions.words import minutes
from retrieval.data.manifest import Caption, Negative, Section

_BOUNDARY_SHARE = 0.12
_TRIES = 40


@dataclass(frozen=True)
class SplicedSection:
    """A clip's place in a song, its caption and its tags."""

    start_s: float
    end_s: float
    text: str
    tags: tuple[str, ...]


def splice_texts(sections: Sequence[SplicedSection], seed: str) -> Texts:
    """Long, timed and short captions, queries and tags; negatives swap or move sections."""
    rng = random.Random(f"{seed} negatives")
    i, j = sorted(rng.sample(range(len(sections)), 2))
    swapped = list(sections)
    swapped[i], swapped[j] = _at(sections[j], sections[i]), _at(sections[i], sections[j])
    long, timed = _long(sections, seed), _timed(sections)
    long = replace(long, negatives=(Negative(_long(swapped, seed).text, "swap"),))
    moved = _timed(_move(sections, rng))
    timed = replace(
        timed,
        negatives=(Negative(_timed(swapped).text, "swap"), Negative(moved.text, "boundary")),
    )
    tags = tuple(dict.fromkeys(tag for section in sections for tag in section.tags))
    return Texts(
        (long, timed), _draw(sections, seed, "short"), _draw(sections, seed, "query"), tags
    )


def _at(section: SplicedSection, place: SplicedSection) -> SplicedSection:
    return replace(section, start_s=place.start_s, end_s=place.end_s)


def _move(sections: Sequence[SplicedSection], rng: random.Random) -> list[SplicedSection]:
    """One boundary moved by 12 % of the song, or as far as its neighbours allow."""
    moved = list(sections)
    i = rng.randrange(1, len(sections))
    before, after = moved[i - 1], moved[i]
    shift = _BOUNDARY_SHARE * sections[-1].end_s * rng.choice((-1, 1))
    room = 0.8
    low = before.start_s + (1 - room) * (before.end_s - before.start_s)
    high = after.end_s - (1 - room) * (after.end_s - after.start_s)
    at = min(max(after.start_s + shift, low), high)
    moved[i - 1], moved[i] = replace(before, end_s=at), replace(after, start_s=at)
    return moved


def _long(sections: Sequence[SplicedSection], seed: str) -> Caption:
    sentences = [f"A piece in {len(sections)} parts, {minutes(sections[-1].end_s)} minutes long."]
    marked = []
    for number, section in enumerate(sections):
        rng = random.Random(f"{seed} long {number}")
        link = "{It opens like this|First|To begin with}"
        if number:
            link = "{Then|Next|After that|From <at> on|Around <at>}"
        if number == len(sections) - 1:
            link = "{Last|At the end|It ends like this}"
        text = f"{say(rng, link, at=minutes(section.start_s))}: {_body(section)}"
        marked.append(Section(round(section.start_s, 3), round(section.end_s, 3), text))
        sentences.append(text)
    return Caption(" ".join(sentences), "generated", tuple(marked), "long")


def _timed(sections: Sequence[SplicedSection]) -> Caption:
    total = sections[-1].end_s
    text = f"A piece in {len(sections)} parts."
    marked = []
    for section in sections:
        start, end = (round(100 * s / total) for s in (section.start_s, section.end_s))
        text += f" {start}-{end} %: {_body(section)}"
        marked.append(Section(round(section.start_s, 3), round(section.end_s, 3), _body(section)))
    return Caption(text, "generated", tuple(marked), "timed")


def _body(section: SplicedSection) -> str:
    text = re.sub(r"\s+", " ", section.text).strip()
    return text if text[-1:] in ".!?" else sentence(text)


def _draw(sections: Sequence[SplicedSection], seed: str, form: str) -> tuple[Caption, ...]:
    """Texts from tags; a song whose clips have none gets the first words of their captions."""
    low, high = SHORT_WORDS if form == "short" else QUERY_WORDS
    found: dict[str, None] = {}
    for attempt in range(_TRIES):
        rng = random.Random(f"{seed} {form} {attempt}")
        i, j = sorted(rng.sample(range(len(sections)), 2))
        first, second = _words_of(sections[i], rng, high), _words_of(sections[j], rng, high)
        template = (
            "{A piece that goes from <a> to <b>|First <a>, later <b>|Music with <a>, then <b>}"
            if form == "short"
            else "{starts with <a> then <b>|<a> followed by <b>|where <a> turns into <b>}"
        )
        text = say(rng, template, a=first, b=second)
        if low <= len(text.split()) <= high:
            found[sentence(text) if form == "short" else text] = None
    return tuple(Caption(text, "generated", (), form) for text in list(found)[:12])


def _words_of(section: SplicedSection, rng: random.Random, most: int) -> str:
    if section.tags:
        count = min(len(section.tags), rng.choice((2, 3, 4) if most > 15 else (1, 2)))
        return join(rng.sample(section.tags, count))
    clause = re.split(r"[.,;:]", section.text)[0].split()
    return " ".join(clause[: most // 2 - 1]).lower()
