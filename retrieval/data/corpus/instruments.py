"""The instruments by the names that captions use, with their General MIDI programs."""

from __future__ import annotations

from dataclasses import dataclass

DRUM_CHANNEL = 9


@dataclass(frozen=True)
class Instrument:
    """One instrument: program 0-127 (a kit number for drums), playable range, grammar."""

    name: str
    program: int
    low: int = 36
    high: int = 96
    sustained: bool = False
    plural: bool = False
    drums: bool = False
    gain: float = 1.0


def _table(*rows: Instrument) -> dict[str, Instrument]:
    return {row.name: row for row in rows}


INSTRUMENTS = _table(
    Instrument("piano", 0, 28, 100),
    Instrument("electric piano", 4, 36, 92),
    Instrument("harpsichord", 6, 36, 86),
    Instrument("celesta", 8, 60, 103),
    Instrument("glockenspiel", 9, 72, 103, gain=0.8),
    Instrument("music box", 10, 60, 98),
    Instrument("vibraphone", 11, 53, 89),
    Instrument("marimba", 12, 45, 91),
    Instrument("church organ", 19, 36, 91, sustained=True),
    Instrument("organ", 16, 36, 91, sustained=True),
    Instrument("accordion", 21, 48, 89, sustained=True),
    Instrument("harmonica", 22, 60, 91, sustained=True),
    Instrument("nylon-string guitar", 24, 40, 83),
    Instrument("acoustic guitar", 25, 40, 83),
    Instrument("jazz guitar", 26, 40, 86),
    Instrument("clean electric guitar", 27, 40, 86),
    Instrument("muted guitar", 28, 40, 79, gain=1.1),
    Instrument("overdriven guitar", 29, 38, 88, sustained=True),
    Instrument("distorted guitar", 30, 36, 88, sustained=True, gain=0.9),
    Instrument("double bass", 32, 28, 55, gain=1.2),
    Instrument("electric bass", 33, 28, 55, gain=1.1),
    Instrument("picked bass", 34, 28, 55, gain=1.1),
    Instrument("fretless bass", 35, 28, 55, gain=1.1),
    Instrument("slap bass", 36, 28, 58),
    Instrument("synth bass", 38, 26, 55),
    Instrument("violin", 40, 55, 98, sustained=True),
    Instrument("viola", 41, 48, 84, sustained=True),
    Instrument("cello", 42, 36, 74, sustained=True),
    Instrument("tremolo strings", 44, 40, 91, sustained=True, plural=True),
    Instrument("pizzicato strings", 45, 40, 91, plural=True, gain=1.1),
    Instrument("harp", 46, 36, 98),
    Instrument("timpani", 47, 36, 57),
    Instrument("strings", 48, 36, 96, sustained=True, plural=True),
    Instrument("low strings", 48, 28, 60, sustained=True, plural=True),
    Instrument("synth strings", 50, 36, 96, sustained=True, plural=True),
    Instrument("choir", 52, 48, 81, sustained=True),
    Instrument("trumpet", 56, 55, 86, sustained=True),
    Instrument("trombone", 57, 40, 72, sustained=True),
    Instrument("tuba", 58, 28, 55, sustained=True),
    Instrument("muted trumpet", 59, 55, 84, sustained=True),
    Instrument("French horns", 60, 41, 77, sustained=True, plural=True),
    Instrument("brass section", 61, 43, 84, sustained=True),
    Instrument("alto saxophone", 65, 49, 82, sustained=True),
    Instrument("tenor saxophone", 66, 44, 76, sustained=True),
    Instrument("oboe", 68, 58, 88, sustained=True),
    Instrument("bassoon", 70, 34, 70, sustained=True),
    Instrument("clarinet", 71, 50, 90, sustained=True),
    Instrument("piccolo", 72, 74, 102, sustained=True, gain=0.8),
    Instrument("flute", 73, 60, 96, sustained=True),
    Instrument("recorder", 74, 60, 94, sustained=True),
    Instrument("pan flute", 75, 60, 92, sustained=True),
    Instrument("square-wave lead", 80, 48, 96, sustained=True, gain=0.7),
    Instrument("square-wave arpeggio", 80, 48, 96, gain=0.6),
    Instrument("square-wave bass", 80, 28, 60, sustained=True, gain=0.8),
    Instrument("sawtooth lead", 81, 48, 96, sustained=True, gain=0.75),
    Instrument("synth pluck", 84, 48, 96, gain=0.7),
    Instrument("bell-like pad", 88, 40, 91, sustained=True),
    Instrument("warm synth pad", 89, 36, 91, sustained=True),
    Instrument("synth stabs", 62, 43, 84, plural=True, gain=0.85),
    Instrument("choir pad", 91, 40, 84, sustained=True),
    Instrument("banjo", 105, 48, 86),
    Instrument("fiddle", 110, 55, 93, sustained=True),
    Instrument("steel drum", 114, 52, 90),
    Instrument("drums", 0, drums=True, plural=True),
    Instrument("heavy drums", 16, drums=True, plural=True),
    Instrument("drum machine", 25, drums=True),
    Instrument("electronic drums", 24, drums=True, plural=True),
    Instrument("jazz drums", 32, drums=True, plural=True),
    Instrument("brushed drums", 40, drums=True, plural=True),
    Instrument("marching drums", 48, drums=True, plural=True),
    Instrument("orchestral percussion", 48, drums=True),
    Instrument("light percussion", 0, drums=True),
)
