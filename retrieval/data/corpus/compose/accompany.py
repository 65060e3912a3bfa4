"""Bass lines, chord patterns and pads."""

from __future__ import annotations

from collections.abc import Callable

from retrieval.data.corpus.compose.harmony import ChordSpan
from retrieval.data.corpus.compose.stage import Event, Stage
from retrieval.data.corpus.theory import nearest, voice_chord

# (offset, length, step of the chord: 0 root, 1 fifth, 2 octave, 3 third) over four quarters.
_BASS_BARS: dict[str, tuple[tuple[float, float, int], ...]] = {
    "bossa": ((0, 1.4, 0), (1.5, 0.5, 1), (2, 1.4, 1), (3.5, 0.5, 0)),
    "dub": ((0, 0.9, 0), (1.5, 0.45, 0), (2.5, 0.45, 1), (3, 0.9, 3)),
    "funk": ((0, 0.4, 0), (0.75, 0.2, 0), (1.5, 0.4, 2), (2.25, 0.2, 1), (2.5, 0.4, 0),
             (3.5, 0.4, 1)),
    "offbeat": ((0.5, 0.4, 0), (1.5, 0.4, 0), (2.5, 0.4, 0), (3.5, 0.4, 2)),
    "pulse": tuple((i / 4, 0.2, 0) for i in range(16) if i % 4),
    "gallop": tuple(
        (i + d, w, 0) for i in range(4) for d, w in ((0, 0.45), (0.5, 0.2), (0.75, 0.2))
    ),
    "octaves": tuple((i / 2, 0.4, 2 * (i % 2)) for i in range(8)),
}  # fmt: skip


def write_bass(stage: Stage, line: str) -> list[Event]:
    """The bass of a section."""
    events: list[Event] = []
    place = stage.player.low + 8
    for index, span in enumerate(stage.chords):
        root = nearest(place, [span.chord.root], stage.player.low, stage.player.high)
        place = round((root + stage.player.low + 8) / 2)
        following = stage.chords[(index + 1) % len(stage.chords)]
        events += _bass_span(stage, line, span, root, following)
    return events


def _bass_span(
    stage: Stage, line: str, span: ChordSpan, root: int, following: ChordSpan
) -> list[Event]:
    tones = _bass_tones(stage, span, root)
    if line in _BASS_BARS and stage.metre.name == "4/4":
        inside = [hit for hit in _BASS_BARS[line] if hit[0] < span.end - span.start - 1e-6]
        return [stage.event(span.start + t, n, tones[step], 0.95) for t, n, step in inside]
    if line == "walking":
        return _walking(stage, span, tones, following)
    if line == "held":
        return [stage.event(span.start, span.end - span.start - 0.05, root, 0.85)]
    if line in ("two", "continuo"):
        return [
            stage.event(at, length * 0.9, tones[int(index not in stage.metre.accents)], 0.9)
            for index, at, length in stage.pulses(span)
            if line == "continuo" or index in stage.metre.accents or stage.metre.name == "4/4"
        ]  # fmt: skip
    steps = stage.steps(span, stage.metre.division)
    return [stage.event(at, stage.metre.division * 0.85, root, 0.9) for at in steps]


def _bass_tones(stage: Stage, span: ChordSpan, root: int) -> tuple[int, int, int, int]:
    low, high = stage.player.low, stage.player.high
    fifth = nearest(root + 6, [span.chord.tones[-1 if len(span.chord.tones) < 3 else 2]], low, high)
    third = nearest(root + 4, [span.chord.tones[1]], low, high)
    return root, fifth, root + 12 if root + 12 <= high else root, third


def _walking(
    stage: Stage, span: ChordSpan, tones: tuple[int, ...], following: ChordSpan
) -> list[Event]:
    """One note a pulse, chord tones, the last one a semitone beside the next root."""
    pulses = stage.pulses(span)
    low, high = stage.player.low, stage.player.high
    target = nearest(tones[0], [following.chord.root], low, high)
    pitches = [tones[i] for i in (0, 3, 1, 3)]
    events = []
    for number, (_, at, length) in enumerate(pulses):
        pitch = pitches[number % 4]
        if number == len(pulses) - 1 and number:
            pitch = target + (1 if target < pitch else -1)
        events.append(stage.event(at, length * 0.92, pitch, 0.9))
    return events


def write_chords(stage: Stage, comping: str) -> list[Event]:
    """The chords of a section in the style's pattern."""
    centre = max(min(60, stage.player.high - 12), stage.player.low + 12)
    if comping == "chug":
        centre = stage.player.low + 14
    pattern = _COMPING[comping]
    previous: tuple[int, ...] | None = None
    events: list[Event] = []
    for span in stage.chords:
        voicing = voice_chord(span.chord, previous, centre, 4 if comping == "strum" else 3)
        previous = voicing
        events += pattern(stage, span, voicing)
    return events


