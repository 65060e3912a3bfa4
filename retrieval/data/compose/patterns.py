"""A plan -> notes: accompaniment, bass, melody and drums for every bar."""

from __future__ import annotations

import random
from dataclasses import dataclass

from retrieval.data.compose.harmony import choose_progression, lay_chords
from retrieval.data.compose.instruments import INSTRUMENTS, Instrument
from retrieval.data.compose.plan import Plan, SectionPlan
from retrieval.data.compose.theory import nearest, scale_pitches, voice_chord

KICK, SNARE, RIM, HAT, OPEN_HAT, TOM, CRASH, RIDE = 36, 38, 37, 42, 46, 45, 49, 51


@dataclass(frozen=True)
class Note:
    """One note: role, start and length in quarter notes, MIDI pitch, velocity 1-127."""

    role: str
    start: float
    length: float
    pitch: int
    velocity: int


# Drum patterns over four quarter notes: (time, drum, relative velocity).
_STEADY = [(i / 2, HAT, 0.55 if i % 2 else 0.7) for i in range(8)]
_SWING = [(t, RIDE, 0.7) for t in (0, 1, 1.67, 2, 3, 3.67)]
BEATS: dict[str, list[tuple[float, int, float]]] = {
    "none": [],
    "soft": [(0, KICK, 0.5), (2, RIM, 0.5), *[(i, HAT, 0.4) for i in range(4)]],
    "rock": [(0, KICK, 1), (1, SNARE, 1), (2, KICK, 0.9), (2.5, KICK, 0.8), (3, SNARE, 1), *_STEADY],
    "metal": [*[(i / 4, KICK, 0.9) for i in range(16)], (1, SNARE, 1), (3, SNARE, 1), *_STEADY],
    "four": [*[(i, KICK, 1) for i in range(4)], *[(i + 0.5, OPEN_HAT, 0.7) for i in range(4)],
             (1, SNARE, 0.7), (3, SNARE, 0.7)],
    "swing": [*_SWING, (1, HAT, 0.6), (3, HAT, 0.6), (0, KICK, 0.4)],
    "shuffle": [*[(i + d, HAT, 0.6) for i in range(4) for d in (0, 0.67)], (0, KICK, 0.9),
                (1, SNARE, 0.9), (2, KICK, 0.9), (3, SNARE, 0.9)],
    "funk": [(0, KICK, 1), (0.75, KICK, 0.8), (1, SNARE, 1), (2.5, KICK, 0.9), (3, SNARE, 1),
             *[(i / 4, HAT, 0.5) for i in range(16)]],
    "epic": [(0, KICK, 1), (0, TOM, 1), (1.5, TOM, 0.7), (2, TOM, 0.9), (3, TOM, 0.8), (3.5, TOM, 0.9)],
    "march": [*[(i / 2, SNARE, 0.8 if i % 2 == 0 else 0.5) for i in range(8)], (3.75, SNARE, 0.5),
              (0, KICK, 1), (2, KICK, 0.9)],
    "bossa": [(0, KICK, 0.7), (1.5, KICK, 0.6), (2, KICK, 0.7), (0, RIM, 0.7), (1.5, RIM, 0.7),
              (3, RIM, 0.7), *_STEADY],
    "onedrop": [(2, KICK, 1), (2, RIM, 0.9), *_STEADY],
}  # fmt: skip


def compose(plan: Plan) -> list[Note]:
    """All notes of a piece, in order of their start."""
    rng = random.Random(f"notes {plan.seed}")
    family = plan.style.families[int(plan.minor)]
    progressions = {slot: choose_progression(rng, family, slot) for slot in "ABC"}
    # One rhythm and contour for each slot, so that a returning section is recognised.
    motifs = {slot: _motif(rng, plan.style.beats) for slot in "ABC"}
    notes: list[Note] = []
    start = 0.0
    for number, section in enumerate(plan.sections):
        bars = _Bars(plan, section, start, rng)
        chords = lay_chords(
            progressions[section.slot], start, section.bars, plan.style.beats, plan.tonic
        )
        for role in section.roles:
            if role == "drums":
                notes += bars.drums(crash=number > 0)
            elif role == "bass":
                notes += bars.bass(chords)
            elif role == "chords":
                notes += bars.chords(chords)
            else:
                notes += bars.lead(chords, motifs[section.slot])
        start += section.bars * plan.style.beats
    return sorted(notes, key=lambda n: (n.start, n.role, n.pitch))


