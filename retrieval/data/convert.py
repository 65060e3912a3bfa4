"""``python -m retrieval.data.convert``: a collection's own manifest -> ours."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from retrieval.data.manifest import write_manifest
from retrieval.data.readers import read_freepd, read_real, split_songs
from retrieval.errors import LongplayError

READERS = {"real": read_real, "freepd": read_freepd}


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.data.convert",
        description="Turn a collection's own manifest into a Longplay manifest (JSON Lines).",
        epilog="example: python -m retrieval.data.convert real ~/music/real real.jsonl --fold 0",
    )
    parser.add_argument("reader", choices=sorted(READERS), help="how the collection is written")
    parser.add_argument("folder", type=Path, help="folder that holds manifest.jsonl and the audio")
    parser.add_argument("out", type=Path, help="manifest to write")
    parser.add_argument("--fold", type=int, default=0, help="which fold is the test split (0)")
    parser.add_argument("--folds", type=int, default=3, help="how many folds (3)")
    parser.add_argument("--val", type=float, default=0.2, help="validation share of the rest (0.2)")
    args = parser.parse_args(arguments)
    try:
        songs = READERS[args.reader](args.folder)
        songs = split_songs(songs, args.fold, args.folds, args.val)
        write_manifest(songs, args.out)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = Counter(song.split for song in songs)
    print(f"{args.out}: {len(songs)} songs, " + ", ".join(f"{n} {s}" for s, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
