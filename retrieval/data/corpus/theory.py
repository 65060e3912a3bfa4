"""Keys, chords and voice leading: pure functions on MIDI pitches and pitch classes (C = 0)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

MODES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "phrygian": (0, 1, 3, 5, 7, 8, 10),
    "lydian": (0, 2, 4, 6, 7, 9, 11),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
_SHARP = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "G sharp", "A", "B flat", "B")
_FLAT = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_DEGREES = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
_SYMBOL = re.compile(r"^(b|#)?([ivIV]+)(.*)$")
# Intervals above the root; the key is what follows the Roman numeral.
_COLOURS: dict[str, tuple[int, ...]] = {
    "dim": (0, 3, 6),
    "o7": (0, 3, 6, 9),
    "ø7": (0, 3, 6, 10),
    "sus4": (0, 5, 7),
    "sus2": (0, 2, 7),
    "5": (0, 7),
    "maj7": (0, 4, 7, 11),
    "maj9": (0, 4, 7, 11, 14),
    "add9": (0, 4, 7, 14),
    "7b9": (0, 4, 7, 10, 13),
}


_FLAT_ROOTS = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_SHARP_ROOTS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
_FEW_SHARPS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")
# By the major key with the same signature; the others are written with flats.
_ROOTS_IN = dict.fromkeys((0, 7, 2, 9), _FEW_SHARPS) | dict.fromkeys((4, 11), _SHARP_ROOTS)
_QUALITIES = {
    frozenset((0, 4, 7)): "",
    frozenset((0, 3, 7)): "m",
    frozenset((0, 3, 6)): "dim",
    frozenset((0, 4, 8)): "aug",
    frozenset((0, 3, 6, 9)): "dim7",
    frozenset((0, 3, 6, 10)): "m7b5",
    frozenset((0, 5, 7)): "sus4",
    frozenset((0, 2, 7)): "sus2",
    frozenset((0, 7)): "5",
    frozenset((0, 4, 7, 11)): "maj7",
    frozenset((0, 3, 7, 10)): "m7",
    frozenset((0, 4, 7, 10)): "7",
    frozenset((0, 4, 7, 9)): "6",
    frozenset((0, 3, 7, 9)): "m6",
    frozenset((0, 2, 4, 7)): "add9",
    frozenset((0, 2, 4, 7, 11)): "maj9",
    frozenset((0, 2, 3, 7, 10)): "m9",
    frozenset((0, 2, 4, 7, 10)): "9",
    frozenset((0, 1, 4, 7, 10)): "7b9",
}


@dataclass(frozen=True)
class Chord:
    """A chord as pitch classes; ``tones[0]`` is the root, then third, fifth and colours."""

    root: int
    tones: tuple[int, ...]
    symbol: str


def key_name(tonic: int, mode: str) -> str:
    """The usual spelling of a key, for example ``(3, "major") -> "E flat major"``."""
    names = _SHARP if mode in ("minor", "dorian", "phrygian") else _FLAT
    return f"{names[tonic % 12]} {mode}"


def parse_chord(symbol: str, tonic: int) -> Chord:
    """Turn a Roman numeral into a chord.

    Args:
        symbol: degrees are counted on the major scale, in every mode (``bVII``, ``iv``, ``V7``);
            upper case is a major third, lower case a minor one; colours may follow (``maj7``,
            ``7``, ``9``, ``6``, ``sus4``, ``dim``, ``5``).
        tonic: pitch class of the key, 0-11.

    Raises:
        ValueError: the symbol is not of this form.
    """
    match = _SYMBOL.match(symbol)
    if match is None or match[2].lower() not in _DEGREES:
        raise ValueError(f"chord symbol {symbol!r}: expected a Roman numeral such as 'bVII7'")
    shift = {"b": -1, "#": 1, None: 0}[match[1]]
    root = (tonic + _DEGREES[match[2].lower()] + shift) % 12
    third = 4 if match[2].isupper() else 3
    colour = match[3]
    extra = {"": (), "7": (10,), "9": (10, 14), "6": (9,)}
    if colour in _COLOURS:
        intervals = _COLOURS[colour]
    elif colour in extra:
        intervals = (0, third, 7, *extra[colour])
    else:
        raise ValueError(f"chord symbol {symbol!r}: unknown colour {colour!r}")
    return Chord(root, tuple((root + interval) % 12 for interval in intervals), symbol)


def chord_name(chord: Chord, tonic: int = 0, mode: str = "major") -> str:
    """A chord as musicians write it in a key, for example ``Am7`` or ``F#dim``."""
    intervals = frozenset((tone - chord.root) % 12 for tone in chord.tones)
    quality = _QUALITIES.get(intervals)
    if quality is None:
        quality = "m" if 3 in intervals and 4 not in intervals else ""
    relative = (tonic if mode in ("major", "lydian", "mixolydian") else tonic + 3) % 12
    roots = _ROOTS_IN.get(relative, _FLAT_ROOTS)
    return roots[chord.root] + quality


def scale_pitches(tonic: int, mode: str, low: int, high: int) -> list[int]:
    """All pitches of the scale within ``low..high``, rising."""
    classes = {(tonic + step) % 12 for step in MODES[mode]}
    return [pitch for pitch in range(low, high + 1) if pitch % 12 in classes]


def nearest(pitch: float, classes: Sequence[int], low: int, high: int) -> int:
    """The pitch within ``low..high`` of one of the pitch classes that is nearest to ``pitch``."""
    wanted = set(classes)
    options = [p for p in range(low, high + 1) if p % 12 in wanted]
    return min(options, key=lambda p: (abs(p - pitch), p))


def voice_chord(
    chord: Chord, previous: Sequence[int] | None, centre: int, voices: int = 3
) -> tuple[int, ...]:
    """Choose a close voicing that moves as little as possible from the one before.

    Args:
        chord: with more tones than voices, the fifth and then the root are left out (the bass has
            them).
        previous: the voicing before, or None at the start of a section.
        centre: pitch around which voicings lie.
        voices: how many notes; chords with fewer tones double their root.

    Returns:
        Rising MIDI pitches.
    """
    tones = list(dict.fromkeys(chord.tones))
    while len(tones) > voices:
        tones.remove(tones[2] if len(tones) > 3 and len(chord.tones) > 3 else tones[0])
    best: tuple[float, tuple[int, ...]] | None = None
    ranges = [[p for p in range(centre - 11, centre + 12) if p % 12 == tone] for tone in tones]
    for pitches in itertools.product(*ranges):
        rising = tuple(sorted(pitches))
        spread = rising[-1] - rising[0]
        if spread > 14 or any(b - a < 2 for a, b in itertools.pairwise(rising)):
            continue
        drift = abs(sum(rising) / len(rising) - centre)
        moved = _movement(rising, previous) if previous else 0.0
        cost = moved + 0.4 * drift + 0.05 * spread
        if best is None or (cost, rising) < best:
            best = (cost, rising)
    if best is None:
        return tuple(sorted(nearest(centre, [tone], centre - 12, centre + 12) for tone in tones))
    return best[1]


def _movement(new: Sequence[int], old: Sequence[int]) -> float:
    if len(new) == len(old):
        return float(sum(abs(a - b) for a, b in zip(new, old, strict=True)))
    return float(sum(min(abs(a - b) for b in old) for a in new))
