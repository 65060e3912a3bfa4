"""A piece of music as notes in seconds: what every source makes and everything else reads."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Note:
    """One note; times in seconds, MIDI pitch 0-127, velocity 1-127."""

    start_s: float
    end_s: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Part:
    """What one player plays.

    Attributes:
        instrument: its name as captions say it.
        program: General MIDI program 0-127 (for drums, the number of the kit).
        notes: in order of their start.
        drums: whether the pitches are those of a drum kit.
        lead: whether the part carries the melody wherever it sounds.
        manner: a key of :data:`retrieval.data.corpus.captions.words.MANNERS`, or empty.
    """

    instrument: str
    program: int
    notes: tuple[Note, ...]
    drums: bool = False
    lead: bool = False
    manner: str = ""


@dataclass(frozen=True)
class PieceSection:
    """A stretch of a piece.

    Attributes:
        start_s, end_s: sections follow one another without a gap.
        function: such as ``verse``; empty where nobody knows.
        theme: sections with the same letter share their material; empty where nobody knows.
        key: tonic as a pitch class and mode, or None.
        bpm: pulses a minute, or None where it is not steady inside the section.
        chords: the chords in order, by name, a repeating pattern given once; may be empty.
        marks: what happens in it: ``build``, ``fill``, ``fade-out``, ``slows down``.
    """

    start_s: float
    end_s: float
    function: str = ""
    theme: str = ""
    key: tuple[int, str] | None = None
    bpm: float | None = None
    chords: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Piece:
    """A whole song.

    Attributes:
        name: unique; the song's id in the manifest.
        group: pieces that share a theme, a MIDI file or a song share this; it decides the split.
        style: as captions say it, or empty.
        moods: words for the whole.
        metre: such as ``3/4``, or empty.
        steady: one tempo from the first to the last bar.
        fade_out_s: length of a fade-out at the end.
        licence: of the notes.
        title: for people.
    """

    name: str
    group: str
    sections: tuple[PieceSection, ...]
    parts: tuple[Part, ...]
    style: str = ""
    moods: tuple[str, ...] = ()
    metre: str = ""
    steady: bool = True
    fade_out_s: float = 0.0
    licence: str = "CC0-1.0"
    title: str = ""
    source: str = "compose"
    meta: dict[str, str | int | float] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """End of the last section."""
        return self.sections[-1].end_s


@dataclass(frozen=True)
class TempoMap:
    """Quarter notes to seconds.

    Attributes:
        points: ``(quarter, seconds, seconds a quarter)`` of every change; the first at quarter 0.
    """

    points: tuple[tuple[float, float, float], ...]

    @classmethod
    def from_changes(cls, changes: Sequence[tuple[float, float]]) -> TempoMap:
        """Build from ``(quarter, quarters a minute)``, in order, the first at quarter 0."""
        points = [(0.0, 0.0, 60.0 / changes[0][1])]
        for quarter, bpm in changes[1:]:
            before, seconds, length = points[-1]
            points.append((quarter, seconds + (quarter - before) * length, 60.0 / bpm))
        return cls(tuple(points))

    def seconds(self, quarter: float) -> float:
        """When a quarter note sounds."""
        index = max(bisect.bisect_right([p[0] for p in self.points], quarter) - 1, 0)
        start, seconds, length = self.points[index]
        return seconds + (quarter - start) * length


def merge_silent(
    sections: Sequence[PieceSection], parts: Sequence[Part]
) -> tuple[PieceSection, ...]:
    """Sections in which no note begins go to the one before, or to the first that sounds."""
    kept: list[PieceSection] = []
    silent_from: float | None = None
    for section in sections:
        sounds = any(any(notes_between(p, section.start_s, section.end_s)) for p in parts)
        if sounds:
            start = section.start_s if silent_from is None else silent_from
            kept.append(replace(section, start_s=start))
            silent_from = None
        elif kept:
            kept[-1] = replace(kept[-1], end_s=section.end_s)
        elif silent_from is None:
            silent_from = section.start_s
    return tuple(kept)


def notes_between(part: Part, start_s: float, end_s: float) -> Iterator[Note]:
    """Notes of a part that begin within ``start_s <= t < end_s``."""
    first = bisect.bisect_left(part.notes, start_s - 1e-6, key=lambda note: note.start_s)
    for note in part.notes[first:]:
        if note.start_s >= end_s - 1e-6:
            return
        yield note
