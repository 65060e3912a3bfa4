"""``longplay``: the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from index import render
from retrieval.errors import DamagedLibraryError, LongplayError, SearchError
from retrieval.pipeline.options import add_options

if TYPE_CHECKING:
    from index.library import Library
    from index.query import Query

#: How much a text after ``--unlike`` counts against a song; the text that is asked for counts 1.
UNLIKE = 0.5

_EXIT = """exit status:
  0 done; 1 done, but some files were skipped, or dropped by repair; 2 an argument, file or
  library cannot be used; 3 the library is damaged; 130 stopped with Ctrl-C (what was committed
  stays)

examples:
  longplay add music.lp ~/Music
  longplay search music.lp "a bare piano opening; halfway strings lift it; it ends alone again"
  longplay search music.lp "fast swing" --where "bpm > 180 AND genre = 'jazz'" -k 5
  longplay search music.lp "slow" --like song.mp3@1:00-1:30 --unlike "drums"
  longplay texts music.lp song.mp3
  longplay caption music.lp song.mp3
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = build_parser().parse_args(arguments)
    try:
        return _COMMANDS[args.command](args)
    except DamagedLibraryError as error:
        return _fail(args, error, 3)
    except LongplayError as error:
        return _fail(args, error, 2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="longplay",
        description="Find full-length songs by long descriptions, and describe songs in words.",
        epilog=_EXIT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"longplay {version('longplay')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add = _command(commands, "add", "add audio files, folders or manifests; makes the library")
    add.add_argument("paths", nargs="+", help="folders, audio files, or .jsonl manifests")
    add.add_argument("--dtype", default="float32", choices=["float32", "float16"],
                     help="of stored embeddings, for a new library (float32)")  # fmt: skip
    add_options(add)
    search = _command(commands, "search", "songs that fit a text")
    search.add_argument("text", help="what the song is like, of any length")
    _answer_options(search)
    search.add_argument("--mode", default="auto", choices=["auto", "exact", "certified"],
                        help="score every song, or bound all and score those that can win; the "
                        "proven answer is the same (auto: the quicker)")  # fmt: skip
    search.add_argument("--budget", type=int, help="score at most so many songs; the answer says "
                        "whether it is proven all the same")  # fmt: skip
    search.add_argument("--quick", action="store_true", help="prove nothing: in a large library "
                        "score only the songs (--budget, or 1000) whose clips are nearest in the "
                        "mean")  # fmt: skip
    search.add_argument("--like", action="append", default=[], metavar="FILE[@FROM-TO]",
                        help="an audio file, or a moment of it (song.mp3@1:00-1:30), that songs "
                        "shall sound like as well; may be given several times")  # fmt: skip
    search.add_argument("--unlike", action="append", default=[], metavar="TEXT",
                        help="what songs shall not be like; several times as well")  # fmt: skip
    search.add_argument(
        "--hybrid",
        action="store_true",
        help="rank by sound and by the words of titles, tags and captions",
    )
    find = _command(commands, "find", "songs with these words in title, tags or captions")
    find.add_argument("words", help="words, all of which must stand there")
    _answer_options(find)
    similar = _command(commands, "similar", "songs that sound like a file")
    similar.add_argument("song", help="an audio file")
    similar.add_argument(
        "--from",
        dest="start",
        default="0",
        metavar="TIME",
        help="begin of the moment that counts, as 1:30 or 90 (0)",
    )
    similar.add_argument(
        "--to", dest="end", default="inf", metavar="TIME", help="its end (the end)"
    )
    _answer_options(similar)
    texts = _command(commands, "texts", "stored texts that fit a song")
    texts.add_argument("song", help="an audio file")
    texts.add_argument("-k", type=int, default=5, help="how many (5)")
    caption = _command(commands, "caption", "write a caption with times for a song")
    caption.add_argument("song", help="an audio file")
    export = _command(commands, "export", "write a plain FAISS file, one vector a song")
    export.add_argument("file", help="file to write")
    _command(commands, "info", "facts about the library")
    _command(commands, "verify", "check every file against its checksum")
    _command(commands, "repair", "drop what is damaged, name it, and keep the rest")
    _command(commands, "compact", "join all segments, and free what removed songs take")
    remove = _command(commands, "remove", "remove songs by id")
    remove.add_argument("ids", nargs="+", type=int, help="ids as search prints them")
    return parser


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text.capitalize() + ".")
    parser.add_argument("library", metavar="LIBRARY", help="folder of the library")
    parser.add_argument("--model", help="folder of a checkpoint (the library's own)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _answer_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-k", type=int, default=10, help="how many songs (10)")
    parser.add_argument("--where", help='SQL expression that songs must meet, e.g. "bpm > 120"')


