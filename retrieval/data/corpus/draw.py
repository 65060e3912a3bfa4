"""``python -m retrieval.data.corpus.draw``: a spectrogram with notes and sections, to look at."""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.audio import load_audio
from retrieval.data.corpus.arrange.recast import recast
from retrieval.data.corpus.compose.plan import make_plan, reorder
from retrieval.data.corpus.compose.styles import STYLES
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.piece import Piece
from retrieval.data.manifest import Song, read_manifest
from retrieval.errors import LongplayError, ManifestError

_RATE_HZ = 24_000
_FFT = 2048
_FLOOR_DB = 80
_LABEL = 24  # letters of a section's name


def draw_song(song: Song, path: Path, piece: Piece | None = None) -> None:
    """Draw a song to a PNG file.

    Args:
        song: of a corpus; the sections of its first caption that has some are marked.
        path: file to write.
        piece: its notes, where they are known.

    Raises:
        AudioError: the song's file gives no usable sound.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.5 if piece else 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 if piece else 1, 1, sharex=True, squeeze=False)[:, 0]
    _spectrogram(axes[0], load_audio(song.audio, _RATE_HZ))
    if piece:
        _piano_roll(axes[1], piece)
    sections = next((c.sections for c in song.captions if c.form == "timed"), ())
    for axis in axes:
        for section in sections:
            axis.axvline(section.start_s, color="white" if axis is axes[0] else "black", lw=0.8)
    for section in sections:
        label = section.text.replace(",", ":").split(":")[0].split(" with ")[0][:_LABEL]
        axes[0].annotate(label, (section.start_s, 1.01), xycoords=("data", "axes fraction"),
                         fontsize=8, rotation=20)  # fmt: skip
    axes[-1].set_xlabel("seconds")
    figure.suptitle(song.title or song.id)
    figure.savefig(path, dpi=70)


def _spectrogram(axis: Any, sound: np.ndarray) -> None:
    """Level on a logarithmic frequency axis."""
    hop = max(len(sound) // 1200, 1)
    starts = np.arange(0, len(sound) - _FFT, hop)
    frames = np.stack([sound[s : s + _FFT] for s in starts]) * np.hanning(_FFT)
    times, spectrum = starts / _RATE_HZ, np.fft.rfft(frames, axis=1).T
    power = np.abs(spectrum) ** 2
    edges = np.geomspace(50, _RATE_HZ / 2, 129)
    rows = np.clip((edges * _FFT / _RATE_HZ).astype(int), 1, _FFT // 2)
    bands = np.stack([power[a : max(b, a + 1)].max(axis=0) for a, b in pairwise(rows)])
    level = 10 * np.log10(bands + 1e-12)
    top = level.max()
    mesh = axis.pcolormesh(times, edges[:-1], level, vmin=top - _FLOOR_DB, vmax=top, cmap="magma",
                           rasterized=True)  # fmt: skip
    mesh.axes.set_yscale("log")
    mesh.axes.set_ylabel("hertz")


def _piano_roll(axis: Any, piece: Piece) -> None:
    """Notes by pitch, one colour a part; drums below."""
    from matplotlib.collections import LineCollection

    colours = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
    for number, part in enumerate(piece.parts):
        rows = [(n.start_s, n.end_s, n.pitch - 40 if part.drums else n.pitch) for n in part.notes]
        lines = [((start, pitch), (end, pitch)) for start, end, pitch in rows]
        colour = "0.4" if part.drums else colours[number % len(colours)]
        axis.add_collection(LineCollection(lines, colors=colour, label=part.instrument, lw=2))
    axis.autoscale()
    axis.set_ylabel("MIDI pitch (drums below)")
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)


def notes_of(song: Song) -> Piece | None:
    """The notes of a composed song, written again from its seed; None for other sources."""
    group = str(song.meta.get("group", ""))
    minimum, maximum = song.meta.get("min_s"), song.meta.get("max_s")
    if song.meta.get("source") != "compose" or minimum is None or maximum is None:
        return None
    name = song.meta.get("recast", song.meta.get("genre"))
    style = next((s for s in STYLES if s.name == name), None)
    plan = make_plan(int(group.rpartition("-")[2]), float(minimum), float(maximum), style)
    piece = compose(reorder(plan) if song.id != group else plan, song.id)
    return recast(piece, group) if "recast" in song.meta else piece


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.data.corpus.draw",
        description="Draw songs of a manifest: spectrogram, notes where they are known, sections.",
        epilog="example: python -m retrieval.data.corpus.draw corpus/manifest.jsonl pictures -n 12",
    )
    parser.add_argument("manifest", type=Path, help="JSON Lines")
    parser.add_argument("out", type=Path, help="folder for PNG files")
    parser.add_argument("-n", type=int, default=12, help="how many songs (12)")
    parser.add_argument("--id", action="append", help="draw this song; may be repeated")
    args = parser.parse_args(arguments)
    try:
        songs = read_manifest(args.manifest)
        chosen = [s for s in songs if s.id in args.id] if args.id else songs[: args.n]
        if not chosen:
            raise ManifestError(f"--id: {args.id}, expected ids of {args.manifest}")
        args.out.mkdir(parents=True, exist_ok=True)
        for song in chosen:
            draw_song(song, args.out / f"{song.id}.png", notes_of(song))
            print(args.out / f"{song.id}.png")
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
