"""One immutable batch of songs and texts: how it is written, and how it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from index.arrays import Column, dump_columns, view_columns
from index.code_files import codes_of
from index.codes import Codes
from index.files import CheckedFile
from index.manifest import Manifest, SegmentEntry
from index.records import SongRecord, TextRecord, song_from_json, text_from_json
from index.renames import Moved
from retrieval.embedder import SongEmbedding, TextEmbedding
from retrieval.errors import DamagedLibraryError

R = TypeVar("R")
#: ``song`` of a text that came by itself.
NO_SONG = -1


class Lines:
    """JSON Lines in a checked file; a line is parsed when it is asked for."""

    def __init__(self, file: CheckedFile):
        self._file = file

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.flatnonzero(self._file.data == ord("\n"))

    def __len__(self) -> int:
        return len(self._ends)

    def raw(self, row: int) -> bytes:
        """One line with its end."""
        first = int(self._ends[row - 1]) + 1 if row else 0
        return self._file.data[first : int(self._ends[row]) + 1].tobytes()

    def parse(self, row: int, read: Callable[[dict[str, Any]], R]) -> R:
        """What ``read`` makes of one line; DamagedLibraryError where it is no such record."""
        try:
            return read(json.loads(self.raw(row)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedLibraryError(
                f"{self._file.path}: line {row + 1} is no record ({error})"
            ) from error


class Part:
    """Songs or texts of a segment: arrays, and a line of JSON for each.

    Args:
        arrays, lines: the two files.
        names: arrays with a row for each clip or passage.
    """

    def __init__(self, arrays: CheckedFile, lines: CheckedFile, names: tuple[str, ...]):
        self.path, self.sha256, self.names = arrays.path, arrays.sha256, names
        self._arrays, self.lines = arrays, Lines(lines)
        self._codes: list[Codes | None] = []

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """All arrays, checked to fit each other and the lines."""
        found = view_columns(self._arrays.data)
        if not self._fit(found):
            raise DamagedLibraryError(f"{self.path}: its parts do not fit each other")
        return found

    def _fit(self, found: Mapping[str, np.ndarray]) -> bool:
        if any(name not in found for name in ("count", *self.names)):
            return False
        count = found["count"]
        if count.shape != (len(self.lines),) or (len(count) and int(count.min()) < 1):
            return False
        return all(len(found[name]) == count.sum() for name in self.names)

    @cached_property
    def ids(self) -> np.ndarray:
        """int64 ``[owners]``, rising."""

        def parse(row: int) -> int:
            return self.lines.parse(row, lambda fields: int(fields["id"]))

        return self._column_or("id", parse, lambda id: id)

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 ``[owners + 1]`` into the rows."""
        return np.concatenate([[0], np.cumsum(self.columns["count"])]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.columns["count"])

    def column(self, name: str, owner: int) -> np.ndarray:
        """Rows of one owner."""
        return self.columns[name][self.offsets[owner] : self.offsets[owner + 1]]

    def codes(
        self, library: Path, queries: Callable[[], np.ndarray | None] = lambda: None
    ) -> Codes | None:
        """Codes of the embeddings, from a library's cache; kept, as a segment outlives states.

        Args:
            library: its folder.
            queries: a sample of what will ask, for codes that must be made.
        """
        if not self._codes:
            rows = self.columns[self.names[0]]
            self._codes.append(codes_of(rows, self.offsets, self.sha256, library, queries=queries))
        return self._codes[0]

    def _column_or(
        self, name: str, record: Callable[[int], R], value: Callable[[R], int | float]
    ) -> np.ndarray:
        """An array, or what the lines say: format 1 had it there alone."""
        found = self.columns.get(name)
        if found is not None:
            return found
        return np.array([value(record(row)) for row in range(len(self))])


