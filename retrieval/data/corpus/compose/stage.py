"""What a player sees of the section it plays: bars, chords, loudness (unit: quarter notes)."""

from __future__ import annotations

import random
from dataclasses import dataclass

from retrieval.data.corpus.compose.harmony import ChordSpan
from retrieval.data.corpus.compose.metre import Metre
from retrieval.data.corpus.instruments import Instrument


@dataclass(frozen=True)
class Event:
    """A note before its tempo is applied: start and length in quarter notes."""

    start: float
    length: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Stage:
    """One player in one section.

    Attributes:
        start: of the section.
        bars: how many.
        energy: 0 (bare) to 1 (everything).
        marks: what happens, see :class:`retrieval.data.corpus.piece.PieceSection`.
        take: how often this theme was heard before, which decides how it is varied.
    """

    metre: Metre
    start: float
    bars: int
    energy: float
    marks: frozenset[str]
    chords: tuple[ChordSpan, ...]
    player: Instrument
    rng: random.Random
    scale: tuple[int, str]
    take: int = 0

    @property
    def end(self) -> float:
        """End of the section."""
        return self.start + self.bars * self.metre.bar

    def velocity(self, at: float, share: float = 1.0) -> int:
        """How hard a note is played: louder with energy, rising through a build."""
        level = 40 + 64 * self.energy
        if "build" in self.marks:
            level *= 0.6 + 0.6 * (at - self.start) / (self.end - self.start)
        stressed = 1.06 if (at - self.start) % self.metre.bar < 1e-6 else 1.0
        return max(8, min(124, round(level * share * stressed + self.rng.uniform(-3, 3))))

    def event(self, at: float, length: float, pitch: int, share: float = 1.0) -> Event:
        """A note inside the section; longer ones are cut at its end."""
        return Event(at, min(length, self.end - at), pitch, self.velocity(at, share))

    def bar_starts(self) -> list[float]:
        """Where the bars begin."""
        return [self.start + bar * self.metre.bar for bar in range(self.bars)]

    def steps(self, span: ChordSpan, division: float) -> list[float]:
        """Times inside a chord, counted from the bar so that they fall on the metre's grid."""
        count = round((span.end - span.start) / division)
        return [span.start + i * division for i in range(count)]

    def pulses(self, span: ChordSpan) -> list[tuple[int, float, float]]:
        """Pulses that begin inside a chord: index in the bar, start, length."""
        found = []
        bar = self.start + (span.start - self.start) // self.metre.bar * self.metre.bar
        while bar < span.end - 1e-6:
            for index, offset in enumerate(self.metre.starts()):
                at = bar + offset
                if span.start - 1e-6 <= at < span.end - 1e-6:
                    found.append((index, at, self.metre.pulses[index]))
            bar += self.metre.bar
        return found