def _open(args: argparse.Namespace) -> Library:
    from index.library import Library

    return Library.open(args.library, args.model)


def _print(args: argparse.Namespace, data: Any, text: str) -> int:
    print(json.dumps(data, ensure_ascii=False) if args.json else text)
    return 0


def _fail(args: argparse.Namespace, error: Exception, status: int) -> int:
    if args.json:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}))
    else:
        print(f"error: {error}", file=sys.stderr)
    return status


def _add(args: argparse.Namespace) -> int:
    from index.library import Library
    from index.manifest import MANIFEST_NAME
    from retrieval.pipeline.options import embed_options
    from retrieval.pipeline.progress import song_progress

    options = embed_options(args)
    if (Path(args.library).expanduser() / MANIFEST_NAME).exists():
        library = Library.open(args.library, args.model)
    else:
        library = Library.create(args.library, args.model, args.dtype)
    with song_progress("adding", quiet=args.json) as on_file:
        report = library.add(args.paths, on_file, options)
    _print(args, asdict(report), render.add_report(report, len(library)))
    return 1 if report.skipped else 0


def _search(args: argparse.Namespace) -> int:
    from index.query import Text

    query = Text(args.text)
    for file in args.like:
        query = query + _like(file)
    for text in args.unlike:
        query = query - UNLIKE * Text(text)
    exact = "never" if args.quick else "always" if args.budget is None else "budget"
    hits = _open(args).search(
        query, args.k, args.where,
        exact=exact, budget=args.budget, mode=args.mode, hybrid=args.hybrid,
    )  # fmt: skip
    return _print(args, render.hits_json(hits), render.hits(hits))


def _like(given: str) -> Query:
    """``song.mp3`` or ``song.mp3@1:00-1:30``."""
    from index.query import Song

    path, at, moment = given.rpartition("@")
    start, dash, end = moment.partition("-")
    if at and dash and not Path(given).exists():
        return Song(path, _seconds(start), _seconds(end))
    return Song(given)


def _seconds(time: str) -> float:
    """``1:30`` or ``90`` -> 90.0."""
    try:
        parts = [float(part) for part in time.split(":")]
    except ValueError as error:
        raise SearchError(f"time: got {time!r}, expected seconds or minutes:seconds") from error
    return sum(part * 60**i for i, part in enumerate(reversed(parts)))


def _find(args: argparse.Namespace) -> int:
    found = _open(args).find(args.words, args.k, args.where)
    data = [{"id": r.id, "path": r.path, "title": r.title, "score": s} for r, s in found]
    return _print(args, data, render.found(found))


def _similar(args: argparse.Namespace) -> int:
    start_s, end_s = _seconds(args.start), _seconds(args.end)
    hits = _open(args).similar(args.song, args.k, args.where, start_s=start_s, end_s=end_s)
    return _print(args, render.hits_json(hits), render.hits(hits, with_moments=False))


def _texts(args: argparse.Namespace) -> int:
    found = _open(args).texts(args.song, args.k)
    return _print(args, [asdict(hit) for hit in found], render.texts(found))


def _caption(args: argparse.Namespace) -> int:
    caption = _open(args).caption(args.song)
    return _print(args, asdict(caption), render.caption(caption))


def _export(args: argparse.Namespace) -> int:
    count = _open(args).export_faiss(args.file)
    return _print(args, {"songs": count, "file": args.file}, f"{args.file}: {count} songs")


def _info(args: argparse.Namespace) -> int:
    facts = _open(args).info()
    return _print(args, facts, "\n".join(f"{name}: {value}" for name, value in facts.items()))


def _verify(args: argparse.Namespace) -> int:
    count = _open(args).verify()
    return _print(args, {"files": count, "damaged": 0}, f"{count} files, all as they were written")


def _repair(args: argparse.Namespace) -> int:
    from index.library import Library

    report = Library.repair(args.library)
    _print(args, asdict(report), render.repair_report(report))
    return 1 if report.damaged or report.manifest else 0


def _compact(args: argparse.Namespace) -> int:
    done = _open(args).compact()
    return _print(args, {"compacted": done}, "compacted" if done else "is compact already")


def _remove(args: argparse.Namespace) -> int:
    count = _open(args).remove(args.ids)
    return _print(args, {"removed": count}, f"removed {count} songs")


_COMMANDS = {
    "add": _add,
    "search": _search,
    "find": _find,
    "similar": _similar,
    "texts": _texts,
    "caption": _caption,
    "export": _export,
    "info": _info,
    "verify": _verify,
    "repair": _repair,
    "compact": _compact,
    "remove": _remove,
}

if __name__ == "__main__":
    sys.exit(main())