class SongPart(Part):
    """``clip_emb``, ``clip_times`` and records of songs."""

    def __init__(self, arrays: CheckedFile, lines: CheckedFile):
        super().__init__(arrays, lines, ("clip_emb", "clip_times"))

    def record(self, row: int) -> SongRecord:
        """Record of one song."""
        return self.lines.parse(row, song_from_json)

    @cached_property
    def durations_s(self) -> np.ndarray:
        """float64 ``[songs]``."""
        return self._column_or("duration_s", self.record, lambda record: record.duration_s)

    @cached_property
    def contents(self) -> np.ndarray:
        """int64 ``[songs]``, equal where the files' contents are equal."""
        return self._column_or("content", self.record, lambda r: content_key(r.sha256))


class TextPart(Part):
    """``passage_emb``, ``passage_weight`` and records of texts."""

    def __init__(self, arrays: CheckedFile, lines: CheckedFile):
        super().__init__(arrays, lines, ("passage_emb", "passage_weight"))

    def record(self, row: int) -> TextRecord:
        """Record of one text."""
        return self.lines.parse(row, text_from_json)

    @cached_property
    def songs(self) -> np.ndarray:
        """int64 ``[texts]``, id of the song that each came with, or :data:`NO_SONG`."""
        return self._column_or("song", self.record, lambda r: NO_SONG if r.song is None else r.song)

    @cached_property
    def keys(self) -> np.ndarray:
        """int64 ``[texts]``, equal where texts are equal."""
        return self._column_or("key", self.record, lambda record: text_key(record.text))


class Segment:
    """A segment's files, held open from the start and checked when they are first read.

    Args:
        folder: of the library.
        entry: what the manifest says of the segment.

    Raises:
        DamagedLibraryError: a file is missing or has another length.
    """

    def __init__(self, folder: Path, entry: SegmentEntry):
        self.entry = entry
        self.files = {
            file.name.partition("-")[2]: CheckedFile(folder / file.name, file.n_bytes, file.sha256)
            for file in entry.files
        }

    @cached_property
    def songs(self) -> SongPart | None:
        """Its songs, None where there are none."""
        found = self._pair("songs")
        return SongPart(*found) if found else None

    @cached_property
    def texts(self) -> TextPart | None:
        """Its texts, None where there are none."""
        found = self._pair("texts")
        return TextPart(*found) if found else None

    def lines(self, kind: str) -> Lines:
        """Records of its ``songs`` or ``texts``, whatever became of their arrays."""
        return Lines(self.files[f"{kind}.jsonl"])

    def _pair(self, kind: str) -> tuple[CheckedFile, CheckedFile] | None:
        arrays, lines = (self.files.get(f"{kind}.{end}") for end in ("safetensors", "jsonl"))
        return (arrays, lines) if arrays and lines else None


def text_key(text: str) -> int:
    """A number for a text, int64."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little", signed=True)


def content_key(sha256: str) -> int:
    """The first 64 bits of a file's hash in hex, int64."""
    return int.from_bytes(bytes.fromhex(sha256[:16]), "little", signed=True)


def new_files(
    songs: Sequence[tuple[SongRecord, SongEmbedding]],
    texts: Sequence[tuple[TextRecord, TextEmbedding]],
    dtype: str,
) -> dict[str, Iterator[bytes]]:
    """Files of a new segment: name of the part -> its bytes, in pieces."""
    files: dict[str, Iterator[bytes]] = {}
    if songs:
        columns = {
            "id": _numbers([r.id for r, _ in songs]),
            "content": _numbers([content_key(r.sha256) for r, _ in songs]),
            "duration_s": Column([np.array([r.duration_s for r, _ in songs])], "float64"),
            "count": _numbers([len(e.clip_emb) for _, e in songs]),
            "clip_times": Column([e.clip_times for _, e in songs], "float64", (2,)),
            "clip_emb": _matrix([e.clip_emb for _, e in songs], dtype),
        }
        files["songs.safetensors"] = dump_columns(columns)
        files["songs.jsonl"] = _dump_lines([r.to_json() for r, _ in songs])
    if texts:
        columns = {
            "id": _numbers([r.id for r, _ in texts]),
            "song": _numbers([NO_SONG if r.song is None else r.song for r, _ in texts]),
            "key": _numbers([text_key(r.text) for r, _ in texts]),
            "count": _numbers([len(e.passage_emb) for _, e in texts]),
            "passage_weight": Column([e.passage_weight for _, e in texts], "float32"),
            "passage_emb": _matrix([e.passage_emb for _, e in texts], dtype),
        }
        files["texts.safetensors"] = dump_columns(columns)
        files["texts.jsonl"] = _dump_lines([r.to_json() for r, _ in texts])
    return files


