"""``python -m index.demo``: the main job on the shipped pieces with the shipped model."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from pathlib import Path

from index import render
from index.draw import draw_attention
from index.library import Library
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.manifest import Song, read_manifest
from retrieval.errors import LongplayError


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Index the demo pieces and ask some questions.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo"), help="output (demo)")
    folder = parser.parse_args(arguments).folder
    try:
        run(folder)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(folder: Path) -> None:
    """Index, search both ways, caption, draw; prints what it does."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    library = _index(folder / "demo.lp")
    songs = read_manifest(demo_manifest())
    print(f"{len(library)} pieces are in the library ({time.monotonic() - started:.0f} s).")
    _ask(library, "aggressive metal with distorted guitar and heavy drums")
    _ask(library, "a calm, slow piece with synth pads and no drums", k=3)
    long = songs[13]
    _heading("A long description, and where each sentence was heard")
    print(textwrap.fill(f'"{long.captions[0].text}"', 96))
    print(f"(written about: {long.title})\n")
    hits = library.search(long.captions[0].text, k=1)
    print(render.hits(hits))
    picture = folder / "passages.png"
    draw_attention(library, hits[0].id, long.captions[0].text, picture)
    _heading("Fast pieces only: where bpm > 120")
    print(render.hits(library.search("a cheerful melody", k=3, where="bpm > 120"), False))
    _from_music(library, songs[4])
    print(f"\nPicture: {picture} (passages against clips, what the model attended to)")
    _next_steps(folder)


def _index(path: Path) -> Library:
    library = Library.open(path) if path.exists() else Library.create(path)
    report = library.add([demo_manifest()])
    for name, reason in report.skipped:
        print(f"skipped {name}: {reason}")
    return library


def _ask(library: Library, text: str, k: int = 3) -> None:
    _heading(f'Songs for "{text}"')
    print(render.hits(library.search(text, k=k)))


def _from_music(library: Library, song: Song) -> None:
    _heading(f"Stored texts that fit {song.title}")
    print(render.texts(library.texts(song.audio, k=3)))
    _heading(f"A new caption for {song.title}")
    print(render.caption(library.caption(song.audio)))


def _heading(text: str) -> None:
    print(f"\n== {text}")


def _next_steps(folder: Path) -> None:
    print(
        f"""
Next, with your own music (activate the environment first: . .venv/bin/activate):
  longplay add music.lp ~/Music
  longplay search music.lp "a bare piano opening; halfway strings lift it; it ends alone again"
  longplay search {folder}/demo.lp "fast dance music with a synth bass" -k 3
  longplay --help"""
    )


if __name__ == "__main__":
    sys.exit(main())