def write_pad(stage: Stage) -> list[Event]:
    """Held chords, as smooth as possible."""
    centre = max(min(64, stage.player.high - 12), stage.player.low + 12)
    previous: tuple[int, ...] | None = None
    events: list[Event] = []
    for span in stage.chords:
        previous = voice_chord(span.chord, previous, centre)
        events += _block(stage, span.start, span.end - span.start - 0.02, previous, 0.7)
    return events


Voicing = tuple[int, ...]
Pattern = Callable[[Stage, ChordSpan, Voicing], list[Event]]


def _block(
    stage: Stage, at: float, length: float, voicing: Voicing, share: float = 0.8
) -> list[Event]:
    return [stage.event(at, length, pitch, share) for pitch in voicing]


def _held(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    return _block(stage, span.start, span.end - span.start - 0.05, voicing)


def _broken(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    order = (0, 1, 2, 1)
    return [
        stage.event(at, 0.9, voicing[order[i % 4] % len(voicing)], 0.8)
        for i, at in enumerate(stage.steps(span, stage.metre.division))
    ]


def _ostinato(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    order = (0, 2, 1, 2, 0, 2, 1, 1)
    return [
        stage.event(at, 0.28, voicing[order[i % 8] % len(voicing)], 0.8)
        for i, at in enumerate(stage.steps(span, stage.metre.division / 2))
    ]


def _sixteenths(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    steps = stage.steps(span, 0.25)
    mask = "x.xx.xx.x.xx.x.x" if stage.energy < 0.8 else "xxxx.xxxxx.xxxxx"
    return [
        stage.event(at, 0.2, pitch, 0.75)
        for i, at in enumerate(steps)
        if mask[i % 16] == "x"
        for pitch in voicing[-2:]
    ]


def _chug(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    steps = stage.steps(span, 0.25)
    power = (voicing[0], voicing[0] + 7)
    return [
        stage.event(at, 0.2 if i % 8 else 0.45, pitch, 0.9 if i % 4 == 0 else 0.75)
        for i, at in enumerate(steps)
        if i % 8 not in (3, 1)
        for pitch in power
    ]


def _eighths(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    events = []
    for at in stage.steps(span, stage.metre.division):
        events += _block(stage, at, stage.metre.division * 0.85, voicing, 0.75)
    return events


def _offbeat(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    events = []
    for _, at, length in stage.pulses(span):
        events += _block(stage, at + length / 2, 0.3, voicing)
    return events


def _stabs(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    hits = [t for t in (0, 0.75, 1.5, 2.5, 3.25) if t < span.end - span.start - 1e-6]
    return [e for t in hits for e in _block(stage, span.start + t, 0.35, voicing)]


def _comp(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    options = ((0, 1.5), (0, 1.5, 3), (0.5, 2), (0, 2.5), (1, 2.5))
    hits = [t for t in stage.rng.choice(options) if t < span.end - span.start - 0.1]
    return [e for t in hits or [0] for e in _block(stage, span.start + t, 0.55, voicing, 0.75)]


def _bossa(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    hits = [t for t in (0, 1, 1.5, 2.5, 3.5) if t < span.end - span.start - 1e-6]
    return [e for t in hits for e in _block(stage, span.start + t, 0.45, voicing, 0.7)]


def _oompah(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    pulses = [p for p in stage.pulses(span) if p[0] not in stage.metre.accents]
    return [e for _, at, _ in pulses for e in _block(stage, at, 0.4, voicing)]


def _strum(stage: Stage, span: ChordSpan, voicing: Voicing) -> list[Event]:
    """Down on the pulses, up between some of them, strings one after another."""
    events = []
    for index, at, length in stage.pulses(span):
        for i, pitch in enumerate(voicing):
            events.append(stage.event(at + i * 0.02, length * 0.9, pitch, 0.8))
        if index % 2:
            up = at + length / 2
            events += [stage.event(up, 0.35, pitch, 0.6) for pitch in voicing[-2:]]
    return events


_COMPING: dict[str, Pattern] = {
    "pad": _held,
    "broken": _broken,
    "ostinato": _ostinato,
    "sixteenths": _sixteenths,
    "chug": _chug,
    "eighths": _eighths,
    "offbeat": _offbeat,
    "stabs": _stabs,
    "comp": _comp,
    "bossa": _bossa,
    "oompah": _oompah,
    "strum": _strum,
}