def merged_files(
    segments: Sequence[Segment], manifest: Manifest
) -> tuple[dict[str, Iterator[bytes]], int, int]:
    """Files of one segment with what is alive in several, and its numbers of songs and texts."""
    dead_songs, dead_texts, dtype = manifest.dead_songs, manifest.dead_texts, manifest.dtype
    songs = [(s.songs, _living(s.songs.ids, dead_songs)) for s in segments if s.songs]
    texts = [
        (s.texts, _living(s.texts.ids, dead_texts) & _living(s.texts.songs, dead_songs))
        for s in segments
        if s.texts
    ]
    files: dict[str, Iterator[bytes]] = {}
    n_songs, n_texts = (sum(int(kept.sum()) for _, kept in some) for some in (songs, texts))
    if n_songs:
        columns = {
            "id": _numbers(np.concatenate([p.ids[kept] for p, kept in songs])),
            "content": _numbers(np.concatenate([p.contents[kept] for p, kept in songs])),
            "duration_s": Column([p.durations_s[kept] for p, kept in songs], "float64"),
            "clip_times": _kept_rows(songs, "clip_times", "float64"),
            "clip_emb": _kept_rows(songs, "clip_emb", dtype),
        }
        files["songs.safetensors"] = dump_columns(columns | _kept_count(songs))
        files["songs.jsonl"] = _kept_songs(songs, manifest.moved)
    if n_texts:
        columns = {
            "id": _numbers(np.concatenate([p.ids[kept] for p, kept in texts])),
            "song": _numbers(np.concatenate([p.songs[kept] for p, kept in texts])),
            "key": _numbers(np.concatenate([p.keys[kept] for p, kept in texts])),
            "passage_weight": _kept_rows(texts, "passage_weight", "float32"),
            "passage_emb": _kept_rows(texts, "passage_emb", dtype),
        }
        files["texts.safetensors"] = dump_columns(columns | _kept_count(texts))
        files["texts.jsonl"] = _kept_lines(texts)
    return files, n_songs, n_texts


def _living(ids: np.ndarray, dead: frozenset[int]) -> np.ndarray:
    return ~np.isin(ids, np.fromiter(dead, np.int64, len(dead)))


def _numbers(values: Sequence[int] | np.ndarray) -> Column:
    return Column([np.asarray(values, np.int64)], "int64")


def _matrix(parts: Sequence[np.ndarray], dtype: str) -> Column:
    return Column(parts, dtype, (int(parts[0].shape[1]),))


def _kept_count(parts: Sequence[tuple[Part, np.ndarray]]) -> dict[str, Column]:
    return {"count": _numbers(np.concatenate([p.columns["count"][kept] for p, kept in parts]))}


def _kept_rows(parts: Sequence[tuple[Part, np.ndarray]], name: str, dtype: str) -> Column:
    """Rows of the owners that are kept, run by run, so that whole parts are written as they lie."""
    pieces = []
    for part, kept in parts:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            pieces.append(part.columns[name][part.offsets[first] : part.offsets[last]])
    return Column(pieces, dtype, tuple(parts[0][0].columns[name].shape[1:]))


def _kept_lines(parts: Sequence[tuple[Part, np.ndarray]]) -> Iterator[bytes]:
    for part, kept in parts:
        for row in np.flatnonzero(kept):
            yield part.lines.raw(int(row))


def _kept_songs(
    parts: Sequence[tuple[SongPart, np.ndarray]], moved: Mapping[int, Moved]
) -> Iterator[bytes]:
    """Lines of songs, those of moved ones written anew."""
    for part, kept in parts:
        for row in np.flatnonzero(kept).tolist():
            place = moved.get(int(part.ids[row]))
            if place is None:
                yield part.lines.raw(row)
            else:
                yield from _dump_lines([place.of(part.record(row)).to_json()])


def _dump_lines(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"
