"""Chord labels in Harte's syntax (ISMIR 2005), such as ``Bb:min7/b3``, to pitch classes."""

from __future__ import annotations

import re

from retrieval.data.corpus.theory import Chord
from retrieval.errors import MidiError

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Semitones of the degrees of the major scale, up to the thirteenth.
_DEGREES = {1: 0, 2: 2, 3: 4, 4: 5, 5: 7, 6: 9, 7: 11, 8: 12, 9: 14, 10: 16, 11: 17, 12: 19, 13: 21}
_SHORTHANDS: dict[str, tuple[int, ...]] = {
    "": (0, 4, 7),
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "7": (0, 4, 7, 10),
    "dim7": (0, 3, 6, 9),
    "hdim7": (0, 3, 6, 10),
    "minmaj7": (0, 3, 7, 11),
    "maj6": (0, 4, 7, 9),
    "min6": (0, 3, 7, 9),
    "9": (0, 4, 7, 10, 14),
    "maj9": (0, 4, 7, 11, 14),
    "min9": (0, 3, 7, 10, 14),
    "11": (0, 7, 10, 14, 17),
    "maj11": (0, 4, 7, 11, 17),
    "min11": (0, 3, 7, 10, 17),
    "13": (0, 4, 10, 14, 21),
    "maj13": (0, 4, 11, 14, 21),
    "min13": (0, 3, 10, 14, 21),
    "sus2": (0, 2, 7),
    "sus4": (0, 5, 7),
    "5": (0, 7),
    "1": (0, 7),  # a bare root is played with its fifth
}
_SILENT = {"N", "X", "*", "&pause"}
_LABEL = re.compile(r"^([A-G])([#b]*)(?::([a-z0-9]*)(?:\(([^)]*)\))?)?(?:/([#b]*\d+))?$")


def pitch_class(name: str) -> int:
    """``Bb`` -> 10.

    Raises:
        MidiError: not the name of a note.
    """
    if not name or name[0] not in _LETTERS or set(name[1:]) - {"#", "b"}:
        raise MidiError(f"note {name!r}: expected a letter A-G with sharps or flats")
    return (_LETTERS[name[0]] + name.count("#") - name[1:].count("b")) % 12


def parse_label(label: str) -> Chord | None:
    """A chord with the bass left out; None for silence.

    Raises:
        MidiError: not in Harte's syntax.
    """
    if label in _SILENT:
        return None
    match = _LABEL.match(label)
    if match is None or (match[3] or "") not in _SHORTHANDS:
        raise MidiError(f"chord {label!r}: expected Harte's syntax, such as Bb:min7")
    root = pitch_class(match[1] + match[2])
    intervals = list(_SHORTHANDS[match[3] or ""])
    for degree in filter(None, (match[4] or "").split(",")):
        _apply(intervals, degree.strip(), label)
    tones = tuple(dict.fromkeys((root + i) % 12 for i in intervals))
    return Chord(root, tones, label)


def _apply(intervals: list[int], degree: str, label: str) -> None:
    """Add a degree, or with ``*`` leave it out."""
    omit, degree = degree.startswith("*"), degree.lstrip("*")
    number = degree.lstrip("#b")
    if not number.isdigit() or int(number) not in _DEGREES:
        raise MidiError(f"chord {label!r}: degree {degree!r}, expected 1 to 13")
    shift = degree.count("#") - degree.count("b")
    interval = _DEGREES[int(number)] + shift
    same = [i for i in intervals if i % 12 == interval % 12]
    if omit:
        for i in same:
            intervals.remove(i)
    elif not same:
        intervals.append(interval)
