"""Paths that a user names -> songs to add."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from retrieval.audio import AUDIO_SUFFIXES
from retrieval.data.manifest import Song, read_manifest


@dataclass(frozen=True)
class Found:
    """A file to add, and its manifest line where it came from one."""

    path: Path
    song: Song | None = None


def find_songs(paths: Iterable[str | Path]) -> list[Found]:
    """Files of folders (by suffix, hidden ones left out), single files, and manifests.

    Args:
        paths: folders, audio files, or ``.jsonl`` manifests, whose captions come along as texts.

    Returns:
        Each file once, folders in the order of their names.

    Raises:
        ManifestError: a manifest is not as documented.
    """
    found: dict[Path, Found] = {}
    for path in paths:
        for item in _expand(Path(path).expanduser()):
            found.setdefault(item.path, item)
    return list(found.values())


def _expand(path: Path) -> Iterator[Found]:
    if path.suffix.lower() == ".jsonl":
        yield from (Found(absolute(song.audio), song) for song in read_manifest(path))
    elif path.is_dir():
        yield from (Found(absolute(file)) for file in _audio_files(path))
    else:
        yield Found(absolute(path))


def _audio_files(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            file = Path(root, name)
            if file.suffix.lower() in AUDIO_SUFFIXES and not name.startswith("."):
                yield file


def absolute(path: Path) -> Path:
    """An absolute path without ``..``; links stay links, as the user sees them."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
