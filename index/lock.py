"""One writer at a time: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrieval.errors import LibraryLockedError, LibraryWriteError

LOCK_NAME = "lock"


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Hold the library's write lock.

    The lock belongs to the open file, so that it also keeps two ``Library`` objects of one
    process apart, and it ends with the process, however that ends. The file itself stays.

    Raises:
        LibraryLockedError: somebody else holds it; the message names the process.
        LibraryWriteError: the folder cannot be written to.
    """
    path = folder / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LibraryWriteError(f"library {folder}: cannot be written to ({reason})") from error
    try:
        _take(handle, folder)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise LibraryLockedError(
            f"library {folder}: process {holder} is writing to it; only one may at a time. "
            "Reading is possible meanwhile"
        ) from error
    except OSError as error:
        raise LibraryWriteError(
            f"library {folder}: cannot be locked ({error.strerror}); does this file system "
            "support flock?"
        ) from error
