"""Filters on what is known of songs: an SQLite table in memory, derived from the store."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from index.records import Scalar, SongRecord
from retrieval.errors import FilterError

_OWN = ("id", "path", "title", "duration_s", "tags")
_TIME_LIMIT_S = 5.0
_FUNCTIONS = frozenset(
    "like glob lower upper length abs round instr substr coalesce ifnull min max trim".split()
)


class Catalog:
    """Answers ``where`` expressions.

    Columns are ``id``, ``path``, ``title``, ``duration_s``, ``tags`` (all tags, divided by
    commas) and every key of the songs' ``meta``.
    """

    def __init__(self, songs: Sequence[SongRecord]):
        keys = sorted({key for song in songs for key in song.meta} - set(_OWN))
        # SQLite's names do not tell upper from lower case.
        unique = {key.lower(): key for key in keys if key.lower() not in _OWN}
        self.columns = [*_OWN, *unique.values()]
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        names = ", ".join(_quote(name) for name in self.columns)
        self._db.execute(f"CREATE TABLE songs ({names})")
        marks = ", ".join("?" * len(self.columns))
        self._db.executemany(
            f"INSERT INTO songs VALUES ({marks})", [self._row(song) for song in songs]
        )
        self._db.set_authorizer(_authorize)

    def _row(self, song: SongRecord) -> list[Scalar]:
        own: list[Scalar] = [
            song.id, song.path, song.title, song.duration_s, ", ".join(song.tags)
        ]  # fmt: skip
        return own + [song.meta.get(name) for name in self.columns[len(_OWN) :]]

    def filter(self, where: str) -> list[int]:
        """Ids of the songs for which an SQL expression holds, rising.

        Args:
            where: for example ``bpm > 120 AND genre = 'jazz'``.

        Raises:
            FilterError: it is no valid expression over :attr:`columns`, or takes too long.
        """
        if not where.strip() or ";" in where or "--" in where or "/*" in where:
            raise FilterError(f"where: got {where!r}, expected one expression without comments")
        deadline = time.monotonic() + _TIME_LIMIT_S
        self._db.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
        try:
            found = self._db.execute(f"SELECT id FROM songs WHERE ({where}\n) ORDER BY id")
            return [row[0] for row in found]
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise FilterError(
                f"where: {where!r} cannot be used ({error}); expected an expression over "
                f"{', '.join(self.columns)}, with texts in single quotes"
            ) from error
        finally:
            self._db.set_progress_handler(None, 0)


def _quote(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Allow reading the table and a few functions, nothing else."""
    allowed = action == sqlite3.SQLITE_SELECT
    allowed |= action == sqlite3.SQLITE_READ and first == "songs"
    allowed |= action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
