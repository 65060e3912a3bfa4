"""What a library knows about a song and a text, beside their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class SongRecord:
    """One song; ``mtime_ns``, ``size`` and ``sha256`` tell whether its file has changed.

    ``added`` is the time of its commit in UTC, ``2026-01-31T12:00:00Z``; empty where it was added
    before this was kept.
    """

    id: int
    path: str
    size: int
    mtime_ns: int
    sha256: str
    duration_s: float
    title: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, Scalar | list[Scalar]] = field(default_factory=dict)
    added: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


@dataclass(frozen=True)
class TextRecord:
    """One stored text; ``song`` is the id of the song it was added with, None without one."""

    id: int
    text: str
    passages: tuple[str, ...]
    song: int | None = None
    kind: str = "human"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def song_from_json(row: dict[str, Any]) -> SongRecord:
    """Undo :meth:`SongRecord.to_json`."""
    return SongRecord(**{**row, "tags": tuple(row["tags"])})


def text_from_json(row: dict[str, Any]) -> TextRecord:
    """Undo :meth:`TextRecord.to_json`."""
    return TextRecord(**{**row, "passages": tuple(row["passages"])})
