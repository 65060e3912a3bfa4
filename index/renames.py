"""Files that went to another place: the same content at a new path, and nothing at the old one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from index.records import SongRecord


@dataclass(frozen=True)
class Moved:
    """Where a song is now, in place of what its record says; ids, texts and embeddings stay."""

    path: str
    size: int
    mtime_ns: int

    def of(self, record: SongRecord) -> SongRecord:
        """The record as it is now."""
        return replace(record, path=self.path, size=self.size, mtime_ns=self.mtime_ns)


class Places:
    """Finds the song that a file once was.

    Args:
        records: of all living songs.
    """

    def __init__(self, records: Iterable[SongRecord]):
        self._paths: dict[str, list[str]] = {}
        for record in records:
            self.put(record)

    def put(self, record: SongRecord) -> None:
        """A song is, or is now, at the path of its record."""
        self._paths.setdefault(record.sha256, []).append(record.path)

    def gone(self, sha256: str, by_path: Mapping[str, SongRecord]) -> SongRecord | None:
        """The song of this content whose own file is no longer there, or None.

        Args:
            sha256: of the file that was found.
            by_path: living songs.
        """
        for path in self._paths.get(sha256, ()):
            record = by_path.get(path)
            # A link that leads nowhere is there: its disk may come back.
            if record and record.sha256 == sha256 and not os.path.lexists(path):
                return record
        return None
