"""A disk that fails at the n-th call and then loses all that was not forced to the device."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from index.files import Disk

#: What may become of a file whose bytes were written and never synced.
FATES = ("kept", "dropped", "zeroed", "truncated", "flipped")


class PowerCut(OSError):
    """The n-th call."""


class LossyDisk(Disk):
    """Counts calls; :meth:`crash` leaves the folder as a device might after a power cut.

    Renames and deletions are undone unless the folder was synced after them; files that were not
    synced meet one of :data:`FATES`.
    """

    def __init__(self, calls: int):
        self.left, self.calls = calls, 0
        self._unsynced: set[Path] = set()
        self._undo: list[tuple[str, Path, Path | None]] = []
        self._saved = 0

    def _call(self) -> None:
        self.calls += 1
        self.left -= 1
        if self.left < 0:
            raise PowerCut(5, "power cut")

    def write(self, path: Path, pieces: Iterable[bytes]) -> None:
        data = b"".join(pieces)
        self._unsynced.add(path)
        if self.left == 0:
            path.write_bytes(data[: len(data) // 2])
        self._call()
        super().write(path, [data])

    def sync_file(self, path: Path) -> None:
        self._call()
        super().sync_file(path)
        self._unsynced.discard(path)

    def rename(self, source: Path, target: Path) -> None:
        self._call()
        old = self._save(target) if target.exists() else None
        self._undo.append(("rename", target, old))
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._call()
        if path.exists():
            self._undo.append(("unlink", path, self._save(path)))
        super().unlink(path)

    def sync_folder(self, folder: Path) -> None:
        self._call()
        super().sync_folder(folder)
        self._undo.clear()

    def _save(self, path: Path) -> Path:
        self._saved += 1
        beside = path.parent.with_name(f"{path.parent.name}.saved-{self._saved}")
        shutil.copy(path, beside)
        return beside

    def crash(self, fate: str, renames_last: bool) -> None:
        """Lose what was not synced.

        Args:
            fate: of every unsynced file.
            renames_last: whether unsynced renames and deletions reached the device all the same.
        """
        if not renames_last:
            for _kind, path, old in reversed(self._undo):
                if old is None:
                    path.unlink()
                else:
                    shutil.copy(old, path)
        for path in self._unsynced:
            if path.exists():
                _harm(path, fate)


def _harm(path: Path, fate: str) -> None:
    data = bytearray(path.read_bytes())
    if fate == "dropped":
        path.unlink()
    elif fate == "zeroed":
        path.write_bytes(bytes(len(data)))
    elif fate == "truncated":
        os.truncate(path, len(data) // 3)
    elif fate == "flipped" and data:
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
