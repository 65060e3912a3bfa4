"""A library on disk: immutable segments, and one manifest that says which of them count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from index.files import Disk, read_bounded, read_checked, sha256_hex
from index.manifest import (
    FILE_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    SegmentEntry,
    dump_manifest,
    file_name,
    load_manifest,
)
from index.records import SongRecord, TextRecord, song_from_json, text_from_json
from retrieval.embedder import SongEmbedding, TextEmbedding
from retrieval.errors import DamagedLibraryError, LibraryError, LibraryWriteError


@dataclass(frozen=True)
class StoredSong:
    """A song as stored: its record, clips ``[clips, dim]`` and their times in seconds."""

    record: SongRecord
    clip_emb: np.ndarray
    clip_times: np.ndarray


@dataclass(frozen=True)
class StoredText:
    """A text as stored: its record, passages ``[passages, dim]`` and their weights."""

    record: TextRecord
    passage_emb: np.ndarray
    passage_weight: np.ndarray


class Store:
    """Reads and changes a library's folder; the caller holds the writer lock for changes."""

    def __init__(self, folder: Path, manifest: Manifest, disk: Disk):
        self.folder, self.manifest, self.disk = folder, manifest, disk

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, disk: Disk | None = None) -> Store:
        """Make a new, empty library; LibraryError where something is there already."""
        disk = disk or Disk()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LibraryError(f"library {folder}: exists already; open it, or choose another name")
        folder.mkdir(parents=True, exist_ok=True)
        store = cls(folder, manifest, disk)
        store._write_manifest(manifest)
        return store

    @classmethod
    def open(cls, folder: Path, disk: Disk | None = None) -> Store:
        """Open the last committed state.

        Raises:
            LibraryError: there is no library.
            DamagedLibraryError: its manifest is damaged.
        """
        path = folder / MANIFEST_NAME
        if not path.exists():
            raise LibraryError(f"library {folder}: not found, expected a folder with {path.name}")
        data = read_bounded(path, MAX_MANIFEST_BYTES)
        return cls(folder, load_manifest(data, str(folder)), disk or Disk())

    def load(self) -> tuple[list[StoredSong], list[StoredText]]:
        """All living songs and texts; every file is checked before it is parsed.

        Raises:
            DamagedLibraryError: a file is missing or differs in any bit.
        """
        songs: list[StoredSong] = []
        texts: list[StoredText] = []
        for segment in self.manifest.segments:
            songs += self._songs(segment)
            texts += self._texts(segment)
        dead = self.manifest.dead_songs
        living = [s for s in songs if s.record.id not in dead]
        gone = self.manifest.dead_texts
        return living, [t for t in texts if t.record.id not in gone and t.record.song not in dead]

    def commit(
        self,
        songs: Sequence[tuple[SongRecord, SongEmbedding]] = (),
        texts: Sequence[tuple[TextRecord, TextEmbedding]] = (),
        dead_songs: frozenset[int] = frozenset(),
        dead_texts: frozenset[int] = frozenset(),
    ) -> None:
        """Add and remove in one step: afterwards all of it holds, or after a crash none of it.

        Raises:
            LibraryWriteError: the disk refused; the library is as it was.
        """
        old = self.manifest
        number = old.next_segment
        parts = {**_song_parts(songs, old.dtype), **_text_parts(texts, old.dtype)}
        try:
            self._sweep()
            files = tuple(self._write_part(number, part, data) for part, data in parts.items())
            segments = old.segments
            if files:
                segments += (SegmentEntry(number, len(songs), len(texts), files),)
            manifest = replace(
                old,
                generation=old.generation + 1,
                segments=segments,
                dead_songs=old.dead_songs | dead_songs,
                dead_texts=old.dead_texts | dead_texts,
                next_song=max([old.next_song, *(r.id + 1 for r, _ in songs)]),
                next_text=max([old.next_text, *(r.id + 1 for r, _ in texts)]),
                next_segment=number + 1,
            )
            self.disk.sync_folder(self.folder)
            self._write_manifest(manifest)
        except OSError as error:
            raise LibraryWriteError(
                f"library {self.folder}: cannot be changed ({error.strerror or error}); it is as "
                "it was. Is the disk full or read-only?"
            ) from error
        self.manifest = manifest

    def verify(self) -> int:
        """Read every file against its checksum; returns how many there are."""
        count = 1
        for segment in self.manifest.segments:
            for file in segment.files:
                read_checked(self.folder / file.name, file.n_bytes, file.sha256)
                count += 1
        return count

    def _write_part(self, number: int, part: str, data: bytes) -> FileEntry:
        path = self.folder / file_name(number, part)
        self.disk.write(path, data)
        self.disk.sync_file(path)
        return FileEntry(path.name, len(data), sha256_hex(data))

    def _write_manifest(self, manifest: Manifest) -> None:
        self.disk.write_atomically(self.folder / MANIFEST_NAME, dump_manifest(manifest))

    def _sweep(self) -> None:
        """Delete what an interrupted commit left behind."""
        known = {file.name for segment in self.manifest.segments for file in segment.files}
        for path in self.folder.iterdir():
            if FILE_NAME.fullmatch(path.name) and path.name not in known:
                self.disk.unlink(path)

    def _read(self, segment: SegmentEntry, part: str) -> bytes | None:
        file = segment.file(part)
        if file is None:
            return None
        return read_checked(self.folder / file.name, file.n_bytes, file.sha256)

    def _songs(self, segment: SegmentEntry) -> list[StoredSong]:
        data, lines = self._read(segment, "songs.safetensors"), self._read(segment, "songs.jsonl")
        if data is None or lines is None:
            return []
        arrays = _parse_arrays(data)
        records = [song_from_json(row) for row in _parse_lines(lines)]
        parts = _split(arrays, len(records), "clip_emb", "clip_times")
        return [
            StoredSong(r, emb.astype(np.float32), times)
            for r, (emb, times) in zip(records, parts, strict=True)
        ]

    def _texts(self, segment: SegmentEntry) -> list[StoredText]:
        data, lines = self._read(segment, "texts.safetensors"), self._read(segment, "texts.jsonl")
        if data is None or lines is None:
            return []
        arrays = _parse_arrays(data)
        records = [text_from_json(row) for row in _parse_lines(lines)]
        parts = _split(arrays, len(records), "passage_emb", "passage_weight")
        return [
            StoredText(r, emb.astype(np.float32), weight)
            for r, (emb, weight) in zip(records, parts, strict=True)
        ]


