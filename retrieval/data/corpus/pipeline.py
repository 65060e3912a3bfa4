"""A source -> a folder with audio and a manifest: parallel, resumable, deterministic."""

from __future__ import annotations

import hashlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from retrieval.data.corpus.captions.make import MOST_QUERIES, QUERIES, SHORTS
from retrieval.data.corpus.record import read_record, recipe_digest, write_record
from retrieval.data.corpus.source import Entry, Made, Source
from retrieval.data.manifest import Caption, Song, write_manifest
from retrieval.errors import ComposeError, ConfigError, LongplayError

#: Raised when the composer, the captions or the production change what they write.
VERSION = 3
SPLITS = ("train", "val", "test")
_AHEAD = 4  # entries a worker that are submitted but not begun


@dataclass(frozen=True)
class Recipe:
    """How a corpus is made.

    Attributes:
        out: folder for ``audio/``, ``songs/`` and ``manifest.jsonl``.
        seed: of everything.
        format: suffix of the audio files.
        val, test: shares of the groups.
        splits: the splits of which songs are made.
        workers: processes.
        queries: that a song has in the manifest, at most.
    """

    out: Path
    seed: int = 1
    format: str = "mp3"
    val: float = 0.1
    test: float = 0.1
    splits: tuple[str, ...] = SPLITS
    workers: int = 1
    queries: int = QUERIES

    def __post_init__(self) -> None:
        if not 0 <= self.queries <= MOST_QUERIES:
            raise ConfigError(f"queries: got {self.queries}, expected 0 to {MOST_QUERIES}")
        unknown = sorted(set(self.splits) - set(SPLITS))
        if unknown or not self.splits:
            raise ConfigError(f"splits: got {list(self.splits)}, expected some of {list(SPLITS)}")

    def split_of(self, entry: Entry) -> str:
        """The split of a song: fixed by its source, or drawn from its group."""
        return entry.split or draw_split(entry.group, self.seed, self.val, self.test)


@dataclass(frozen=True)
class Result:
    """What became of an entry: ``error`` says why it was skipped, and is empty otherwise."""

    entry: Entry
    error: str = ""


@dataclass(frozen=True)
class Report:
    """A finished corpus."""

    manifest: Path
    songs: int
    skipped: tuple[Result, ...]


def make_corpus(
    source: Source, recipe: Recipe, on_result: Callable[[Result, int], None] = lambda *_: None
) -> Report:
    """Make every song of a source that is not there yet, then write the manifest.

    Each song's audio and then its record are written whole or not at all, so that a killed run
    goes on where it stopped. The same source and recipe give the same corpus whatever the number
    of workers.

    Args:
        source: where songs come from.
        recipe: how and where.
        on_result: called with each result and the number of entries in all.

    Raises:
        ComposeError: a worker was killed, or not one song could be made.
    """
    entries = [e for e in source.entries(recipe.seed) if recipe.split_of(e) in recipe.splits]
    for folder in ("audio", "songs"):
        (recipe.out / folder).mkdir(parents=True, exist_ok=True)
        _clear_leftovers(recipe.out / folder)
    settings = asdict(source)
    settings.pop("songs", None)  # more songs of the same kind leave the others as they are
    if not settings.get("recast"):
        settings.pop("recast", None)  # corpora are older than it
    digest = recipe_digest([VERSION, type(source).__name__, settings, recipe.seed, recipe.format])
    results: dict[str, Result] = {}
    for result in _run(source, recipe, entries, digest):
        results[result.entry.name] = result
        on_result(result, len(entries))
    skipped = tuple(results[e.name] for e in entries if results[e.name].error)
    good = [e for e in entries if not results[e.name].error]
    if not good:
        reason = f"; the first: {skipped[0].error}" if skipped else ": the source is empty"
        raise ComposeError(f"corpus: not one of {len(entries)} songs could be made{reason}")
    manifest = recipe.out / "manifest.jsonl"
    twice = write_songs(good, recipe, digest, manifest)
    return Report(manifest, len(good) - len(twice), skipped + twice)


def draw_split(group: str, seed: int, val: float, test: float) -> str:
    """The split of a group, from a hash: it depends on nothing else in the corpus."""
    digest = hashlib.sha256(f"{seed} {group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if share < test else "val" if share < test + val else "train"


def write_songs(
    entries: Sequence[Entry], recipe: Recipe, digest: str, manifest: Path
) -> tuple[Result, ...]:
    """Gather the records into a manifest in which no text stands twice.

    Returns:
        The songs that are left out because all that is said of them was said of another.
    """
    used: set[str] = set()
    twice: list[Result] = []

    def songs() -> Iterator[Song]:
        for entry in entries:
            made = read_record(_record(recipe, entry), digest)
            if made is None:
                raise ComposeError(f"record of {entry.name}: gone since it was written")
            if any(caption.text in used for caption in made.texts.fixed):
                twice.append(Result(entry, "its caption is that of another song"))
                continue
            split = recipe.split_of(entry)
            audio = _audio(recipe, entry).absolute()
            yield Song(
                entry.name, audio, _unused(made, used, recipe.queries), made.texts.tags, split,
                made.licence, made.title, made.meta, made.labels,
            )  # fmt: skip

    write_manifest(songs(), manifest)
    return tuple(twice)


def _unused(made: Made, used: set[str], queries: int) -> tuple[Caption, ...]:
    """The fixed captions, and as many of the others as a song gets, none used before."""
    chosen = list(made.texts.fixed)
    for options, count in ((made.texts.shorts, SHORTS), (made.texts.queries, queries)):
        chosen += list(islice((c for c in options if c.text not in used), count))
    used.update(c.text for c in chosen)
    return tuple(chosen)


def _run(source: Source, recipe: Recipe, entries: list[Entry], digest: str) -> Iterator[Result]:
    if recipe.workers <= 1:
        for entry in entries:
            yield _work(source, recipe, entry, digest)
        return
    context = multiprocessing.get_context("spawn")
    waiting = iter(entries)
    with ProcessPoolExecutor(recipe.workers, context, _begin_worker) as pool:
        futures: set[Future[Result]] = set()
        try:
            while True:
                for entry in islice(waiting, recipe.workers * _AHEAD - len(futures)):
                    futures.add(pool.submit(_work, source, recipe, entry, digest))
                if not futures:
                    return
                done, futures = wait(futures, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise ComposeError(
                "a worker was killed (out of memory?); the same command goes on where it stopped"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end when it is killed: workers of a pool would wait on.

    The song in hand is lost; its temporary file is removed by the next run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            multiprocessing.connection.wait([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _clear_leftovers(folder: Path) -> None:
    """Remove temporary files whose writer is no longer alive."""
    for path in folder.glob(".*.tmp"):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and not _is_alive(int(writer)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no Linux
        return True
    return fields[0] != "Z"  # ended, and only its parent has not asked yet


def _work(source: Source, recipe: Recipe, entry: Entry, digest: str) -> Result:
    """Make one song unless it is there; the only thing that runs in a worker."""
    record, audio = _record(recipe, entry), _audio(recipe, entry)
    if audio.is_file() and read_record(record, digest) is not None:
        return Result(entry)
    try:
        made = source.make(entry, audio, recipe.seed)
    except LongplayError as error:
        return Result(entry, str(error))
    write_record(record, made, digest)
    return Result(entry)


def _record(recipe: Recipe, entry: Entry) -> Path:
    return recipe.out / "songs" / f"{entry.name}.json"


def _audio(recipe: Recipe, entry: Entry) -> Path:
    return recipe.out / "audio" / f"{entry.name}.{recipe.format}"
