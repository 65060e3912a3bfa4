"""Drum parts: a pattern for every style, fills, builds and crashes."""

from __future__ import annotations

from retrieval.data.corpus.compose.metre import Metre
from retrieval.data.corpus.compose.stage import Event, Stage

KICK, RIM, SNARE, CLAP, HAT, OPEN_HAT = 36, 37, 38, 39, 42, 46
LOW_TOM, TOM, HIGH_TOM, CRASH, RIDE, TAMBOURINE, SHAKER = 45, 47, 50, 49, 51, 54, 70

Hit = tuple[float, int, float]


def _hits(text: str, drum: int, share: float = 1.0) -> list[Hit]:
    """A bar of sixteen steps: ``x`` is a stroke, ``o`` a soft one."""
    loud = {"x": share, "o": share * 0.6}
    return [(i / 4, drum, loud[c]) for i, c in enumerate(text.replace(" ", "")) if c in loud]


_EIGHTHS = "x.o.x.o.x.o.x.o."
_RIDE = [
    (t, RIDE, s) for t, s in ((0, 0.7), (1, 0.75), (1.5, 0.5), (2, 0.7), (3, 0.75), (3.5, 0.5))
]
# One bar of four quarter notes; other metres are derived in `_derived`.
_BEATS: dict[str, list[Hit]] = {
    "ballad": [*_hits("x.......x.......", KICK, 0.8), *_hits("....x.......x...", RIM, 0.8),
               *_hits("x...x...x...x...", HAT, 0.45)],
    "rock": [*_hits("x.......x.x.....", KICK), *_hits("....x.......x...", SNARE),
             *_hits(_EIGHTHS, HAT, 0.7)],
    "metal": [*_hits("xxxxxxxxxxxxxxxx", KICK, 0.9), *_hits("....x.......x...", SNARE),
              *_hits("x...x...x...x...", RIDE, 0.8)],
    "house": [*_hits("x...x...x...x...", KICK), *_hits("....x.......x...", CLAP, 0.85),
              *_hits("..x...x...x...x.", OPEN_HAT, 0.7), *_hits("ooooooooooooooo.", SHAKER, 0.5)],
    "four": [*_hits("x...x...x...x...", KICK), *_hits("..x...x...x...x.", HAT, 0.8),
             *_hits("....x.......x..o", CLAP, 0.7)],
    "swing": [*_RIDE, *_hits("....x.......x...", HAT, 0.6), *_hits("o...o...o...o...", KICK, 0.45),
              (2.5, SNARE, 0.35)],
    "brushes": [*_RIDE, *_hits("....x.......x...", SNARE, 0.4)],
    "bossa": [*_hits("x..xx..xx..xx..x", KICK, 0.55), *_hits("x..x..x...x..x..", RIM, 0.75),
              *_hits("xoxoxoxoxoxoxoxo", SHAKER, 0.55)],
    "onedrop": [*_hits("........x.......", KICK), *_hits("........x.......", RIM, 0.9),
                *_hits("x.o.x.o.x.o.x.x.", HAT, 0.6)],
    "funk": [*_hits("x.......o.x.....", KICK), *_hits("....x..o.o..x..o", SNARE),
             *_hits("xoxoxoxoxoxoxoxo", HAT, 0.55)],
    "epic": [*_hits("x.....x.x.......", LOW_TOM), *_hits("....o.......x.oo", TOM, 0.9),
             *_hits("x.......x.......", KICK)],
    "soft": [*_hits("x...o...x...o...", TAMBOURINE, 0.6), *_hits("xoxoxoxoxoxoxoxo", SHAKER, 0.5),
             *_hits("x.......x.......", KICK, 0.5)],
    "shuffle": [*_hits("x.......x.o.....", KICK), *_hits("....x.......x...", SNARE),
                *_hits("x.x.x.x.x.x.x.x.", HAT, 0.6)],
    "march": [*_hits("x...x.oox...x.oo", SNARE, 0.8), *_hits("x...x...x...x...", KICK, 0.85)],
    "boombap": [*_hits("x......x..x.....", KICK), *_hits("....x.......x...", SNARE, 0.95),
                *_hits("x.x.x.xox.x.x.x.", HAT, 0.55)],
    "breakbeat": [*_hits("x.......x.x.....", KICK), *_hits("....x.......x..o", SNARE),
                  *_hits("x.x.x.x.x.x.x.x.", HAT, 0.6)],
}  # fmt: skip
_TIME, _BACK = {"soft": (TAMBOURINE, SHAKER), "march": (KICK, SNARE)}, (KICK, SNARE)


def write_drums(stage: Stage, beat: str) -> list[Event]:
    """The drum part of a section."""
    if beat == "none":
        return []
    pattern = _BEATS[beat] if stage.metre.name == "4/4" else _derived(beat, stage.metre)
    starts = stage.bar_starts()
    events = []
    for number, bar in enumerate(starts):
        last = number == len(starts) - 1
        if last and "fill" in stage.marks:
            events += _fill(stage, bar)
            continue
        if "build" in stage.marks and number >= len(starts) // 2:
            events += _roll(stage, bar, last)
            continue
        events += [stage.event(bar + at, 0.2, drum, share) for at, drum, share in pattern]
    if stage.energy >= 0.6 and beat not in ("soft", "bossa", "brushes", "ballad"):
        events.append(stage.event(stage.start, 1.0, CRASH, 0.95))
    return events


def _derived(beat: str, metre: Metre) -> list[Hit]:
    """A pattern for a metre that is not four quarters: low on the accents, high between them."""
    low, high = _TIME.get(beat, _BACK)
    steady = RIDE if beat in ("swing", "brushes") else HAT
    hits: list[Hit] = []
    for index, start in enumerate(metre.starts()):
        stressed = index in metre.accents
        soft = 0.5 if beat in ("ballad", "brushes", "soft") else 0.9
        hits.append((start, low if stressed else high, soft if stressed else soft * 0.9))
        count = round(metre.pulses[index] / metre.division)
        hits += [(start + i * metre.division, steady, 0.55) for i in range(count)]
    return hits


def _fill(stage: Stage, bar: float) -> list[Event]:
    """Sixteenths down the toms over the second half of a bar; time goes on in the first."""
    half = bar + stage.metre.bar / 2
    events = [stage.event(bar, 0.2, KICK), stage.event(bar + stage.metre.pulse, 0.2, SNARE)]
    count = int((bar + stage.metre.bar - half) * 4)
    drums = (SNARE, HIGH_TOM, TOM, LOW_TOM)
    for i in range(count):
        drum = drums[min(i * len(drums) // count, 3)]
        events.append(stage.event(half + i / 4, 0.2, drum, 0.85 + 0.2 * i / count))
    return events


def _roll(stage: Stage, bar: float, last: bool) -> list[Event]:
    """A snare roll that doubles in its last bar."""
    step = 0.25 if last else 0.5
    count = int(stage.metre.bar / step)
    events = [stage.event(bar + i * step, 0.15, SNARE, 0.8) for i in range(count)]
    return events + [stage.event(bar + at, 0.2, KICK) for at in stage.metre.starts()]
