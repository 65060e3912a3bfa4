"""A piece -> a sound file: play, produce, write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrieval.data.corpus.piece import Piece
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.corpus.render.midi import to_midi
from retrieval.data.corpus.render.produce import Production, draw_production, produce
from retrieval.data.corpus.render.synth import synthesize

_TAIL_S = 1.5


@dataclass(frozen=True)
class Rendering:
    """How songs become sound.

    Attributes:
        sound_fonts: to draw from, song by song.
        rate_hz: of the files.
        format: ``mp3``, ``ogg`` or ``flac``.
        produced: False leaves out the production chain (the demo's pieces).
        kbps: bit rate of every file, or 0 to draw one a song.
    """

    sound_fonts: tuple[Path, ...]
    rate_hz: int = 24_000
    format: str = "mp3"
    produced: bool = True
    kbps: int = 0


def render_piece(piece: Piece, rendering: Rendering, path: Path, seed: str) -> Production:
    """Render a piece to a file; returns the chain that was drawn.

    Raises:
        ComposeError: FluidSynth is missing or fails.
    """
    chain = draw_production(seed, len(rendering.sound_fonts))
    if not rendering.produced:
        chain = Production(chain.font, 0.4, 0.8, 0.12, 0, 0, 1.0, 0.5, -120.0, 0, 64, -1.0)
    midi = to_midi(piece, seed, chain.looseness)
    seconds = piece.duration_s + (0.0 if piece.fade_out_s else _TAIL_S)
    font = rendering.sound_fonts[chain.font]
    rate_hz = rendering.rate_hz
    # The stereo sound is handed over, so that it can be let go half-way.
    sound = produce(
        synthesize(midi, seconds, font, rate_hz), rate_hz, chain, piece.fade_out_s, seed
    )
    write_sound(sound, path, rate_hz, rendering.kbps or chain.kbps)
    return chain
