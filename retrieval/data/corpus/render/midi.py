"""A piece -> a Standard MIDI File, played as people play: not quite together, not all alike."""

from __future__ import annotations

import io
import random

from retrieval.data.corpus.instruments import DRUM_CHANNEL
from retrieval.data.corpus.piece import Note, Part, Piece
from retrieval.errors import ComposeError

_TICKS = 960
_BPM = 120  # times are in seconds, so the tempo is a mere unit
#: Most that a note is moved; well under the 50 ms to which boundaries are held.
MAX_SHIFT_S = 0.022
MAX_PARTS = 15


def to_midi(piece: Piece, seed: int | str = 0, looseness: float = 0.5) -> bytes:
    """Write a piece as MIDI.

    Args:
        piece: at most 15 parts beside the drums.
        seed: of timing, velocity and stereo places.
        looseness: 0 plays exactly what is written; 1 moves notes by up to 22 ms and velocities
            by up to 12.

    Raises:
        ComposeError: more parts than MIDI has channels.
    """
    import mido

    rng = random.Random(f"midi {seed}")
    events: list[tuple[int, int, mido.Message]] = []
    channels = [c for c in range(16) if c != DRUM_CHANNEL]
    melodic = [part for part in piece.parts if not part.drums]
    if len(melodic) > MAX_PARTS:
        raise ComposeError(f"piece {piece.name}: {len(melodic)} parts, expected at most 15")
    for part in piece.parts:
        channel = DRUM_CHANNEL if part.drums else channels.pop(0)
        pan = 64 if part.drums else 64 + rng.randint(-40, 40)
        for control, value in ((7, rng.randint(92, 108)), (10, pan)):
            message = mido.Message("control_change", channel=channel, control=control, value=value)
            events.append((0, 0, message))
        program = mido.Message("program_change", channel=channel, program=part.program)
        events.append((0, 1, program))
        for note in _played(part, rng, looseness):
            events += _on_off(note, channel, mido.Message)
    track = mido.MidiTrack()
    track.append(mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(_BPM)))
    now = 0
    for tick, _, message in sorted(events, key=lambda e: (e[0], e[1])):
        track.append(message.copy(time=tick - now))
        now = tick
    out = io.BytesIO()
    mido.MidiFile(ticks_per_beat=_TICKS, tracks=[track]).save(file=out)
    return out.getvalue()


def _played(part: Part, rng: random.Random, looseness: float) -> list[Note]:
    """Each player drags or rushes a little as a whole, and each note by itself."""
    lag = rng.uniform(-0.3, 0.3) * MAX_SHIFT_S * looseness
    spread = 0.35 * MAX_SHIFT_S * looseness * (0.6 if part.drums else 1.0)
    limit = MAX_SHIFT_S * looseness
    notes = []
    for note in part.notes:
        shift = max(-limit, min(limit, lag + rng.gauss(0.0, spread)))
        start = max(0.0, note.start_s + shift)
        velocity = round(note.velocity + rng.gauss(0.0, 5.0 * looseness))
        end = max(note.end_s + shift, start + 0.03)
        notes.append(Note(start, end, note.pitch, max(1, min(127, velocity))))
    return notes


def _on_off(note: Note, channel: int, message: type) -> list[tuple[int, int, object]]:
    ticks = _TICKS * _BPM / 60
    start, end = round(note.start_s * ticks), round(note.end_s * ticks)
    on = message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)
    off = message("note_off", channel=channel, note=note.pitch, velocity=0)
    return [(start, 3, on), (max(end, start + 1), 2, off)]
