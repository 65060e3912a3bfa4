"""``manifest.json``: the one file that says what a library consists of (docs/library-format.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from index.files import MAX_FILE_BYTES, sha256_hex
from index.renames import Moved
from retrieval.errors import DamagedLibraryError, LibraryError

#: What is written. In format 1 arrays hold no ids, and before format 3 no song could be moved; both
#: are read, and the next commit writes a manifest of this format.
FORMAT = 3
READABLE = (1, 2, 3)
MANIFEST_NAME = "manifest.json"
#: The same bytes once more, for ``repair`` where the first are damaged.
BACKUP_NAME = "manifest.backup.json"
#: A million segments of four files fit; what is longer was not written by us.
MAX_MANIFEST_BYTES = 1 << 30
DTYPES = ("float32", "float16")
PARTS = ("songs.safetensors", "songs.jsonl", "texts.safetensors", "texts.jsonl")
#: Names that the store gives to its files; only such names are read, and only such are deleted.
FILE_NAME = re.compile(r"(\d{8,18})-(songs|texts)\.(safetensors|jsonl)")

_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileEntry:
    """A file of a segment: its name in the library's folder, its length and its SHA-256."""

    name: str
    n_bytes: int
    sha256: str


@dataclass(frozen=True)
class SegmentEntry:
    """An immutable batch of songs and texts, in at most one file of each of :data:`PARTS`."""

    number: int
    songs: int
    texts: int
    files: tuple[FileEntry, ...]

    def file(self, part: str) -> FileEntry | None:
        """The file of one part, None where the segment has nothing of the kind."""
        return next((f for f in self.files if f.name == file_name(self.number, part)), None)


@dataclass(frozen=True)
class Manifest:
    """One committed state of a library.

    Attributes:
        generation: 0 for a new library, one more with each commit.
        model_digest: digest of the model whose embeddings are stored.
        model_path: where that model's checkpoint was, None for the shipped one. Only a hint.
        dim: width of the embeddings.
        dtype: how they are stored, ``float32`` or ``float16``.
        clip_s: length of a clip in seconds.
        tau: temperature of the attention.
        segments: in the order in which they were committed.
        dead_songs: ids of songs that were removed or replaced; their texts are dead with them.
        dead_texts: ids of texts that were removed by themselves.
        moved: songs whose file is elsewhere than their record says, by id.
        next_song, next_text, next_segment: the first numbers that were never given out.
    """

    generation: int
    model_digest: str
    model_path: str | None
    dim: int
    dtype: str
    clip_s: float
    tau: float
    segments: tuple[SegmentEntry, ...] = ()
    dead_songs: frozenset[int] = frozenset()
    dead_texts: frozenset[int] = frozenset()
    moved: Mapping[int, Moved] = field(default_factory=dict)
    next_song: int = 1
    next_text: int = 1
    next_segment: int = 1

    @property
    def songs(self) -> int:
        """Number of songs that are alive."""
        return sum(segment.songs for segment in self.segments) - len(self.dead_songs)