def _song_parts(songs: Sequence[tuple[SongRecord, SongEmbedding]], dtype: str) -> dict[str, bytes]:
    if not songs:
        return {}
    arrays = {
        "clip_emb": np.concatenate([e.clip_emb for _, e in songs]).astype(dtype),
        "clip_times": np.concatenate([e.clip_times for _, e in songs]).astype(np.float64),
        "count": np.array([len(e.clip_emb) for _, e in songs], np.int64),
    }
    return {
        "songs.safetensors": _dump_arrays(arrays),
        "songs.jsonl": _dump_lines([r.to_json() for r, _ in songs]),
    }


def _text_parts(texts: Sequence[tuple[TextRecord, TextEmbedding]], dtype: str) -> dict[str, bytes]:
    if not texts:
        return {}
    arrays = {
        "passage_emb": np.concatenate([e.passage_emb for _, e in texts]).astype(dtype),
        "passage_weight": np.concatenate([e.passage_weight for _, e in texts]).astype(np.float32),
        "count": np.array([len(e.passage_emb) for _, e in texts], np.int64),
    }
    return {
        "texts.safetensors": _dump_arrays(arrays),
        "texts.jsonl": _dump_lines([r.to_json() for r, _ in texts]),
    }


def _dump_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    return save(arrays)


def _dump_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parse_arrays(data: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except SafetensorError as error:
        raise DamagedLibraryError(f"segment: is no safetensors file ({error})") from error


def _parse_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.decode().split("\n") if line]


def _split(arrays: dict[str, np.ndarray], owners: int, *names: str) -> list[tuple[np.ndarray, ...]]:
    count = arrays["count"]
    if len(count) != owners or any(len(arrays[name]) != count.sum() for name in names):
        raise DamagedLibraryError("segment: its parts do not fit each other")
    edges = np.cumsum(count)[:-1]
    return list(zip(*(np.split(arrays[name], edges) for name in names), strict=True))
