"""Annotated chords -> bars on a grid, with their times: what a band can play from."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.data.corpus.compose.harmony import ChordSpan
from retrieval.data.corpus.compose.metre import Metre
from retrieval.data.corpus.piece import TempoMap
from retrieval.data.corpus.theory import Chord


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        start_s, end_s: when it sounds.
        chords: ``(share of the bar at which it begins, chord)``; a chord of None is silence.
        quarters: how much of the metre's bar is played, more or less than a whole one where the
            song leaves its metre.
    """

    start_s: float
    end_s: float
    chords: tuple[tuple[float, Chord | None], ...]
    quarters: float


@dataclass(frozen=True)
class SheetSection:
    """A section of a sheet."""

    function: str
    theme: str
    bars: tuple[Bar, ...]
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sheet:
    """A song as chords and sections.

    Attributes:
        name: unique.
        title: for people.
        metre: of the whole song; bars that leave it say so.
        key: tonic and mode.
        sections: at least two.
    """

    name: str
    title: str
    metre: Metre
    key: tuple[int, str]
    sections: tuple[SheetSection, ...]


@dataclass(frozen=True)
class Grid:
    """A sheet's bars as quarter notes, all of the same length.

    A bar that is shorter than the metre's is played at its own pace and cut: what is written after
    its end is in ``cuts``. A longer one is a whole bar and a cut one.
    """

    tempo: TempoMap
    chords: tuple[tuple[ChordSpan, ...], ...]
    starts: tuple[float, ...]
    bars: tuple[int, ...]
    cuts: tuple[tuple[float, float], ...]

    def is_cut(self, quarter: float) -> bool:
        """Whether an event at this place is not to be played."""
        return any(start - 1e-6 <= quarter < end - 1e-6 for start, end in self.cuts)


def lay_out(sheet: Sheet) -> Grid:
    """Place a sheet's bars on the grid; silent bars keep the chord before them."""
    length = sheet.metre.bar
    points: list[tuple[float, float, float]] = []
    cuts: list[tuple[float, float]] = []
    spans: list[tuple[ChordSpan, ...]] = []
    starts, counts = [], []
    at = 0.0
    chord: Chord = Chord(sheet.key[0], _triad(sheet.key), "tonic")
    for section in sheet.sections:
        starts.append(at)
        first, here = at, []
        for bar in section.bars:
            pace = (bar.end_s - bar.start_s) / bar.quarters
            points.append((at, bar.start_s, pace))
            whole = -(-bar.quarters // length) * length
            for number, (share, named) in enumerate(bar.chords):
                chord = named or chord
                begin = at + share * bar.quarters
                last = number == len(bar.chords) - 1
                end = at + (whole if last else bar.chords[number + 1][0] * bar.quarters)
                here.append(ChordSpan(begin, end, chord))
            if bar.quarters < whole - 1e-6:
                points.append((at + bar.quarters, bar.end_s, 0.0))
                cuts.append((at + bar.quarters, at + whole))
            at += whole
        spans.append(tuple(here))
        counts.append(round((at - first) / length))
    return Grid(TempoMap(tuple(points)), tuple(spans), tuple(starts), tuple(counts), tuple(cuts))


def _triad(key: tuple[int, str]) -> tuple[int, ...]:
    third = 3 if key[1] == "minor" else 4
    return (key[0], (key[0] + third) % 12, (key[0] + 7) % 12)
