"""What is true of a piece, read from its notes: the only thing that captions may state."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from retrieval.data.corpus.piece import Note, Part, Piece, PieceSection, notes_between

T = TypeVar("T")
# Loudness steps that listeners hear as different, in dB; a level change of 3 dB is plainly heard.
_LOUD_DB, _SOFT_DB, _STEP_DB = -3.0, -8.0, 3.0
_BUSY, _SPARSE = 8.0, 2.5  # notes a second
_SHORT_S, _LONG_S = 0.3, 1.2


@dataclass(frozen=True)
class SectionFacts:
    """One section.

    Attributes:
        start_s, end_s: when.
        function, theme: see :class:`retrieval.data.corpus.piece.PieceSection`.
        instruments: all that have notes in it, the melody first.
        lead: who carries the melody, or empty.
        loudness_db: against the loudest section.
        density: notes a second.
        length_s: mean length of a note.
        pitch: mean MIDI pitch, drums left out; 0 where only drums play.
        key, bpm, chords, marks: see :class:`retrieval.data.corpus.piece.PieceSection`.
        enters, leaves: instruments, against the section before.
        returns: the theme was heard before.
        times: how often the function was met before.
    """

    start_s: float
    end_s: float
    function: str
    theme: str
    instruments: tuple[str, ...]
    lead: str
    loudness_db: float
    density: float
    length_s: float
    pitch: float
    key: tuple[int, str] | None
    bpm: float | None
    chords: tuple[str, ...]
    marks: frozenset[str]
    enters: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    returns: bool = False
    times: int = 0
    change_db: float = 0.0

    @property
    def level(self) -> str:
        """``loud``, ``medium`` or ``soft`` within this song."""
        if self.loudness_db >= _LOUD_DB:
            return "loud"
        return "medium" if self.loudness_db >= _SOFT_DB else "soft"

    @property
    def change(self) -> str:
        """``louder``, ``quieter`` or empty, against the section before."""
        if abs(self.change_db) < _STEP_DB:
            return ""
        return "louder" if self.change_db > 0 else "quieter"

    @property
    def motion(self) -> str:
        """``busy``, ``sparse``, ``short``, ``held`` or empty."""
        if self.density >= _BUSY:
            return "busy"
        if self.density <= _SPARSE:
            return "sparse"
        if self.length_s >= _LONG_S:
            return "held"
        return "short" if self.length_s <= _SHORT_S else ""


@dataclass(frozen=True)
class SongFacts:
    """A whole song.

    Attributes:
        key: the one that holds longest, or None; bpm: likewise.
        steady: one tempo throughout.
        knows_lead: whether it is known who carries the melody.
        instruments: all of them, by how long they play.
        manners: how some of them play, by their names.
        sound: what the recording is like: ``muffled``, ``noisy``, ``roomy``, ``dry``.
    """

    name: str
    style: str
    moods: tuple[str, ...]
    metre: str
    key: tuple[int, str] | None
    bpm: float | None
    steady: bool
    duration_s: float
    instruments: tuple[str, ...]
    sections: tuple[SectionFacts, ...]
    knows_lead: bool
    manners: Mapping[str, str] = field(default_factory=dict)
    sound: tuple[str, ...] = ()


def read_facts(piece: Piece) -> SongFacts:
    """Everything that captions may say about a piece."""
    powers = [_power(piece, section) for section in piece.sections]
    top = max(max(powers), 1e-9)
    sections = [
        _section(piece, section, 10 * math.log10(max(power, 1e-9) / top))
        for section, power in zip(piece.sections, powers, strict=True)
    ]
    return SongFacts(
        piece.name, piece.style, piece.moods, piece.metre,
        _longest([(s.key, s.end_s - s.start_s) for s in piece.sections]),
        _longest([(s.bpm, s.end_s - s.start_s) for s in piece.sections]),
        piece.steady, piece.duration_s, _by_time(piece.parts), link(sections),
        any(part.lead for part in piece.parts),
        {part.instrument: part.manner for part in piece.parts if part.manner},
    )  # fmt: skip


def link(sections: Sequence[SectionFacts]) -> tuple[SectionFacts, ...]:
    """Fill in what depends on the sections before: who enters and leaves, what returns."""
    linked: list[SectionFacts] = []
    themes: set[str] = set()
    functions: Counter[str] = Counter()
    for section in sections:
        before = linked[-1] if linked else None
        here = set(section.instruments)
        gone = tuple(n for n in before.instruments if n not in here) if before else ()
        was = set(before.instruments) if before else set()
        linked.append(
            replace(
                section,
                enters=tuple(n for n in section.instruments if n not in was),
                leaves=gone,
                returns=bool(section.theme) and section.theme in themes,
                times=functions[section.function],
                change_db=section.loudness_db - before.loudness_db if before else 0.0,
            )
        )
        themes.add(section.theme)
        functions[section.function] += 1
    return tuple(linked)


def tempo_word(bpm: float) -> str:
    """A listener's word for a tempo; boundaries follow common metronome markings."""
    for limit, word in ((66, "very slow"), (84, "slow"), (112, "mid-tempo"), (140, "fast")):
        if bpm < limit:
            return word
    return "very fast"


def _section(piece: Piece, section: PieceSection, loudness_db: float) -> SectionFacts:
    playing = [
        (part, notes)
        for part in piece.parts
        if (notes := list(notes_between(part, section.start_s, section.end_s)))
    ]
    playing.sort(key=lambda item: not item[0].lead)
    melodic = [n for part, notes in playing if not part.drums for n in notes]
    every = [n for _, notes in playing for n in notes]
    seconds = section.end_s - section.start_s
    lead = next((part.instrument for part, _ in playing if part.lead), "")
    return SectionFacts(
        section.start_s, section.end_s, section.function, section.theme,
        tuple(dict.fromkeys(part.instrument for part, _ in playing)), lead, loudness_db,
        len(every) / seconds, _mean([n.end_s - n.start_s for n in melodic]),
        _mean([n.pitch for n in melodic]), section.key, section.bpm, section.chords, section.marks,
    )  # fmt: skip


def _power(piece: Piece, section: PieceSection) -> float:
    """Sum of squared velocities, each weighted by how long its note sounds (at most a second)."""
    notes: list[Note] = [
        n for part in piece.parts for n in notes_between(part, section.start_s, section.end_s)
    ]
    power = sum((n.velocity / 127) ** 2 * min(max(n.end_s - n.start_s, 0.1), 1.0) for n in notes)
    return power / (section.end_s - section.start_s)


def _by_time(parts: tuple[Part, ...]) -> tuple[str, ...]:
    lengths: Counter[str] = Counter()
    for part in parts:
        lengths[part.instrument] += len(part.notes) * (3 if part.lead else 1)
    return tuple(name for name, _ in lengths.most_common())


def _longest(values: Sequence[tuple[T | None, float]]) -> T | None:
    lengths: dict[T, float] = {}
    for value, seconds in values:
        if value is not None:
            lengths[value] = lengths.get(value, 0.0) + seconds
    return max(lengths, key=lambda value: lengths[value]) if lengths else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
