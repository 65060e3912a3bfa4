"""POP909 songs with their phrase labels, re-orchestrated for a band."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval.data.corpus.arrange.band import plan_sheet
from retrieval.data.corpus.arrange.harte import parse_label, pitch_class
from retrieval.data.corpus.arrange.midi_file import read_midi
from retrieval.data.corpus.arrange.sheet import Bar, Sheet, SheetSection, lay_out
from retrieval.data.corpus.compose.metre import METRES
from retrieval.data.corpus.compose.perform import describe_sections, perform
from retrieval.data.corpus.compose.plan import Plan
from retrieval.data.corpus.instruments import INSTRUMENTS
from retrieval.data.corpus.piece import Note, Part, Piece, merge_silent
from retrieval.data.corpus.theory import Chord
from retrieval.errors import MidiError

#: Phrase labels of Dai et al. (hierarchical-structure-analysis): i, o, x are intro, outro, link.
_FUNCTIONS = {"i": "intro", "o": "outro", "x": "interlude"}
_TRACKS = {"MELODY": "lead", "BRIDGE": "counter", "PIANO": "chords"}
_METRE = METRES["4/4"]
_LICENCE = "MIT (POP909, music-x-lab)"


@dataclass(frozen=True)
class Annotated:
    """A line of the folder's manifest."""

    id: str
    midi: Path
    key: str
    sections: tuple[dict[str, Any], ...]
    chords: tuple[tuple[float, float, str], ...]


def read_annotations(folder: str | Path) -> list[Annotated]:
    """Read ``manifest.jsonl`` of a folder with POP909's MIDI and structure labels.

    Raises:
        MidiError: the manifest is missing or not in the layout.
    """
    folder = Path(folder).expanduser()
    path = folder / "manifest.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        return [
            Annotated(
                str(row["id"]), folder / str(row["midi"]), str(row["key"]), tuple(row["sections"]),
                tuple((float(a), float(b), str(label)) for a, b, label in row["chords"]),
            )
            for row in rows
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MidiError(f"{path}: cannot be read as POP909 with sections ({error})") from error


def arrange_song(song: Annotated, name: str, seed: str) -> Piece:
    """Give the three tracks to other players, and add bass, pad and drums by section.

    Args:
        song: its annotations.
        name: the piece's unique name.
        seed: of style, players and notes.

    Raises:
        MidiError: the MIDI file is of no use, or the annotations do not fit it.
    """
    midi = read_midi(song.midi)
    sheet = _sheet(song, name)
    grid = lay_out(sheet)
    plan = plan_sheet(sheet, grid, random.Random(f"pop909 {seed}"))
    plan = _with_tracks(plan)
    sections = describe_sections(plan, grid.chords, grid.tempo)
    band = [
        part
        for part in perform(_only(plan, ("pad", "bass", "drums")), grid.chords, grid.tempo)
        if part.notes
    ]
    tracks = {_TRACKS[t]: p for t, p in zip(midi.tracks, midi.parts, strict=True) if t in _TRACKS}
    if "lead" not in tracks:
        raise MidiError(f"{song.midi}: tracks {midi.tracks}, expected one named MELODY")
    given = [
        _track(plan, role, part, [(s.start_s, s.end_s) for s in sections])
        for role, part in tracks.items()
        if role in plan.players
    ]
    start = sections[0].start_s
    moved = [_moved(part, start, sections[-1].end_s) for part in (*given, *band)]
    parts = tuple(part for part in moved if part.notes)
    sections = tuple(replace(s, start_s=s.start_s - start, end_s=s.end_s - start) for s in sections)
    sections = merge_silent(sections, parts)
    mood = random.Random(f"mood {seed}").sample(plan.style.moods, 2)
    return Piece(
        name, song.id, sections, parts, plan.style.name, tuple(mood), "4/4",
        plan.steady, 0.0, _LICENCE, f"{song.id}, as a {plan.style.name}", "pop909",
    )  # fmt: skip


