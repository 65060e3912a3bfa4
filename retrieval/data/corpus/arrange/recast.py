"""A piece for other players: any sounds of General MIDI, and more of them.

Styles of this package have small bands of usual instruments. Songs of games and films do not: a
recast piece has leads, pads and effects beside them, and up to three players who double another's
part in some sections, so that who enters and who leaves is heard in bands of eight too.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from retrieval.data.corpus.arrange.programs import PROGRAMS, instrument_of
from retrieval.data.corpus.piece import Note, Part, Piece, PieceSection
from retrieval.errors import ConfigError

_LOW_PITCH = 48  # parts that lie lower are for basses
_BASSES = (*range(32, 40), 43, 58, 87)
#: Electric guitars, leads and strings more often, as games and films have them; then organs,
#: synthetic strings and brass, pads and textures.
_OFTEN = (29, 30, 30, 48, 80, 81, 81)
_ELECTRIC = (
    *_OFTEN, *_OFTEN, 4, 5, 7, *range(16, 19), *range(26, 32), 48, 50, 51, 52, 55, 62, 63,
    *range(80, 104),
)  # fmt: skip
_MELODIC = tuple(range(112))  # what comes after them are drums and noises
_ELECTRIC_SHARE = 0.6
_MOST_DOUBLES = 3
_PLAYS = 0.5  # share of the sections in which a doubling player plays


def maybe_recast(piece: Piece, share: float, seed: str) -> Piece:
    """Some of the pieces recast, the others as they are; the seed says which.

    Raises:
        ConfigError: a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"corpus.recast: got {share}, expected a share from 0 to 1")
    chosen = share and random.Random(f"whether {seed}").random() < share
    return recast(piece, seed) if chosen else piece


def recast(piece: Piece, seed: str) -> Piece:
    """The piece with other players; style and moods are no longer true and left out.

    ``meta["recast"]`` keeps the style that it was written in.

    A twin, the same sections in another order, gets the same players in the same sections where
    its seed is the same.

    Args:
        piece: any.
        seed: of everything.
    """
    rng = random.Random(f"recast {seed}")
    taken: set[str] = set()
    cast: dict[str, int] = {}
    tuned = sorted((p for p in piece.parts if not p.drums), key=lambda p: p.instrument)
    for part in tuned:
        cast[part.instrument] = _program(part, rng, taken)
    parts = [_played(part, cast) for part in piece.parts]
    for number in range(rng.randint(0, _MOST_DOUBLES) if tuned else 0):
        source = rng.choice(tuned)
        program, octave = _program(source, rng, taken), rng.choice((-12, 0, 0, 12))
        notes = _doubled(source.notes, piece.sections, f"{seed} {number}", octave)
        if notes:
            parts.append(Part(instrument_of(program), program, notes))
    return replace(
        piece, parts=tuple(parts), style="", moods=(), title=f"{piece.name}, recast",
        meta=piece.meta | {"recast": piece.style},
    )  # fmt: skip


def _program(part: Part, rng: random.Random, taken: set[str]) -> int:
    """A sound for a part whose name no other player has."""
    pitch = sum(n.pitch for n in part.notes) / max(len(part.notes), 1)
    if pitch < _LOW_PITCH:
        programs: Sequence[int] = _BASSES
    else:
        programs = _ELECTRIC if rng.random() < _ELECTRIC_SHARE else _MELODIC
    free = [p for p in programs if PROGRAMS[p] not in taken]
    program = rng.choice(free or [p for p in _MELODIC if PROGRAMS[p] not in taken])
    taken.add(instrument_of(program))
    return program


def _played(part: Part, cast: dict[str, int]) -> Part:
    if part.drums:
        return replace(part, instrument="drums", manner="")
    program = cast[part.instrument]
    return replace(part, instrument=instrument_of(program), program=program, manner="")


def _doubled(
    notes: tuple[Note, ...], sections: Sequence[PieceSection], seed: str, octave: int
) -> tuple[Note, ...]:
    """The notes of some kinds of sections, an octave away where that can be played."""
    kinds = sorted({(s.function, s.theme) for s in sections})
    played = {k for k in kinds if random.Random(f"{seed} {k}").random() < _PLAYS} or set(kinds)
    spans = [(s.start_s, s.end_s) for s in sections if (s.function, s.theme) in played]
    return tuple(
        replace(n, pitch=n.pitch + octave if 24 <= n.pitch + octave <= 108 else n.pitch)
        for n in notes
        if any(start - 1e-6 <= n.start_s < end - 1e-6 for start, end in spans)
    )
