"""Codes on disk: caches beside a library's segments, made again where missing or damaged.

``cache/SOURCE-OWN.codes5`` holds the codes of the segment file whose SHA-256 begins with SOURCE;
OWN is the SHA-256 of the cache itself, which is checked before any of it is used. Nothing is lost
with these files, and a library whose folder cannot be written is searched without them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Set
from pathlib import Path

import numpy as np

from index.arrays import Column, dump_columns, view_columns
from index.codes import BLOCK, UNIT, Codes, directions_of, make_codes, widths_of
from index.files import CheckedFile, Disk, Tally
from retrieval.errors import DamagedLibraryError

FOLDER = "cache"
#: Segments with fewer rows are scored in full; codes would not make that faster.
LEAST_ROWS = 1 << 12

_NAME = re.compile(r"([0-9a-f]{32})-([0-9a-f]{64})\.codes5")
_OLD = re.compile(r"[0-9a-f]{32}-[0-9a-f]{64}\.codes[1234]")


def codes_of(
    rows: np.ndarray,
    offsets: np.ndarray,
    source: str,
    library: Path,
    least: int = LEAST_ROWS,
    queries: Callable[[], np.ndarray | None] = lambda: None,
) -> Codes | None:
    """Codes of a segment's embeddings: from the cache, or made and kept there if that can be.

    Args:
        rows: float32 or float16 ``[rows, dim]``.
        offsets: int64 ``[owners + 1]``, rows at which owners begin.
        source: SHA-256 of the segment's file, in hex.
        library: its folder.
        least: rows; None is returned for fewer.
        queries: a sample of what will ask, as :func:`make_codes` takes it; asked for where codes
            must be made.
    """
    if len(rows) < max(least, 1):
        return None
    found = _read(rows, len(offsets) - 1, source, library / FOLDER)
    if found is None:
        found = make_codes(rows, offsets, queries())
        try:
            _write(found, source, library / FOLDER)
        except OSError:
            pass  # a full or read-only disk: it is only a cache
    return found


def forget(library: Path, sources: Set[str]) -> None:
    """Delete caches of segments other than those with the hashes ``sources``, if that can be."""
    known = {source[:32] for source in sources}
    try:
        for path in (library / FOLDER).glob("*.codes*"):
            name = _NAME.fullmatch(path.name)
            if (name and name[1] not in known) or _OLD.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError:
        pass


def _read(rows: np.ndarray, owners: int, source: str, folder: Path) -> Codes | None:
    """The first whole cache of a source; damaged ones are deleted."""
    for path in folder.glob(f"{source[:32]}-*.codes5"):
        name = _NAME.fullmatch(path.name)
        try:
            if name:
                file = CheckedFile(path, path.stat().st_size, name[2])
                return _codes(view_columns(file.data), len(rows), rows.shape[1], owners)
        except (DamagedLibraryError, OSError):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                pass
    return None


def _codes(found: dict[str, np.ndarray], count: int, dim: int, owners: int) -> Codes:
    """Codes of a table ``[count, dim]``; their checksum was right, but they may be of another."""
    beyond = found.get("beyond", np.zeros(0))
    blocks = -(-count // BLOCK)
    planes = zip(("first", "second"), widths_of(dim), strict=True)
    expected = {
        **{name: ((blocks, width // UNIT, BLOCK, UNIT), "uint8") for name, width in planes},
        "centre": ((owners, dim), "float16"),
        "basis": ((dim, dim), "float32"),
        "dual": ((dim, dim), "float64"),
        "scale": ((directions_of(dim),), "float32"),
        "spread": ((2, dim), "float32"),
        "tail_step": ((2,), "float32"),
        "beyond": ((beyond.size,), "int64"),
    }
    fit = {name: (array.shape, array.dtype.name) for name, array in found.items()} == expected
    if not fit or not ((beyond >= 0) & (beyond < count)).all():
        raise DamagedLibraryError("codes: do not fit their segment")
    return Codes(**found)


def _write(codes: Codes, source: str, folder: Path) -> None:
    disk, tally = Disk(), Tally()
    columns = {
        name: Column([array], array.dtype.name, array.shape[1:])
        for name, array in vars(codes).items()
    }
    folder.mkdir(exist_ok=True)
    temporary = folder / f"{source[:32]}.{os.getpid()}.tmp"
    disk.write(temporary, tally.over(dump_columns(columns)))
    disk.sync_file(temporary)
    disk.rename(temporary, folder / f"{source[:32]}-{tally.sha256}.codes5")
