"""Melodies: a theme's motifs, which return, are moved with the harmony, and vary."""

from __future__ import annotations

import random
from dataclasses import dataclass

from retrieval.data.corpus.compose.harmony import ChordSpan
from retrieval.data.corpus.compose.metre import Metre
from retrieval.data.corpus.compose.stage import Event, Stage
from retrieval.data.corpus.theory import nearest, scale_pitches

# Rhythms of one or two pulses, in shares of a pulse; a negative share is a rest.
_CELLS: dict[float, tuple[tuple[float, ...], ...]] = {
    1.0: ((1,), (1,), (0.5, 0.5), (0.5, 0.5), (1.5, 0.5), (2,), (0.75, 0.25), (-0.5, 0.5), (-1,)),
    1.5: ((1.5,), (1, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (1, 0.5), (3,)),
}
# Which motif each bar of an eight-bar phrase uses; "c" is a cadence, "h" stops half-way.
_PHRASES = ("abahabac", "aabhaabc", "abcbabac", "aahbaabc", "abachbac")
_LEAP = 4


@dataclass(frozen=True)
class Motif:
    """One bar: ``(offset, length, step)`` of every note; steps move along the scale."""

    notes: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Theme:
    """The material of a theme letter."""

    motifs: dict[str, Motif]
    phrase: str
    arch: tuple[int, ...]


def make_theme(rng: random.Random, metre: Metre, busy: float = 0.5) -> Theme:
    """Draw the motifs, the phrase that strings them and the arch of its bars (scale steps)."""
    motifs = {name: _motif(rng, metre, busy) for name in "ab"}
    last = metre.bar * 0.75
    motifs["c"] = Motif(((0.0, last, 0),))
    first = motifs["a"].notes[0]
    motifs["h"] = Motif((first, (first[0] + first[1], metre.bar - first[0] - first[1], -1)))
    arch = tuple(round(3.5 * (1 - abs(i - 4.5) / 4.5)) + rng.randint(-1, 1) for i in range(8))
    return Theme(motifs, rng.choice(_PHRASES), arch)


def _motif(rng: random.Random, metre: Metre, busy: float) -> Motif:
    notes: list[tuple[float, float, int]] = []
    at = 0.0
    while at < metre.bar - 1e-6:
        index = max(i for i, start in enumerate(metre.starts()) if start <= at + 1e-6)
        pulse = metre.pulses[index]
        cells = [c for c in _CELLS[pulse] if sum(map(abs, c)) <= metre.bar - at + 1e-6]
        cells = cells or [(metre.bar - at,)]
        weights = [len(c) ** (2 * busy) for c in cells]
        for share in rng.choices(cells, weights)[0]:
            if share > 0 or not notes:  # a motif never begins with a rest
                step = rng.choices((-2, -1, 0, 1, 2, 3, -3), (2, 6, 2, 6, 2, 1, 1))[0]
                notes.append((at, abs(share), step))
            at += abs(share)
    return Motif(tuple(notes))


def write_melody(stage: Stage, theme: Theme) -> list[Event]:
    """The theme over the section's chords; later takes are ornamented or lie higher."""
    low, high = _singing_range(stage)
    tonic, mode = stage.scale
    scale = scale_pitches(tonic, mode, low, high)
    centre = len(scale) // 3 + (2 if stage.energy > 0.85 else 0)
    events: list[Event] = []
    for bar, start in enumerate(stage.bar_starts()):
        motif = theme.motifs[_letter(theme, bar, stage.bars)]
        place = max(1, min(len(scale) - 2, centre + theme.arch[bar % 8]))
        if stage.take and bar % 4 == 3 - stage.take % 2:
            motif = _ornament(motif)
        for number, (offset, length, step) in enumerate(motif.notes):
            at = start + offset
            place = max(0, min(len(scale) - 1, place + (step if number else 0)))
            chord = _chord_at(stage, at)
            pitch = scale[place]
            if _is_strong(stage.metre, offset) or length >= 1.5:
                pitch = nearest(scale[place], chord.chord.tones, low, high)
            pitch = _no_leap(pitch, events, chord, low, high)
            events.append(stage.event(at, length * 0.94, pitch, 1.08))
    return events


def write_counter(stage: Stage) -> list[Event]:
    """A second voice under a melody: guide tones that move by step, or an arpeggio."""
    low, high = _singing_range(stage)
    if not stage.player.sustained:
        return _arpeggio(stage, low, high)
    events: list[Event] = []
    pitch = (low + high) // 2
    for span in stage.chords:
        guide = span.chord.tones[1:3] or span.chord.tones
        pitch = nearest(pitch, guide, low, high)
        half = (span.end - span.start) / 2
        events.append(stage.event(span.start, half * 0.98, pitch, 0.85))
        other = nearest(pitch + 2, span.chord.tones, low, high)
        events.append(stage.event(span.start + half, half * 0.96, other, 0.8))
    return events


def _arpeggio(stage: Stage, low: int, high: int) -> list[Event]:
    events = []
    for span in stage.chords:
        tones = [p for p in range(low, high + 1) if p % 12 in span.chord.tones]
        middle = len(tones) // 3
        run = tones[middle : middle + 4]
        for i, at in enumerate(stage.steps(span, stage.metre.division)):
            pitch = run[(0, 1, 2, 3, 2, 1)[i % 6] % len(run)]
            events.append(stage.event(at, stage.metre.division * 0.9, pitch, 0.75))
    return events


def _singing_range(stage: Stage) -> tuple[int, int]:
    """At most an octave and a half in the middle of what the player can reach."""
    low, high = max(stage.player.low, 55), min(stage.player.high, 91)
    if high - low < 12:
        low, high = stage.player.low, stage.player.high
    middle = (low + high) // 2
    return max(low, middle - 11), min(high, middle + 11)


def _letter(theme: Theme, bar: int, bars: int) -> str:
    return "c" if bar == bars - 1 else theme.phrase[bar % 8]


def _chord_at(stage: Stage, at: float) -> ChordSpan:
    for span in stage.chords:
        if span.start - 1e-6 <= at < span.end - 1e-6:
            return span
    return stage.chords[-1]


def _is_strong(metre: Metre, offset: float) -> bool:
    return any(abs(metre.starts()[i] - offset) < 1e-6 for i in metre.accents)


def _ornament(motif: Motif) -> Motif:
    """Split the longest note in two, with a step between."""
    longest = max(range(len(motif.notes)), key=lambda i: motif.notes[i][1])
    offset, length, step = motif.notes[longest]
    if length < 0.5:
        return motif
    halves = ((offset, length / 2, step), (offset + length / 2, length / 2, 1))
    return Motif(motif.notes[:longest] + halves + motif.notes[longest + 1 :])


def _no_leap(pitch: int, events: list[Event], chord: ChordSpan, low: int, high: int) -> int:
    """Pull a note that is more than a sixth away back to a chord tone nearby."""
    if not events or abs(pitch - events[-1].pitch) <= 2 * _LEAP + 1:
        return pitch
    direction = 1 if pitch > events[-1].pitch else -1
    return nearest(events[-1].pitch + _LEAP * direction, chord.chord.tones, low, high)
