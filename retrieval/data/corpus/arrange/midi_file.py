"""A MIDI file -> parts in seconds, with limits: files come from anywhere."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.data.corpus.arrange.programs import instrument_of
from retrieval.data.corpus.instruments import DRUM_CHANNEL
from retrieval.data.corpus.piece import Note, Part
from retrieval.data.corpus.render.midi import MAX_PARTS
from retrieval.errors import MidiError

MAX_BYTES = 8 << 20
MAX_EVENTS = 400_000
MAX_S = 1200.0
#: A note that nobody ends is let go after this long.
_LONGEST_S = 30.0
_DEFAULT_TEMPO = 500_000  # microseconds a quarter note, as the MIDI standard says


@dataclass(frozen=True)
class MidiSong:
    """A MIDI file.

    Attributes:
        parts: by track, channel and program, in the file's order; at most 15 beside the drums.
        tracks: name of the track of each part.
        tempi: ``(seconds, quarters a minute)`` of every change.
        metre: of the first time signature, or empty.
        end_s: end of the last note.
        dropped: parts left out because there were more than 15, those with the fewest notes.
    """

    parts: tuple[Part, ...]
    tracks: tuple[str, ...]
    tempi: tuple[tuple[float, float], ...]
    metre: str
    end_s: float
    dropped: int = 0


def read_midi(path: str | Path) -> MidiSong:
    """Read a Standard MIDI File.

    Raises:
        MidiError: not a MIDI file, damaged, without notes, or over a limit (8 MiB, 400,000 events,
            20 minutes).
    """
    import mido

    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MidiError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise MidiError(f"{path}: over {MAX_BYTES} bytes, expected a MIDI song")
    if data[:4] != b"MThd":
        raise MidiError(f"{path}: no MIDI header, expected a Standard MIDI File (.mid)")
    try:
        file_ = mido.MidiFile(file=io.BytesIO(data), clip=True)
        song = _read(file_, path)
    except MidiError:
        raise
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise MidiError(f"{path}: damaged MIDI ({error})") from error
    if not song.parts:
        raise MidiError(f"{path}: has no notes")
    return song


def _read(file: Any, path: Path) -> MidiSong:
    if file.type == 2 or file.ticks_per_beat <= 0:
        raise MidiError(f"{path}: type {file.type}, expected type 0 or 1 with ticks per quarter")
    if sum(len(track) for track in file.tracks) > MAX_EVENTS:
        raise MidiError(f"{path}: over {MAX_EVENTS} events")
    clock = _Clock(file)
    found: dict[tuple[int, int, int], list[Note]] = defaultdict(list)
    programs: dict[int, int] = defaultdict(int)
    # Program changes may stand in another track than the notes, so all tracks are read as one.
    for tick, number, message in _merged(file):
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type in ("note_on", "note_off"):
            clock.note(tick, number, message, programs[message.channel], found)
    clock.finish(found)
    end_s = max((n.end_s for notes in found.values() for n in notes), default=0.0)
    if end_s > MAX_S:
        raise MidiError(f"{path}: {end_s:.0f} s long, expected at most {MAX_S:.0f}")
    return _song(file, clock, found, end_s)


def _merged(file: Any) -> Iterator[tuple[int, int, Any]]:
    events = []
    for number, track in enumerate(file.tracks):
        tick = 0
        for message in track:
            tick += message.time
            if message.type in ("note_on", "note_off", "program_change"):
                events.append((tick, number, message))
    return iter(sorted(events, key=lambda e: (e[0], e[2].type != "program_change")))


class _Clock:
    """Ticks to seconds, and the notes that sound."""

    def __init__(self, file: Any):
        changes = []
        for track in file.tracks:
            tick = 0
            for message in track:
                tick += message.time
                if message.type == "set_tempo" and message.tempo > 0:
                    changes.append((tick, message.tempo))
        changes.sort()
        if not changes or changes[0][0] > 0:
            changes.insert(0, (0, _DEFAULT_TEMPO))
        self.points: list[tuple[int, float, float]] = []
        for tick, tempo in changes:
            at = self.seconds(tick) if self.points else 0.0
            self.points.append((tick, at, tempo / 1e6 / file.ticks_per_beat))
        self.sounding: dict[tuple[int, int, int], tuple[float, int, int]] = {}

    def seconds(self, tick: int) -> float:
        """When a tick is."""
        low, high = 0, len(self.points)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.points[middle][0] <= tick else (low, middle)
        start, at, length = self.points[low]
        return at + (tick - start) * length

    def note(
        self, tick: int, track: int, message: Any, program: int,
        found: dict[tuple[int, int, int], list[Note]],
    ) -> None:  # fmt: skip
        """Take one note_on or note_off; a note that is struck again ends first."""
        key = (track, message.channel, message.note)
        now = self.seconds(tick)
        if key in self.sounding:
            start, velocity, its_program = self.sounding.pop(key)
            end = min(max(now, start + 0.01), start + _LONGEST_S)
            part = (track, message.channel, its_program)
            found[part].append(Note(start, end, message.note, velocity))
        if message.type == "note_on" and message.velocity:
            self.sounding[key] = (now, message.velocity, program)

    def finish(self, found: dict[tuple[int, int, int], list[Note]]) -> None:
        """Let go of what still sounds at the end of the file."""
        for (track, channel, pitch), (start, velocity, program) in self.sounding.items():
            found[track, channel, program].append(Note(start, start + 1.0, pitch, velocity))


def _song(
    file: Any, clock: _Clock, found: dict[tuple[int, int, int], list[Note]], end_s: float
) -> MidiSong:
    melodic = [key for key in found if key[1] != DRUM_CHANNEL]
    drums = [key for key in found if key[1] == DRUM_CHANNEL]
    kept = sorted(melodic, key=lambda key: -len(found[key]))[:MAX_PARTS]
    parts, tracks = [], []
    for key in [key for key in found if key in kept]:
        notes = tuple(sorted(found[key], key=lambda n: (n.start_s, n.pitch)))
        parts.append(Part(instrument_of(key[2]), key[2], notes))
        tracks.append(str(file.tracks[key[0]].name).strip())
    if drums:
        every = sorted((n for key in drums for n in found[key]), key=lambda n: (n.start_s, n.pitch))
        parts.append(Part("drums", drums[0][2], tuple(every), drums=True))
        tracks.append("drums")
    metre = next(
        (f"{m.numerator}/{m.denominator}" for track in file.tracks for m in track
         if m.type == "time_signature"), ""
    )  # fmt: skip
    tempi = tuple((at, 60 / (length * file.ticks_per_beat)) for _, at, length in clock.points)
    return MidiSong(tuple(parts), tuple(tracks), tempi, metre, end_s, len(melodic) - len(kept))
