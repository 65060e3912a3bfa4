"""A plan -> what a listener would write about it, in varying words."""

from __future__ import annotations

import random

from retrieval.data.compose.instruments import INSTRUMENTS
from retrieval.data.compose.plan import Plan, SectionPlan
from retrieval.data.manifest import Caption, Section

_LOUD = ("at full force", "loud and dense", "at its loudest", "big and powerful")
_MIDDLE = ("at a medium level", "with moderate energy", "building up", "steadily")
_SOFT = ("quietly", "softly", "gently", "in a hush")
_FIRST = ("It opens with {x}.", "The piece begins with {x}.", "At the start we hear {x}.",
          "An opening of {x}.")  # fmt: skip
_LAST = ("It ends with {x}.", "The ending is {x}.", "At the end, {x}.", "It closes on {x}.")
_NEXT = ("Then comes {x}.", "Next, {x}.", "After that, {x}.", "This gives way to {x}.")
_HALF = ("Halfway through, {x}.", "In the middle, {x}.", "Around the middle comes {x}.")


def tempo_word(bpm: int) -> str:
    """A listener's word for a tempo."""
    return "slow" if bpm < 80 else "medium-tempo" if bpm < 112 else "fast"


def make_captions(plan: Plan) -> list[Caption]:
    """A long caption with a section for every part, and a short one in other words."""
    rng = random.Random(f"words {plan.seed} {[s.kind for s in plan.sections]}")
    intro = _intro(plan, rng)
    sections, sentences = [], [intro]
    for number, (section, span) in enumerate(zip(plan.sections, plan.times(), strict=True)):
        frame = rng.choice(_frames(number, len(plan.sections)))
        text = frame.format(x=_describe(plan, section, rng))
        sections.append(Section(round(span[0], 2), round(span[1], 2), text))
        sentences.append(text)
    long = Caption(" ".join(sentences), "generated", tuple(sections))
    return [long, Caption(_short(plan, rng), "generated")]


def make_tags(plan: Plan) -> tuple[str, ...]:
    """Style, mood, tempo, mode and instruments."""
    mode = "minor" if plan.minor else "major"
    words = (plan.style.name, plan.style.moods[plan.seed % 3], tempo_word(plan.bpm), mode)
    return (*words, *sorted(set(plan.players.values())))


def _frames(number: int, count: int) -> tuple[str, ...]:
    if number == 0:
        return _FIRST
    if number == count - 1:
        return _LAST
    return _HALF if number == count // 2 and count > 2 else _NEXT


def _intro(plan: Plan, rng: random.Random) -> str:
    mood, mode = rng.choice(plan.style.moods), "minor" if plan.minor else "major"
    tempo, name = tempo_word(plan.bpm), plan.style.name
    return rng.choice(
        (
            f"A {tempo}, {mood} {name} in a {mode} key.",
            f"{mood.capitalize()} {name}, {tempo}, about {plan.bpm} beats per minute.",
            f"This is a {mood} {name} at a {tempo} pace.",
        )
    )


def _describe(plan: Plan, section: SectionPlan, rng: random.Random) -> str:
    names = list(dict.fromkeys(plan.players[role] for role in section.roles))
    level = _LOUD if section.loudness > 0.85 else _SOFT if section.loudness < 0.5 else _MIDDLE
    how = rng.choice(level)
    if len(names) == 1:
        article = "" if INSTRUMENTS[names[0]].plural else "the "
        return rng.choice((f"{names[0]} alone, {how}", f"only {article}{names[0]}, played {how}"))
    if section.kind == "full":
        return rng.choice(
            (f"everybody together, {_join(names)}, {how}", f"a climax of {_join(names)}, {how}")
        )
    if "lead" in section.roles:
        rest = [name for name in names if name != plan.players["lead"]]
        return f"a {plan.players['lead']} melody over {_join(rest)}, {how}"
    return rng.choice((f"{_join(names)} without a melody, {how}", f"{_join(names)}, {how}"))


def _short(plan: Plan, rng: random.Random) -> str:
    used = {plan.players[r] for s in plan.sections for r in s.roles}
    names = _join([n for n in plan.players.values() if n in used])
    mood = rng.choice(plan.style.moods)
    return rng.choice(
        (
            f"{plan.style.name.capitalize()} with {names}; {mood}.",
            f"{mood.capitalize()} music for {names}, in the manner of a {plan.style.name}.",
            f"{tempo_word(plan.bpm).capitalize()} {plan.style.name} featuring {names}.",
        )
    )


def _join(words: list[str]) -> str:
    unique = list(dict.fromkeys(words))
    return unique[0] if len(unique) == 1 else ", ".join(unique[:-1]) + " and " + unique[-1]