def file_name(number: int, part: str) -> str:
    """Name of one part of a segment's files."""
    return f"{number:08d}-{part}"


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``manifest.json``; the same state always gives the same bytes."""
    body: dict[str, Any] = {f.name: getattr(manifest, f.name) for f in fields(manifest)}
    body["format"] = FORMAT
    body["segments"] = [
        {
            "number": s.number,
            "songs": s.songs,
            "texts": s.texts,
            "files": [{"name": f.name, "bytes": f.n_bytes, "sha256": f.sha256} for f in s.files],
        }
        for s in manifest.segments
    ]
    body["moved"] = [[id, m.path, m.size, m.mtime_ns] for id, m in sorted(manifest.moved.items())]
    body["dead_songs"] = to_ranges(manifest.dead_songs)
    body["dead_texts"] = to_ranges(manifest.dead_texts)
    return _seal(body)


def _seal(body: dict[str, Any]) -> bytes:
    body["checksum"] = sha256_hex(_dumps(body))
    return _dumps(body)


def _dumps(body: dict[str, Any]) -> bytes:
    return (json.dumps(body, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def load_manifest(data: bytes, where: str) -> Manifest:
    """Read ``manifest.json``.

    Args:
        data: its bytes.
        where: the library, for messages.

    Raises:
        DamagedLibraryError: a bit is not as it was written.
        LibraryError: it was written by a newer Longplay.
    """
    try:
        body = json.loads(data)
        checksum = body.pop("checksum")
        if data != _seal(body) or body["checksum"] != checksum:
            raise DamagedLibraryError(f"library {where}: {MANIFEST_NAME} is damaged (checksum)")
        found = body.pop("format")
        if found not in READABLE:
            raise LibraryError(
                f"library {where}: has format {found}, expected one of {READABLE}, which this "
                "version of Longplay reads; it was probably made by a newer one"
            )
        del body["checksum"]
        return _parse(body)
    except LibraryError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedLibraryError(
            f"library {where}: {MANIFEST_NAME} is damaged ({type(error).__name__}: {error})"
        ) from error


def _parse(body: dict[str, Any]) -> Manifest:
    segments = tuple(_parse_segment(s) for s in body.pop("segments"))
    dead_songs, dead_texts = (from_ranges(body.pop(n)) for n in ("dead_songs", "dead_texts"))
    moved = {id: Moved(path, *facts) for id, path, *facts in body.pop("moved", ())}
    for id, one in moved.items():
        _check("moved", id, all(map(_is_count, (id, one.size))) and isinstance(one.path, str))
        _check("moved", id, isinstance(one.mtime_ns, int))
    manifest = Manifest(
        segments=segments, dead_songs=dead_songs, dead_texts=dead_texts, moved=moved, **body
    )
    for name in ("generation", "next_song", "next_text", "next_segment"):
        _check(name, body[name], _is_count(body[name]))
    _check("model_digest", manifest.model_digest, isinstance(manifest.model_digest, str))
    _check("model_path", manifest.model_path, isinstance(manifest.model_path, str | None))
    _check("dim", manifest.dim, _is_count(manifest.dim) and 1 <= manifest.dim <= 1 << 16)
    _check("dtype", manifest.dtype, manifest.dtype in DTYPES)
    for name in ("clip_s", "tau"):
        value = body[name]
        _check(name, value, isinstance(value, float) and 1e-4 <= value <= 1e6)
    numbers = [segment.number for segment in segments]
    _check("segments", numbers, numbers == sorted(set(numbers)))
    return manifest


def _parse_segment(row: dict[str, Any]) -> SegmentEntry:
    entry = SegmentEntry(
        number=row["number"],
        songs=row["songs"],
        texts=row["texts"],
        files=tuple(FileEntry(f["name"], f["bytes"], f["sha256"]) for f in row["files"]),
    )
    for value in (entry.number, entry.songs, entry.texts):
        _check("segment", row, _is_count(value))
    expected = {file_name(entry.number, part) for part in PARTS}
    _check("segment files", row, len({f.name for f in entry.files}) == len(entry.files))
    for file in entry.files:
        # The only names that pass are the store's own, so that none can lead out of the folder.
        _check("file name", file.name, file.name in expected and FILE_NAME.fullmatch(file.name))
        _check("file length", file.n_bytes, _is_count(file.n_bytes))
        _check("file length", file.n_bytes, file.n_bytes <= MAX_FILE_BYTES)
        _check("file checksum", file.sha256, _HEX.fullmatch(file.sha256))
    return entry


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _check(name: str, value: Any, good: object) -> None:
    if not good:
        raise ValueError(f"{name} is {value!r:.200}")


def to_ranges(ids: Iterable[int]) -> list[list[int]]:
    """Sorted ``[first, last]`` pairs: a removed album takes a few bytes, not one number a song."""
    ranges: list[list[int]] = []
    for value in sorted(ids):
        if ranges and value == ranges[-1][1] + 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value])
    return ranges


def from_ranges(ranges: list[list[int]], limit: int = 1 << 28) -> frozenset[int]:
    """Undo :func:`to_ranges`; ValueError where it makes no sense or names over ``limit`` ids."""
    total = 0
    for first, last in ranges:
        _check("range", (first, last), _is_count(first) and _is_count(last) and first <= last)
        total += last - first + 1
    _check("number of removed ids", total, total <= limit)
    return frozenset(i for first, last in ranges for i in range(first, last + 1))
