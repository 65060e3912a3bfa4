"""Every touch of the disk that a commit consists of, in one small class, and checked reading.

Tests replace :class:`Disk` by one whose n-th call fails; nothing else in the store writes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from retrieval.errors import DamagedLibraryError

#: No single file of a library is larger; a manifest that says so is not believed.
MAX_FILE_BYTES = 1 << 36


class Disk:
    """The five steps that change a library on disk."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a whole file; nothing is promised until :meth:`sync_file`."""
        path.write_bytes(data)

    def sync_file(self, path: Path) -> None:
        """Force a file's bytes to the device."""
        _fsync(path, os.O_RDWR)

    def rename(self, source: Path, target: Path) -> None:
        """Put ``source`` in the place of ``target`` in one step."""
        source.replace(target)

    def sync_folder(self, folder: Path) -> None:
        """Force a folder's names to the device."""
        _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)

    def unlink(self, path: Path) -> None:
        """Delete a file; one that is gone already is no error."""
        path.unlink(missing_ok=True)

    def write_atomically(self, path: Path, data: bytes) -> None:
        """Replace a file so that a crash at any moment leaves the old or the new one, whole."""
        temporary = path.with_name(path.name + ".tmp")
        self.write(temporary, data)
        self.sync_file(temporary)
        self.rename(temporary, path)
        self.sync_folder(path.parent)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes``.

    Raises:
        DamagedLibraryError: it is missing, unreadable, no regular file (a pipe would hang), or
            larger.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise DamagedLibraryError(f"{path}: is no regular file")
        with path.open("rb") as file:
            data = file.read(min(facts.st_size, max_bytes) + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DamagedLibraryError(f"{path}: cannot be read ({reason})") from error
    if len(data) > max_bytes:
        raise DamagedLibraryError(f"{path}: is longer than the expected {max_bytes} bytes")
    return data


def read_checked(path: Path, n_bytes: int, sha256: str) -> bytes:
    """Read a file whose length and SHA-256 are known, and return it only where both are right.

    Raises:
        DamagedLibraryError: it is missing, unreadable, or differs in any bit.
    """
    data = read_bounded(path, n_bytes)
    if len(data) != n_bytes:
        raise DamagedLibraryError(f"{path}: has {len(data)} bytes, expected {n_bytes}")
    if sha256_hex(data) != sha256:
        raise DamagedLibraryError(f"{path}: does not match its checksum")
    return data
