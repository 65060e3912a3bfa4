"""Every touch of the disk that a commit consists of, in one small class, and checked reading.

Tests replace :class:`Disk` by one whose n-th call fails; nothing else in the store writes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from retrieval.errors import DamagedLibraryError, MissingFileError

#: No single file of a library is larger; a manifest that says so is not believed.
MAX_FILE_BYTES = 1 << 36


class Disk:
    """The five steps that change a library on disk."""

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        """Write a whole file; nothing is promised until :meth:`sync_file`."""
        with path.open("wb") as file:
            for piece in pieces:
                file.write(piece)

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
        self.write(temporary, [data])
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

    Its facts are those of the file that is open: by its name another one may stand there already.

    Raises:
        DamagedLibraryError: it is missing, unreadable, no regular file (a pipe would hang), or
            larger.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise DamagedLibraryError(f"{path}: is no regular file")
            data = file.read(min(facts.st_size, max_bytes) + 1)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DamagedLibraryError(f"{path}: cannot be read ({reason})") from error
    if len(data) > max_bytes:
        raise DamagedLibraryError(f"{path}: is longer than the expected {max_bytes} bytes")
    return data


class Tally:
    """Counts and hashes pieces as they pass by."""

    def __init__(self) -> None:
        self.n_bytes, self._hash = 0, hashlib.sha256()

    def over(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces."""
        for piece in pieces:
            self.n_bytes += len(piece)
            self._hash.update(piece)
            yield piece

    @property
    def sha256(self) -> str:
        """Of what has passed, in hex."""
        return self._hash.hexdigest()


class CheckedFile:
    """A file that never changes, held open, and given out only where its checksum is right.

    It is hashed when its bytes are first asked for, and mapped into memory rather than read, so
    that it stays readable where another process deletes it.

    Args:
        path: the file.
        n_bytes: its length.
        sha256: its hash, in hex.

    Raises:
        MissingFileError: there is no such file.
        DamagedLibraryError: it is no regular file or has another length.
    """

    def __init__(self, path: Path, n_bytes: int, sha256: str):
        self.path, self.sha256, self._checked = path, sha256, False
        try:
            with open(path, "rb", opener=_open_without_waiting) as file:
                facts = os.fstat(file.fileno())
                if not stat.S_ISREG(facts.st_mode):
                    raise DamagedLibraryError(f"{path}: is no regular file")
                if facts.st_size != n_bytes:
                    raise DamagedLibraryError(
                        f"{path}: has {facts.st_size} bytes, expected {n_bytes}"
                    )
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if n_bytes else b""
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: is missing") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise DamagedLibraryError(f"{path}: cannot be read ({reason})") from error
        self._data = np.frombuffer(mapped, np.uint8)

    @property
    def data(self) -> np.ndarray:
        """Its bytes, uint8 ``[n_bytes]``, read-only.

        Raises:
            DamagedLibraryError: they differ from what was written in any bit.
        """
        if not self._checked:
            if hashlib.sha256(self._data.data).hexdigest() != self.sha256:
                raise DamagedLibraryError(f"{self.path}: does not match its checksum")
            self._checked = True
        return self._data


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe put in the place of a file would let a plain open wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
