"""``python -m retrieval.data.convert``: a published set or a plain folder -> a manifest."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from retrieval.data.manifest import write_manifest
from retrieval.data.readers import READERS
from retrieval.data.readers.splits import split_songs
from retrieval.errors import LongplayError, ManifestError


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    reader = READERS[args.reader]
    folder = args.folder.expanduser()
    try:
        songs = reader.read(folder, (args.audio or args.folder).expanduser())
        if not songs:
            raise ManifestError(
                f"{args.reader}: no song of the set has its audio in {args.audio or folder}; "
                "files are found by the set's ids in their names (--audio names their folder)"
            )
        # A set without a split gets one; so does an official one that has only a part of it.
        if not reader.official or all(song.split is None for song in songs):
            songs = split_songs(songs, args.fold, args.folds, args.val)
        write_manifest(songs, args.out)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = Counter(song.split for song in songs)
    captions = sum(len(song.captions) for song in songs)
    parts = ", ".join(f"{n} {split}" for split, n in counts.items())
    print(f"{args.out}: {len(songs)} songs with {captions} captions, {parts}")
    return 0


def _parser() -> argparse.ArgumentParser:
    sources = "\n".join(f"  {name:21} {reader.source}" for name, reader in READERS.items())
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.data.convert",
        description="Turn a published set, as downloaded, into a manifest (JSON Lines). Songs "
        "without an audio file are left out.",
        epilog=f"where to get them:\n{sources}\n\n"
        "example: python -m retrieval.data.convert musiccaps ~/musiccaps clips.jsonl --audio ~/wav",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reader", choices=list(READERS), metavar="SET", help="see below")
    parser.add_argument("folder", type=Path, help="folder that holds the set's tables")
    parser.add_argument("out", type=Path, help="manifest to write")
    parser.add_argument("--audio", type=Path, help="folder of the audio files (the same)")
    group = parser.add_argument_group("sets without an official split")
    group.add_argument("--fold", type=int, default=0, help="which fold is the test split (0)")
    group.add_argument("--folds", type=int, default=3, help="how many folds (3); 0: no test split")
    group.add_argument("--val", type=float, default=0.2, help="validation share of the rest (0.2)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
