"""Hard negatives: a caption with one fact changed, and what was changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from retrieval.data.corpus.facts import SectionFacts, SongFacts, link
from retrieval.data.corpus.instruments import INSTRUMENTS
from retrieval.data.manifest import Caption, Negative

Write = Callable[[SongFacts, str], Caption]
_SLOWER, _FASTER = (0.5, 0.6), (1.6, 1.8)
_MIDDLE_BPM = (90, 112)
_BOUNDARY_SHARE = (0.08, 0.2)


def with_negatives(facts: SongFacts, seed: str, write: Write) -> Caption:
    """A caption with its negatives, each written from facts of which one is false.

    The writer draws its words from the seed alone, so that nothing but the fact changes.

    Args:
        facts: true ones.
        seed: of the caption.
        write: ``long_caption`` or ``timed_caption``.
    """
    true = write(facts, seed)
    found = []
    for change, falsify in _CHANGES.items():
        rng = random.Random(f"{seed} {change}")
        false = falsify(facts, rng)
        text = write(false, seed).text if false else true.text
        if text != true.text:
            found.append(Negative(text, change))
    return replace(true, negatives=tuple(found))


def _swap(facts: SongFacts, rng: random.Random) -> SongFacts | None:
    """Two sections exchanged; their lengths, and so the percentages, stay where they are."""
    sections = list(facts.sections)
    pairs = [
        (i, j)
        for i in range(len(sections))
        for j in range(i + 1, len(sections))
        if set(sections[i].instruments) != set(sections[j].instruments)
    ]
    if not pairs:
        return None
    i, j = rng.choice(pairs)
    sections[i], sections[j] = _moved(sections[j], sections[i]), _moved(sections[i], sections[j])
    return replace(facts, sections=link(sections))


def _moved(section: SectionFacts, place: SectionFacts) -> SectionFacts:
    return replace(section, start_s=place.start_s, end_s=place.end_s)


def _instrument(facts: SongFacts, rng: random.Random) -> SongFacts | None:
    """One instrument replaced, wherever it plays; drum kits are too much alike for a listener."""
    melodic = [n for n in facts.instruments if n in INSTRUMENTS and not INSTRUMENTS[n].drums]
    if not melodic:
        return None
    old = rng.choice(melodic)
    # "strings" and "tremolo strings" would be one fact told more or less exactly.
    taken = [set(name.split()) for name in facts.instruments]
    others = [
        n
        for n, i in INSTRUMENTS.items()
        if not i.drums and not any(words & set(n.split()) for words in taken)
    ]
    alike = [n for n in others if _family(n) == _family(old)]
    return rename(facts, old, rng.choice(alike or others))


def _family(name: str) -> tuple[bool, int]:
    """Sustained or not, and the group of eight General MIDI programs."""
    instrument = INSTRUMENTS[name]
    return instrument.sustained, instrument.program // 8


def rename(facts: SongFacts, old: str, new: str) -> SongFacts:
    """The same facts with another instrument in the place of one."""

    def swap(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new if name == old else name for name in names)

    sections = [
        replace(s, instruments=swap(s.instruments), lead=new if s.lead == old else s.lead)
        for s in facts.sections
    ]
    manners = {new if name == old else name: how for name, how in facts.manners.items()}
    return replace(
        facts, instruments=swap(facts.instruments), sections=link(sections), manners=manners
    )


def _tempo(facts: SongFacts, rng: random.Random) -> SongFacts | None:
    if not facts.bpm:
        return None
    slower = facts.bpm >= _MIDDLE_BPM[1] or (facts.bpm >= _MIDDLE_BPM[0] and rng.random() < 0.5)
    factor = rng.uniform(*(_SLOWER if slower else _FASTER))
    sections = [replace(s, bpm=s.bpm * factor if s.bpm else None) for s in facts.sections]
    return replace(facts, bpm=facts.bpm * factor, sections=tuple(sections))


def _mode(facts: SongFacts, rng: random.Random) -> SongFacts | None:
    if not facts.key or facts.key[1] not in ("major", "minor"):
        return None
    other = {"major": "minor", "minor": "major"}
    sections = [
        replace(s, key=(s.key[0], other.get(s.key[1], s.key[1])) if s.key else None)
        for s in facts.sections
    ]
    key = (facts.key[0], other[facts.key[1]])
    return replace(facts, key=key, sections=tuple(sections))


def _boundary(facts: SongFacts, rng: random.Random) -> SongFacts | None:
    """One inner boundary moved by 8 to 20 % of the song, no section left empty."""
    if len(facts.sections) < 2:
        return None
    sections = list(facts.sections)
    i = rng.randrange(1, len(sections))
    shift = rng.uniform(*_BOUNDARY_SHARE) * facts.duration_s * rng.choice((-1, 1))
    room = 0.02 * facts.duration_s
    low, high = sections[i - 1].start_s + room, sections[i].end_s - room
    at = sections[i].start_s
    moved = min(max(at + shift, low), high)
    if abs(moved - at) < _BOUNDARY_SHARE[0] * facts.duration_s:
        moved = min(max(at - shift, low), high)
    sections[i - 1] = replace(sections[i - 1], end_s=moved)
    sections[i] = replace(sections[i], start_s=moved)
    return replace(facts, sections=tuple(sections))


_CHANGES: dict[str, Callable[[SongFacts, random.Random], SongFacts | None]] = {
    "swap": _swap,
    "instrument": _instrument,
    "tempo": _tempo,
    "mode": _mode,
    "boundary": _boundary,
}
