"""Chord sheets of the McGill Billboard project (their ``salami_chords.txt`` layout)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from retrieval.data.corpus.arrange.harte import parse_label, pitch_class
from retrieval.data.corpus.arrange.sheet import Bar, Sheet, SheetSection
from retrieval.data.corpus.compose.metre import METRES, Metre
from retrieval.data.corpus.theory import Chord
from retrieval.errors import MidiError

_MAX_BYTES = 1 << 20
_METRE = re.compile(r"^\((\d+)/(\d+)\)\s*")
_REPEAT = re.compile(r"^x(\d+)$")
_BAR_S = (0.4, 12.0)
_MIN_SECTION_S = 3.0
# The annotators' words -> those that captions know.
_FUNCTIONS = {
    "trans": "interlude", "transition": "interlude", "prechorus": "pre-chorus",
    "pre-verse": "interlude", "preverse": "interlude", "refrain": "chorus", "coda": "coda",
    "instrumental": "interlude", "instrumental break": "break", "main theme": "theme",
    "fadeout": "outro", "fade in": "intro", "ending": "ending", "vocal": "verse",
}  # fmt: skip
_KNOWN = {"intro", "verse", "chorus", "bridge", "outro", "solo", "interlude", "pre-chorus",
          "break", "theme", *_FUNCTIONS}  # fmt: skip


@dataclass(frozen=True)
class _Line:
    start_s: float
    end_s: float
    theme: str
    function: str
    text: str


def read_sheet(path: str | Path) -> Sheet:
    """Read a sheet.

    Raises:
        MidiError: not in the layout, a metre or chord that nobody can play, or too short.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise MidiError(f"{path}: over {_MAX_BYTES} bytes, expected a chord sheet")
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MidiError(f"{path}: cannot be read ({error})") from error
    head = dict(_header(rows))
    name = head.get("metre", "4/4")
    if name not in METRES:
        raise MidiError(f"{path}: metre {name}, expected one of {', '.join(METRES)}")
    metre = METRES[name]
    try:
        tonic = pitch_class(head.get("tonic", ""))
        sections = _sections(list(_lines(rows)), metre)
    except MidiError as error:
        raise MidiError(f"{path}: {error}") from error
    if len(sections) < 2:
        raise MidiError(f"{path}: {len(sections)} sections with chords, expected at least 2")
    title = f"{head.get('title', path.stem)} ({head.get('artist', 'unknown')})"
    return Sheet(path.stem, title, metre, (tonic, _mode(sections, tonic)), sections)


def _header(rows: list[str]) -> Iterator[tuple[str, str]]:
    """The header; where a song changes its metre or tonic, the first one counts."""
    seen = set()
    for row in rows:
        if row.startswith("#") and ":" in row:
            key, _, value = row[1:].partition(":")
            if key.strip() not in seen:
                seen.add(key.strip())
                yield key.strip(), value.strip()


def _lines(rows: list[str]) -> Iterator[_Line]:
    timed = []
    for row in rows:
        time, tab, text = row.partition("\t")
        if not row.startswith("#") and tab:
            try:
                timed.append((float(time), text))
            except ValueError as error:
                raise MidiError(f"time {time!r}: expected seconds") from error
    for (start, text), (end, _) in pairwise(timed):
        words = [word.strip() for word in text.split("|")[0].split(",") if word.strip()]
        theme = next((w.rstrip("'") for w in words if re.fullmatch(r"[A-Z]'*", w)), "")
        named = [w for w in words if w.lower() in _KNOWN]
        function = _FUNCTIONS.get(named[0].lower(), named[0].lower()) if named else ""
        yield _Line(start, end, theme, function, text)


def _sections(lines: list[_Line], metre: Metre) -> tuple[SheetSection, ...]:
    """Lines gathered into sections; a line without a letter or a name goes on with the last."""
    found: list[tuple[str, str, list[Bar], frozenset[str]]] = []
    chord: Chord | None = None
    for line in lines:
        bars, chord = _bars(line, metre, chord)
        if not bars:
            continue
        fade = frozenset({"fade-out"}) if "fadeout" in line.text else frozenset()
        starts = line.theme or line.function or fade
        if starts or not found:
            found.append(
                (line.function, line.theme or (found[-1][1] if found else "A"), bars, fade)
            )
        else:
            found[-1][2].extend(bars)
    # What is too short to be told apart belongs to the section before it.
    merged: list[tuple[str, str, list[Bar], frozenset[str]]] = []
    for section in found:
        if merged and section[2][-1].end_s - section[2][0].start_s < _MIN_SECTION_S:
            merged[-1][2].extend(section[2])
        else:
            merged.append(section)
    return tuple(SheetSection(f, theme, tuple(bars), marks) for f, theme, bars, marks in merged)


def _bars(line: _Line, metre: Metre, chord: Chord | None) -> tuple[list[Bar], Chord | None]:
    """The bars of a line share its time by their lengths."""
    if line.text.count("|") < 2:
        return [], chord
    cells = [cell.strip() for cell in line.text.split("|")[1:]]
    tail = cells.pop()
    repeat = next((int(m[1]) for w in tail.split(",") if (m := _REPEAT.match(w.strip()))), 1)
    cells = [cell for cell in cells if cell] * min(repeat, 8)
    parsed = []
    for cell in cells:
        quarters = metre.bar
        if match := _METRE.match(cell):
            quarters = int(match[1]) * 4 / int(match[2])
            cell = cell[match.end() :]
        chords, chord = _cell(cell, chord)
        parsed.append((quarters, chords))
    total = sum(quarters for quarters, _ in parsed)
    bars, at = [], line.start_s
    for quarters, chords in parsed:
        end = at + (line.end_s - line.start_s) * quarters / total
        if not _BAR_S[0] <= end - at <= _BAR_S[1]:
            raise MidiError(f"bar at {at:.1f} s: {end - at:.2f} s long, expected 0.4 to 12")
        bars.append(Bar(at, end, chords, quarters))
        at = end
    return bars, chord


def _cell(
    cell: str, chord: Chord | None
) -> tuple[tuple[tuple[float, Chord | None], ...], Chord | None]:
    """The chords of a bar; a dot holds the one before for another beat."""
    words = cell.split()
    chords: list[tuple[float, Chord | None]] = []
    for i, word in enumerate(words):
        if word != ".":
            chord = parse_label(word) or chord
            chords.append((i / len(words), chord))
    if not chords or chords[0][0] > 0:
        chords.insert(0, (0.0, chord))
    return tuple(chords), chord


def _mode(sections: tuple[SheetSection, ...], tonic: int) -> str:
    """Minor where the chords on the tonic more often have a minor third."""
    minor = major = 0
    for section in sections:
        for bar in section.bars:
            for _, chord in bar.chords:
                if chord and chord.root == tonic:
                    minor += (tonic + 3) % 12 in chord.tones
                    major += (tonic + 4) % 12 in chord.tones
    return "minor" if minor > major else "major"
