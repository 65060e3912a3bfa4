"""Tables and audio folders of published sets, read with limits."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import ManifestError

MAX_BYTES = 1 << 30
_MAX_FIELD = 1 << 20
AUDIO_SUFFIXES = (".mp3", ".wav", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".wma", ".webm")


def read_table(
    path: Path, columns: set[str], delimiter: str = ",", comment: str = ""
) -> list[dict[str, str]]:
    """Rows of a CSV or TSV file with a header.

    Args:
        path: UTF-8, at most 1 GiB.
        columns: that must be there.
        delimiter: between fields.
        comment: lines that begin with it are left out.

    Raises:
        ManifestError: cannot be read, or a column is missing; the message names it.
    """
    csv.field_size_limit(_MAX_FIELD)
    lines = _lines(path)
    kept = [line for line in lines if not (comment and line.startswith(comment))]
    try:
        reader = csv.DictReader(kept, delimiter=delimiter)
        rows = [{k: v or "" for k, v in row.items() if k is not None} for row in reader]
    except csv.Error as error:
        raise ManifestError(f"{path}: not a table ({error})") from error
    missing = columns - set(reader.fieldnames or ())
    if missing:
        raise ManifestError(
            f"{path}: lacks the column {sorted(missing)[0]!r}, has {reader.fieldnames}"
        )
    return rows


def read_json_lines(path: Path, fields: set[str]) -> list[dict[str, Any]]:
    """Objects of a JSON Lines file.

    Raises:
        ManifestError: cannot be read, or an object lacks a field; the message names both.
    """
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{path}, line {number}: not JSON ({error})") from error
        missing = fields - set(row) if isinstance(row, dict) else fields
        if missing:
            raise ManifestError(f"{path}, line {number}: lacks {', '.join(sorted(missing))}")
        rows.append(row)
    return rows


def first_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of some files that is in a folder or in one of its subfolders.

    Raises:
        ManifestError: none is.
    """
    if not folder.is_dir():
        raise ManifestError(f"folder: {folder} is no folder")
    for name in names:
        found = sorted(folder.rglob(name))
        if found:
            return found[0]
    raise ManifestError(f"folder: none of {', '.join(names)} in {folder}")


class AudioFiles:
    """The audio files of a folder, found by an id in their name or by a relative path."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.by_stem: dict[str, Path] = {}
        for path in sorted(self.folder.rglob("*")):
            if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file():
                self.by_stem.setdefault(path.stem, path)

    def named(self, names: Iterable[str]) -> Path | None:
        """The file whose name without suffix is one of these."""
        return next((self.by_stem[n] for n in names if n in self.by_stem), None)

    def starting(self, prefixes: Iterable[str]) -> dict[str, Path]:
        """For each id, the file whose name is it or begins with it and one of ``-_. [``."""
        wanted = set(prefixes)
        found: dict[str, Path] = {}
        for stem, path in self.by_stem.items():
            plain = stem.lstrip("[")
            ends = [i for i, c in enumerate(plain) if c in "-_. ]["] + [len(plain)]
            match = next((plain[:i] for i in reversed(ends) if plain[:i] in wanted), None)
            if match is not None:
                found.setdefault(match, path)
        return found

    def at(self, relative: str) -> Path | None:
        """A file by its path, if it lies inside the folder and exists."""
        path = (self.folder / relative).resolve()
        return path if path.is_relative_to(self.folder) and path.is_file() else None


def is_true(text: str) -> bool:
    """``True``, ``true`` and ``1``."""
    return text.strip().lower() in ("true", "1", "yes")


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ManifestError(f"{path}: larger than {MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error
