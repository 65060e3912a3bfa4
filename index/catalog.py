"""Filters on what is known of songs: an SQLite table in memory, derived from the store."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence

from index.records import Scalar, SongRecord
from retrieval.errors import DamagedLibraryError, FilterError

_OWN = ("id", "path", "title", "duration_s", "tags", "added")
_TIME_LIMIT_S = 5.0
_FUNCTIONS = frozenset(
    "like glob lower upper length abs round instr substr coalesce ifnull min max trim has "
    "json_array_length json_extract date datetime strftime julianday unixepoch".split()
)


class Catalog:
    """Answers ``where`` expressions.

    Columns are ``id``, ``path``, ``title``, ``duration_s``, ``tags``, ``added`` (UTC, as in
    ``2026-01-31T12:00:00Z``) and every key of the songs' ``meta``. Values keep their type. Lists,
    tags among them, are JSON; ``has(tags, 'jazz')`` asks whether one stands in it.
    """

    def __init__(self, songs: Sequence[SongRecord]):
        keys = sorted({key for song in songs for key in song.meta} - set(_OWN))
        # SQLite's names do not tell upper from lower case.
        unique = {key.lower(): key for key in keys if key.lower() not in _OWN}
        self.columns = [*_OWN, *unique.values()]
        self._db = _connect()
        names = ", ".join(_quote(name) for name in self.columns)
        self._db.execute(f"CREATE TABLE songs ({names})")
        marks = ", ".join("?" * len(self.columns))
        self._db.executemany(
            f"INSERT INTO songs VALUES ({marks})", [self._row(song) for song in songs]
        )
        self._db.commit()
        self._db.set_authorizer(_authorize)

    def dump(self) -> bytes:
        """The table as SQLite writes it, for :meth:`load`."""
        self._db.set_authorizer(None)  # SQLite asks itself for the number of pages
        try:
            return self._db.serialize()
        finally:
            self._db.set_authorizer(_authorize)

    @classmethod
    def load(cls, data: bytes, songs: int) -> Catalog:
        """Undo :meth:`dump`.

        Args:
            data: its checksum was found right.
            songs: how many it must hold.

        Raises:
            DamagedLibraryError: it is no such table.
        """
        if not data:  # SQLite has no memory for nothing
            raise DamagedLibraryError("catalogue: is empty")
        self = cls.__new__(cls)
        self._db = _connect()
        try:
            self._db.deserialize(data)
            columns = self._db.execute("SELECT name FROM pragma_table_info('songs')").fetchall()
            (count,) = self._db.execute(
                "SELECT count(*) FROM songs WHERE typeof(id) = 'integer'"
            ).fetchone()
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise DamagedLibraryError(f"catalogue: is no table of songs ({error})") from error
        self.columns = [name for (name,) in columns]
        if self.columns[: len(_OWN)] != list(_OWN) or count != songs:
            raise DamagedLibraryError(f"catalogue: holds {count} songs, expected {songs}")
        self._db.set_authorizer(_authorize)
        return self

    def _row(self, song: SongRecord) -> list[Scalar]:
        own: list[Scalar] = [
            song.id, song.path, song.title, song.duration_s, _dumps(list(song.tags)), song.added
        ]  # fmt: skip
        values = [song.meta.get(name) for name in self.columns[len(_OWN) :]]
        return own + [_dumps(v) if isinstance(v, list) else v for v in values]

    def filter(self, where: str, params: Mapping[str, Scalar] | None = None) -> list[int]:
        """Ids of the songs for which an SQL expression holds, rising.

        Args:
            where: for example ``bpm > :slowest AND genre = 'jazz'``.
            params: values of the names with a colon; they are bound, never pasted into the SQL.

        Raises:
            FilterError: it is no valid expression over :attr:`columns`, or takes too long.
        """
        if not where.strip() or ";" in where or "--" in where or "/*" in where:
            raise FilterError(f"where: got {where!r}, expected one expression without comments")
        deadline = time.monotonic() + _TIME_LIMIT_S
        self._db.set_progress_handler(lambda: int(time.monotonic() > deadline), 10_000)
        try:
            found = self._db.execute(
                f"SELECT id FROM songs WHERE ({where}\n) ORDER BY id", dict(params or {})
            )
            return [row[0] for row in found]
        except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
            raise FilterError(
                f"where: {where!r} cannot be used ({error}); expected an expression over "
                f"{', '.join(self.columns)}, with texts in single quotes"
            ) from error
        finally:
            self._db.set_progress_handler(None, 0)


def _connect() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", check_same_thread=False)
    db.create_function("has", 2, _has, deterministic=True)
    return db


def _dumps(values: Sequence[Scalar]) -> str:
    return json.dumps(values, ensure_ascii=False)


def _has(column: object, value: object) -> bool:
    """Whether a JSON list holds a value, upper and lower case alike; or a plain value equals it."""
    values: list[object] = [column]
    if isinstance(column, str) and column.startswith("["):
        try:
            values = json.loads(column)
        except ValueError:
            pass
    return any(_fold(item) == _fold(value) for item in values)


def _fold(value: object) -> object:
    return value.casefold() if isinstance(value, str) else value


def _quote(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Allow reading the table and a few functions, nothing else."""
    allowed = action == sqlite3.SQLITE_SELECT
    allowed |= action == sqlite3.SQLITE_READ and first == "songs"
    allowed |= action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
