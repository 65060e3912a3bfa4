"""A folder of clip embeddings that grows by whole shards (docs/embed.md)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.embedder import SongEmbedding
from retrieval.errors import EmbeddingsError
from retrieval.pipeline.shards import RUN, SongRow, all_rows, sha256_hex

FORMAT = 1
SKIPPED = "skipped.jsonl"


class ShardWriter:
    """Adds songs to a folder; what is committed stays, whatever happens next.

    A shard is ``clips-N.safetensors`` and ``index-N.jsonl``. Both are written under other names,
    forced to the disk and renamed, the index last: a shard without an index never happened.

    Args:
        folder: made where it is not there.
        facts: what determines the numbers, such as the model's digest; a folder keeps to its own.

    Raises:
        EmbeddingsError: the folder was made with other facts, another process writes to it, or
            it cannot be written to.
    """

    def __init__(self, folder: str | Path, facts: dict[str, Any]):
        self.folder = Path(folder).expanduser()
        self._model = str(facts["model"])
        self._waiting: list[tuple[SongRow, np.ndarray | None]] = []
        self.skipped: list[tuple[str, str]] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder)
        except OSError as error:
            raise EmbeddingsError(f"{self.folder}: cannot be written to ({error})") from error
        try:
            _check_run(self.folder, {"format": FORMAT, **facts})
            rows = list(all_rows(self.folder))
            for left in self.folder.glob(".*.tmp"):
                left.unlink()
        except BaseException:
            self.close()
            raise
        self.by_path = {row.path: row for row in rows}
        self.by_content = {row.sha256: row for row in rows}
        self._number = len(list(self.folder.glob("index-*.jsonl")))

    def __len__(self) -> int:
        """Songs that wait for :meth:`commit`."""
        return len(self._waiting)

    def add(self, row: SongRow, embedding: SongEmbedding) -> bool:
        """Keep a song for the next commit; False where its content is embedded already."""
        if row.sha256 in self.by_content:
            self.add_same(row)
            return False
        times = tuple((float(start), float(end)) for start, end in embedding.clip_times)
        row = replace(
            row, model=self._model, duration_s=float(embedding.duration_s), clip_times=times
        )
        self._keep(row, embedding.clip_emb.astype(np.float32))
        self.by_content[row.sha256] = row
        return True

    def add_same(self, row: SongRow) -> None:
        """Keep a file whose content is embedded already."""
        known = self.by_path.get(row.path)
        if known is None or known.sha256 != row.sha256:
            self._keep(row, None)

    def _keep(self, row: SongRow, clips: np.ndarray | None) -> None:
        self._waiting.append((row, clips))
        self.by_path[row.path] = row

    def commit(self) -> None:
        """Write what waits as one more shard."""
        if self._waiting:
            name = f"clips-{self._number:06d}.safetensors"
            clips = [found for _, found in self._waiting if found is not None]
            sha256 = self._write_clips(name, clips) if clips else ""
            start = 0
            for row, found in self._waiting:
                if found is not None:
                    placed = replace(row, shard=name, shard_sha256=sha256, start=start)
                    self.by_content[row.sha256] = self.by_path[row.path] = placed
                    start += len(found)
            rows = [self._resolved(row) for row, _ in self._waiting]
            self._write(f"index-{self._number:06d}.jsonl", _lines(map(asdict, rows)))
            self._number += 1
            self._waiting.clear()
        skipped = [{"path": path, "reason": reason} for path, reason in self.skipped]
        if skipped or (self.folder / SKIPPED).exists():
            self._write(SKIPPED, _lines(skipped))

    def close(self) -> None:
        """Let other processes write."""
        os.close(self._lock)

    def _resolved(self, row: SongRow) -> SongRow:
        """With the place of the embedding, which may be that of another file."""
        known = self.by_content[row.sha256]
        own = {"id": row.id, "path": row.path, "size": row.size, "mtime_ns": row.mtime_ns}
        return replace(known, **own)  # type: ignore[arg-type]

    def _write_clips(self, name: str, clips: list[np.ndarray]) -> str:
        from safetensors.numpy import save

        data = save({"clip_emb": np.concatenate(clips)}, metadata={"model": self._model})
        self._write(name, data)
        return sha256_hex(data)

    def _write(self, name: str, data: bytes) -> None:
        try:
            _write_atomically(self.folder / name, data)
        except OSError as error:
            raise EmbeddingsError(
                f"{self.folder / name}: cannot be written ({error}); what was committed before "
                "is whole, and the same command goes on from there"
            ) from error


def _check_run(folder: Path, facts: dict[str, Any]) -> None:
    path = folder / RUN
    if not path.exists():
        _write_atomically(path, json.dumps(facts, indent=1).encode() + b"\n")
        return
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise EmbeddingsError(f"{path}: is no JSON ({error})") from error
    if not isinstance(found, dict):
        raise EmbeddingsError(f"{path}: is no JSON object")
    for name in facts:
        if found.get(name) == facts[name]:
            continue
        raise EmbeddingsError(
            f"{folder}: was made with {name} {found.get(name)!r}, got {facts[name]!r}; numbers of "
            "both must not be mixed: go on as it was begun, or write to another folder"
        )


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _lock(folder: Path) -> int:
    """An advisory lock that ends with the process, however that ends."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise EmbeddingsError(f"{folder}: another process is writing to it") from error
    return handle


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
