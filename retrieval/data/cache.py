"""Prepared songs on disk: decoded once, and for frozen encoders encoded once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from retrieval.audio import file_sha256
from retrieval.data.manifest import Song
from retrieval.errors import AudioError, ManifestError
from retrieval.inference import CHUNK_CLIPS, prepare_song
from retrieval.model import CoLLAP


@dataclass(frozen=True)
class CachedSong:
    """A song whose prepared clips lie in a file.

    Attributes:
        song: its manifest line.
        path: safetensors file with ``prepared``, ``filled`` and ``times``.
        times: float64 ``[clips, 2]`` in seconds.
        filled: float ``[clips]``, 0..1.
        duration_s: length of the song.
    """

    song: Song
    path: Path
    times: Tensor
    filled: Tensor
    duration_s: float

    def prepared(self, rows: Sequence[int] | None = None) -> Tensor:
        """Prepared clips ``[n, ...]``: all of them, or the given rows."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            if rows is None:
                return file.get_tensor("prepared")
            part = file.get_slice("prepared")
            return torch.cat([part[row : row + 1] for row in rows])


class FeatureCache:
    """A folder of prepared songs, named by the audio file's content and by the encoder.

    A file is written under another name and then renamed, so a reader never sees half of one. A
    frozen encoder reads the features of a song from the cache where they are, so that it decodes
    no song that another run has decoded.
    """

    def __init__(self, folder: str | Path, net: CoLLAP):
        self.net = net
        root = Path(folder).expanduser()
        identity = net.audio.identity()
        features = {name: value for name, value in identity.items() if name != "weights"}
        self.folder, self.features = (root / _digest(of)[:16] for of in (identity, features))
        self.folder.mkdir(parents=True, exist_ok=True)

    def get(self, song: Song) -> CachedSong:
        """A song's prepared clips, computed where they are not there yet.

        Raises:
            AudioError: the file gives no usable sound.
        """
        path = self.folder / f"{file_sha256(song.audio)}.safetensors"
        if not path.exists():
            features = self.features / path.name
            if self.net.audio.frozen and features.exists():
                self._encode(features, path)
            else:
                self._prepare(song.audio, path)
        return _open(song, path)

    def _prepare(self, audio: Path, path: Path) -> None:
        prepared, filled, times, duration_s = prepare_song(self.net, audio)
        found = {
            "prepared": prepared,
            "filled": filled,
            "times": torch.from_numpy(np.ascontiguousarray(times)),
            "duration_s": torch.tensor(duration_s, dtype=torch.float64),
        }
        self._write(found, path)

    @torch.no_grad()
    def _encode(self, features: Path, path: Path) -> None:
        from safetensors.torch import load_file

        found = load_file(features)
        parts = found["prepared"].split(CHUNK_CLIPS)
        found["prepared"] = torch.cat([self.net.audio.encode(part) for part in parts])
        self._write(found, path)

    def _write(self, found: dict[str, Tensor], path: Path) -> None:
        from safetensors.torch import save

        data = save({name: tensor.contiguous() for name, tensor in found.items()})
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data)
        temporary.replace(path)


def _digest(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _open(song: Song, path: Path) -> CachedSong:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return CachedSong(
            song,
            path,
            file.get_tensor("times"),
            file.get_tensor("filled"),
            float(file.get_tensor("duration_s")),
        )


def cache_songs(
    songs: Iterable[Song],
    cache: FeatureCache,
    on_song: Callable[[Song, AudioError | None], None] = lambda song, error: None,
) -> tuple[list[CachedSong], list[tuple[Song, AudioError]]]:
    """Prepare many songs; a bad file is skipped and named.

    Args:
        songs: from a manifest.
        cache: where prepared clips are kept.
        on_song: called after each song, with its error where it was skipped.

    Returns:
        The usable songs, and the skipped ones with their errors.

    Raises:
        ManifestError: not one song is usable.
    """
    good: list[CachedSong] = []
    bad: list[tuple[Song, AudioError]] = []
    for song in songs:
        error: AudioError | None = None
        try:
            good.append(cache.get(song))
        except AudioError as caught:
            error = caught
            bad.append((song, caught))
        on_song(song, error)
    if not good:
        first = f"; the first: {bad[0][1]}" if bad else ""
        raise ManifestError(f"manifest: none of {len(bad)} songs is usable{first}")
    return good, bad