def _motif(rng: random.Random, beats: int) -> list[tuple[float, float, int]]:
    """Two bars of (start, length, step up or down)."""
    motif, at = [], 0.0
    while at < 2 * beats:
        length = min(rng.choice((0.5, 0.5, 1.0, 1.0, 1.5, 2.0)), 2 * beats - at)
        if rng.random() < 0.85:
            motif.append((at, length, rng.choice((-2, -1, -1, 0, 1, 1, 2, 3))))
        at += length
    return motif


class _Bars:
    """Writes the bars of one section."""

    def __init__(self, plan: Plan, section: SectionPlan, start: float, rng: random.Random):
        self.plan, self.section, self.start, self.rng = plan, section, start, rng
        self.beats = plan.style.beats

    def _velocity(self, share: float = 1.0) -> int:
        level = 28 + 92 * self.section.loudness
        return max(1, min(127, round(level * share + self.rng.uniform(-4, 4))))

    def _player(self, role: str) -> Instrument:
        return INSTRUMENTS[self.plan.players[role]]

    def drums(self, crash: bool) -> list[Note]:
        beat = BEATS[self.plan.style.beat]
        notes = []
        for bar in range(self.section.bars):
            at = self.start + bar * self.beats
            for time, drum, share in beat:
                if time < self.beats:
                    notes.append(Note("drums", at + time, 0.2, drum, self._velocity(share)))
        if crash:
            notes.append(Note("drums", self.start, 0.5, CRASH, self._velocity()))
        return notes

    def bass(self, chords: list) -> list[Note]:
        player = self._player("bass")
        notes = []
        for span in chords:
            root = nearest(player.low + 8, [span.chord.root], player.low, player.high)
            fifth = nearest(root + 7, [(span.chord.root + 7) % 12], player.low, player.high)
            length = span.end - span.start
            if self.plan.style.comping in ("pad", "broken"):
                notes.append(Note("bass", span.start, length * 0.95, root, self._velocity(0.9)))
                continue
            step = 0.5 if self.plan.style.comping in ("chug", "eighths", "sixteenths") else 1.0
            for i in range(int(length / step)):
                pitch = fifth if i % 4 == 2 else root
                notes.append(
                    Note("bass", span.start + i * step, step * 0.85, pitch, self._velocity(0.95))
                )
        return notes

    def chords(self, chords: list) -> list[Note]:
        player = self._player("chords")
        centre = max(min(60, player.high - 12), player.low + 12)
        previous = None
        notes = []
        for span in chords:
            voicing = voice_chord(span.chord, previous, centre)
            previous = voicing
            for time, length, which in self._hits(span.end - span.start):
                pitches = voicing if which is None else (voicing[which % len(voicing)],)
                for pitch in pitches:
                    notes.append(
                        Note("chords", span.start + time, length, pitch, self._velocity(0.85))
                    )
        return notes

    def _hits(self, length: float) -> list[tuple[float, float, int | None]]:
        """Times in a chord: (start, length, one voice or all)."""
        style = self.plan.style.comping
        if style == "pad":
            return [(0, length * 0.98, None)]
        if style == "broken":
            order = (0, 1, 2, 1)
            return [(i / 2, 0.6, order[i % 4]) for i in range(int(length * 2))]
        if style == "sixteenths":
            return [(i / 4, 0.2, i) for i in range(int(length * 4))]
        if style == "chug":
            return [(i / 4, 0.2, None) for i in range(int(length * 4)) if i % 8 != 3]
        if style == "eighths":
            return [(i / 2, 0.42, None) for i in range(int(length * 2))]
        if style == "offbeat":
            return [(i + 0.5, 0.3, None) for i in range(int(length))]
        if style == "oompah":
            return [(i, 0.4, None) for i in range(int(length)) if i % self.beats]
        return [(t, 0.45, None) for t in (0, 1.5, 2.67) if t < length]

    def lead(self, chords: list, motif: list[tuple[float, float, int]]) -> list[Note]:
        player = self._player("lead")
        low, high = max(player.low, 58), min(player.high, 88)
        mode = "minor" if self.plan.minor else "major"
        scale = scale_pitches(self.plan.tonic, mode, low, high)
        place = len(scale) // 2
        notes = []
        for phrase in range((self.section.bars + 1) // 2):
            at = self.start + phrase * 2 * self.beats
            for time, length, step in motif:
                start = at + time
                chord = next((c.chord for c in chords if c.start <= start < c.end), None)
                if chord is None:
                    continue
                place = max(1, min(len(scale) - 2, place + step))
                strong = time % self.beats == 0
                pitch = nearest(scale[place], chord.tones, low, high) if strong else scale[place]
                notes.append(Note("lead", start, length * 0.92, pitch, self._velocity(1.05)))
        return notes
