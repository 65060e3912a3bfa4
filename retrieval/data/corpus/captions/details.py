"""What a long caption says of a section beside who plays: melody, harmony, manner, register."""

from __future__ import annotations

import random
from collections.abc import Callable

from retrieval.data.corpus.captions import words as w
from retrieval.data.corpus.captions.grammar import join, say, verb
from retrieval.data.corpus.facts import SectionFacts, SongFacts
from retrieval.data.corpus.theory import key_name

_MOST_CHORDS = 8


def tell_details(
    facts: SongFacts, number: int, section: SectionFacts, rng: random.Random
) -> list[str]:
    """What else can be said, the most striking first."""
    before = facts.sections[number - 1] if number else None
    found = [rng.choice(w.MARKS[mark]) for mark in sorted(section.marks) if mark in w.MARKS]
    if before and before.key != section.key and section.key:
        found.append(f"The key changes to {key_name(*section.key)}")
    if before and section.bpm and before.bpm and section.bpm != before.bpm:
        faster = "picks up" if section.bpm > before.bpm else "drops"
        found.append(f"The tempo {faster} to {round(section.bpm)} BPM")
    rest: list[Callable[[], str]] = [
        lambda: _melody(section, number, rng) if facts.knows_lead else "",
        lambda: _harmony(section, rng), lambda: _motion(section, before, rng),
        lambda: _register(section, before, rng), lambda: _manner(facts, section, rng),
    ]  # fmt: skip
    rng.shuffle(rest)
    return found + [text for make in rest if (text := make())]


def _motion(section: SectionFacts, before: SectionFacts | None, rng: random.Random) -> str:
    """How the notes move, where that is new."""
    if not section.motion or (before and before.motion == section.motion):
        return ""
    return rng.choice(w.MOTIONS[section.motion])


def _manner(facts: SongFacts, section: SectionFacts, rng: random.Random) -> str:
    """What one of the accompanying players does."""
    names = [name for name in section.instruments if facts.manners.get(name) in w.MANNERS]
    if not names:
        return ""
    name = rng.choice(names)
    return say(
        rng, "{The <name> <play> <how>|The <name> <keep> up <how>|The <name> <lay> down <how>}",
        name=name, how=rng.choice(w.MANNERS[facts.manners[name]]), play=verb([name], "play"),
        keep=verb([name], "keep"), lay=verb([name], "lay"),
    )  # fmt: skip


def _melody(section: SectionFacts, number: int, rng: random.Random) -> str:
    if not section.lead and not number:
        return ""
    if not section.lead:
        return say(rng, "{There is no lead melody here|No tune is played on top}")
    tune = (
        "{a tune heard earlier|the tune from before|the familiar melody}"
        if section.returns
        else "{the melody|a new tune|the lead line}"
    )
    return say(
        rng, "{The <lead> <play> " + tune + "|The melody is on <lead>}",
        lead=section.lead, play=verb([section.lead], "play"),
    )  # fmt: skip


def _harmony(section: SectionFacts, rng: random.Random) -> str:
    chords = tuple(
        name for i, name in enumerate(section.chords) if not i or section.chords[i - 1] != name
    )
    if not chords:
        return ""
    if len(chords) == 1:
        return say(rng, "{The harmony stays on <c>|It rests on a single chord, <c>}", c=chords[0])
    if len(chords) > _MOST_CHORDS:
        return say(rng, "{The harmony takes a path of <n> chords|It moves through <n> chords}",
                   n=str(len(chords)))  # fmt: skip
    return say(
        rng, "{The chords are <c>|The harmony {circles through|moves through|goes round} <c>"
        "|Underneath, the chords {run|go} <c>}", c=join(chords),
    )  # fmt: skip


def _register(section: SectionFacts, before: SectionFacts | None, rng: random.Random) -> str:
    if not before or not before.pitch or not section.pitch or abs(section.pitch - before.pitch) < 5:
        return ""
    higher = section.pitch > before.pitch
    where = "{higher|in a higher register|further up}" if higher else "{lower|in a lower register}"
    return say(rng, "{The notes lie|Everything sits|The playing is} " + where + " than before")
