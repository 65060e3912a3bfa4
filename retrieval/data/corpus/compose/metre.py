"""Metres: how long a bar is, and where its pulses and accents fall (unit: quarter notes)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metre:
    """One metre.

    Attributes:
        name: as written at the start of a score.
        pulses: lengths of a bar's pulses; a listener taps once for each.
        accents: indices of the pulses that are stressed.
        division: shortest regular step inside a pulse.
    """

    name: str
    pulses: tuple[float, ...]
    accents: tuple[int, ...]
    division: float = 0.5

    @property
    def bar(self) -> float:
        """Length of a bar."""
        return sum(self.pulses)

    @property
    def pulse(self) -> float:
        """Length of the pulse that the tempo counts."""
        return self.pulses[0]

    def starts(self) -> list[float]:
        """Where each pulse of a bar begins."""
        starts, at = [], 0.0
        for length in self.pulses:
            starts.append(at)
            at += length
        return starts


METRES = {
    metre.name: metre
    for metre in (
        Metre("4/4", (1.0,) * 4, (0, 2)),
        Metre("3/4", (1.0,) * 3, (0,)),
        Metre("6/8", (1.5, 1.5), (0,)),
        Metre("12/8", (1.5,) * 4, (0, 2)),
        Metre("5/4", (1.0,) * 5, (0, 3)),
        Metre("7/8", (1.0, 1.0, 1.5), (0, 2)),
    )
}
