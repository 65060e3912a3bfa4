"""Reading a folder of clip embeddings (docs/embed.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval.errors import EmbeddingsError

#: What the numbers of a folder were made with.
RUN = "run.json"


@dataclass(frozen=True)
class SongRow:
    """One line of an index: a file, and where its clips lie.

    Attributes:
        id: of the manifest, or the path.
        path: absolute.
        size: in bytes; with ``mtime_ns`` it tells whether the file has changed since.
        mtime_ns: time of its last change.
        sha256: of its content. Files of the same content share one embedding.
        model: digest of the model.
        duration_s: length of the song.
        shard: safetensors file that holds the clips.
        shard_sha256: its checksum.
        start: first row of the song in the shard's ``clip_emb``.
        clip_times: start and end of each clip in seconds, one pair a row.
    """

    id: str
    path: str
    size: int
    mtime_ns: int
    sha256: str
    model: str = ""
    duration_s: float = 0.0
    shard: str = ""
    shard_sha256: str = ""
    start: int = 0
    clip_times: tuple[tuple[float, float], ...] = ()

    def unchanged(self, size: int, mtime_ns: int) -> bool:
        """Whether a file of that size and time is the one that was embedded."""
        return (self.size, self.mtime_ns) == (size, mtime_ns)


def read_rows(folder: str | Path) -> list[SongRow]:
    """The index of a folder: every file once, by its last content.

    Raises:
        EmbeddingsError: the folder has none, or a line is not as documented.
    """
    folder = Path(folder).expanduser()
    if not (folder / RUN).is_file():
        raise EmbeddingsError(f"{folder}: has no {RUN}; expected a folder of embeddings")
    return list({row.path: row for row in all_rows(folder)}.values())


def read_clips(folder: str | Path, row: SongRow) -> np.ndarray:
    """Clip embeddings of one song, float32 ``[clips, dim]``, unit rows."""
    from safetensors import safe_open

    with safe_open(Path(folder).expanduser() / row.shard, framework="numpy") as file:
        return file.get_slice("clip_emb")[row.start : row.start + len(row.clip_times)]


def verify(folder: str | Path) -> int:
    """Check every shard against its checksum; returns how many there are.

    Raises:
        EmbeddingsError: names the first that is missing or damaged.
    """
    folder = Path(folder).expanduser()
    shards = {row.shard: row.shard_sha256 for row in all_rows(folder)}
    for name, sha256 in shards.items():
        path = folder / name
        if not path.is_file():
            raise EmbeddingsError(f"{path}: is missing")
        if sha256_hex(path.read_bytes()) != sha256:
            raise EmbeddingsError(f"{path}: does not match its checksum; was it copied whole?")
    return len(shards)


def all_rows(folder: Path) -> Iterator[SongRow]:
    """Every line of the index, those of files that have changed since too."""
    for path in sorted(folder.glob("index-*.jsonl")):
        yield from _read_index(path)


def _read_index(path: Path) -> list[SongRow]:
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found = json.loads(line)
            times = tuple((start, end) for start, end in found.pop("clip_times"))
            rows.append(SongRow(**found, clip_times=times))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EmbeddingsError(
                f"{path}, line {number}: is no line of an index ({error}); was it changed?"
            ) from error
    return rows


def sha256_hex(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