def _sheet(song: Annotated, name: str) -> Sheet:
    """The annotations as a sheet; bars are as long as their section says."""
    tonic, _, mode = song.key.partition(":")
    sections = []
    for row in song.sections:
        start, end, count = float(row["start_s"]), float(row["end_s"]), int(row["bars"])
        if not (end > start and 0 < count < 200):
            raise MidiError(f"{song.id}: section {row}, expected bars and start_s < end_s")
        length = (end - start) / count
        bars = tuple(
            Bar(start + i * length, start + (i + 1) * length,
                _chords_between(song, start + i * length, start + (i + 1) * length), _METRE.bar)
            for i in range(count)
        )  # fmt: skip
        label = str(row["label"])
        theme = label.upper() if label.lower() not in _FUNCTIONS else label.lower()
        sections.append(SheetSection(_FUNCTIONS.get(label.lower(), ""), theme, bars))
    if len(sections) < 2:
        raise MidiError(f"{song.id}: {len(sections)} sections, expected at least 2")
    key = (pitch_class(tonic), "minor" if mode.startswith("min") else "major")
    return Sheet(name, song.id, _METRE, key, tuple(sections))


def _chords_between(
    song: Annotated, start: float, end: float
) -> tuple[tuple[float, Chord | None], ...]:
    """Chords of a bar, each from the beat at which it begins."""
    beat = (end - start) / 4
    found: list[tuple[float, Chord | None]] = []
    for i in range(4):
        middle = start + (i + 0.5) * beat
        label = next((c for a, b, c in song.chords if a <= middle < b), "N")
        chord = parse_label(label)
        if not found or chord != found[-1][1]:
            found.append((i / 4, chord))
    return tuple(found)


def _with_tracks(plan: Plan) -> Plan:
    """A counter-melody and chords are always cast: the file has tracks for them."""
    players = dict(plan.players)
    if "counter" not in players and plan.style.counter:
        free = [n for n in plan.style.counter if n not in players.values()]
        if free:
            players["counter"] = free[0]
    return replace(plan, players=players)


def _only(plan: Plan, roles: Sequence[str]) -> Plan:
    sections = tuple(
        replace(s, roles=tuple(role for role in s.roles if role in roles)) for s in plan.sections
    )
    return replace(plan, sections=sections)


def _track(plan: Plan, role: str, part: Part, spans: Sequence[tuple[float, float]]) -> Part:
    """A track by another player: octaves moved into its range, silent where the plan has it rest.

    The melody is never silenced; what the annotators heard must be there.
    """
    instrument = INSTRUMENTS[plan.players[role]]
    shift = _octaves([n.pitch for n in part.notes], instrument.low, instrument.high)
    silent = [
        span
        for span, section in zip(spans, plan.sections, strict=True)
        if role not in section.roles and role != "lead"
    ]
    notes = tuple(
        Note(n.start_s, n.end_s, _within(n.pitch + shift, instrument.low, instrument.high),
             max(1, min(127, round(n.velocity * instrument.gain))))
        for n in part.notes
        if not any(start - 0.02 <= n.start_s < end - 0.02 for start, end in silent)
    )  # fmt: skip
    return Part(instrument.name, instrument.program, notes, lead=role == "lead")


def _octaves(pitches: Sequence[int], low: int, high: int) -> int:
    middle = sum(pitches) / len(pitches)
    return 12 * round(((low + high) / 2 - middle) / 12) if not low <= middle <= high else 0


def _within(pitch: int, low: int, high: int) -> int:
    while pitch < low:
        pitch += 12
    while pitch > high:
        pitch -= 12
    return pitch


def _moved(part: Part, start_s: float, end_s: float) -> Part:
    """Notes counted from the first section; what lies outside the sections is left out."""
    notes = tuple(
        Note(max(n.start_s - start_s, 0.0), n.end_s - start_s, n.pitch, n.velocity)
        for n in part.notes
        if start_s - 0.02 <= n.start_s < end_s
    )
    return replace(part, notes=notes)
