"""A MIDI file as it is -> a piece: sections, key and tempo are read from its notes."""

from __future__ import annotations

import bisect
from dataclasses import replace
from pathlib import Path

import numpy as np

from retrieval.data.corpus.arrange.analysis import (
    block_features,
    find_boundaries,
    find_key,
    letter_sections,
)
from retrieval.data.corpus.arrange.midi_file import MidiSong, read_midi
from retrieval.data.corpus.piece import Note, Part, Piece, PieceSection, merge_silent
from retrieval.errors import MidiError

MIN_S = 12.0
_MIN_SECTION_S = 8.0
_BLOCK_BARS = 2
_STEADY = 0.06
_METRES = ("2/4", "3/4", "4/4", "5/4", "6/8", "7/8", "12/8")


def read_piece(path: str | Path, name: str, group: str, licence: str, source: str) -> Piece:
    """Read a MIDI file as a piece of unknown style.

    Args:
        path: a Standard MIDI File.
        name: the piece's unique name.
        group: see :class:`Piece`.
        licence: of the file.
        source: what the manifest calls it.

    Raises:
        MidiError: see :func:`read_midi`; also a song of under 12 seconds.
    """
    song = read_midi(path)
    parts, offset_s = _from_zero(song.parts)
    end_s = song.end_s - offset_s
    if end_s < MIN_S:
        raise MidiError(f"{path}: {end_s:.1f} s of music, expected at least {MIN_S:.0f}")
    edges = _blocks(song, offset_s, end_s)
    features = block_features(parts, edges)
    shortest = max(1, round(_MIN_SECTION_S / float(np.median(np.diff(edges)))))
    starts = find_boundaries(features, shortest)
    letters = letter_sections(features, starts)
    key = find_key(parts)
    ends = [*starts[1:], len(features)]
    sections = [
        PieceSection(float(edges[a]), float(edges[b]), "", letter, key,
                     _tempo_at(song, offset_s + float(edges[a] + edges[b]) / 2))
        for a, b, letter in zip(starts, ends, letters, strict=True)
    ]  # fmt: skip
    merged = merge_silent(sections, parts)
    bpms = [s.bpm for s in merged if s.bpm]
    steady = bool(bpms) and max(bpms) - min(bpms) <= _STEADY * max(bpms)
    metre = song.metre if song.metre in _METRES else ""
    return Piece(
        name, group, merged, parts, "", (), metre, steady, 0.0, licence,
        Path(path).stem, source,
    )  # fmt: skip


def _from_zero(parts: tuple[Part, ...]) -> tuple[tuple[Part, ...], float]:
    """The parts without the silence before the first note."""
    first = min(part.notes[0].start_s for part in parts)
    moved = tuple(
        replace(
            part,
            notes=tuple(
                Note(n.start_s - first, n.end_s - first, n.pitch, n.velocity) for n in part.notes
            ),
        )
        for part in parts
    )
    return moved, first


def _blocks(song: MidiSong, offset_s: float, end_s: float) -> np.ndarray:
    """Edges of blocks of two bars, by the tempo map; the last block ends with the music."""
    upper, lower = (int(n) for n in (song.metre or "4/4").split("/"))
    quarters = max(upper * 4 / max(lower, 1), 1.0) * _BLOCK_BARS
    edges, at = [0.0], 0.0
    while True:
        at += quarters * 60 / max(_tempo_at(song, offset_s + at), 1.0)
        if at >= end_s - 1.0 or len(edges) > 4000:
            break
        edges.append(at)
    return np.array([*edges, end_s])


def _tempo_at(song: MidiSong, seconds: float) -> float:
    index = bisect.bisect_right([at for at, _ in song.tempi], seconds + 1e-6) - 1
    return round(song.tempi[max(index, 0)][1], 1)
