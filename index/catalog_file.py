"""The catalogue on disk: a cache, made again where it is missing or damaged.

``cache/SOURCE-OWN.catalog1`` is the SQLite table of a library whose songs have the hash SOURCE
(first half); OWN is the SHA-256 of the file itself, which is checked before SQLite sees a byte of
it. Without it every record has to be read before the first question with ``where`` is answered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from index.catalog import Catalog
from index.code_files import FOLDER
from index.files import CheckedFile, Disk, Tally, sha256_hex
from index.manifest import Manifest
from index.records import SongRecord
from retrieval.errors import DamagedLibraryError

#: Fewer songs are read as quickly from their records.
LEAST_SONGS = 1 << 11

_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.catalog1")


def catalog_of(
    manifest: Manifest, library: Path, records: Callable[[], Sequence[SongRecord]]
) -> Catalog:
    """The catalogue of a state: from the cache, or made and kept there if that can be.

    Args:
        manifest: of the state.
        library: its folder.
        records: gives those of all living songs.
    """
    if manifest.songs < LEAST_SONGS:
        return Catalog(records())
    source, folder = _source(manifest), library / FOLDER
    found = _read(source, folder, manifest.songs)
    if found is None:
        found = Catalog(records())
        try:
            _write(found.dump(), source, folder)
        except OSError:
            pass  # a full or read-only disk: it is only a cache
    return found


def _source(manifest: Manifest) -> str:
    """What the songs' table depends on, as a hash in hex."""
    files = [f.sha256 for s in manifest.segments for f in s.files if f.name.endswith("songs.jsonl")]
    moved = sorted((id, place.path) for id, place in manifest.moved.items())
    return sha256_hex(repr((files, sorted(manifest.dead_songs), moved)).encode())[:32]


def _read(source: str, folder: Path, songs: int) -> Catalog | None:
    """The first whole cache of a source; damaged ones are deleted."""
    for path in folder.glob(f"{source}-*.catalog1"):
        name = _NAME.fullmatch(path.name)
        try:
            if name:
                file = CheckedFile(path, path.stat().st_size, name[2])
                return Catalog.load(file.data.tobytes(), songs)
        except (DamagedLibraryError, OSError):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                pass
    return None


def _write(data: bytes, source: str, folder: Path) -> None:
    """Keep a catalogue in place of those of other states."""
    disk, tally = Disk(), Tally()
    folder.mkdir(exist_ok=True)
    old = [path for path in folder.glob("*.catalog1") if _NAME.fullmatch(path.name)]
    temporary = folder / f"{source}.{os.getpid()}.tmp"
    disk.write(temporary, tally.over([data]))
    disk.sync_file(temporary)
    target = folder / f"{source}-{tally.sha256}.catalog1"
    disk.rename(temporary, target)
    for path in old:
        if path != target:
            path.unlink(missing_ok=True)
