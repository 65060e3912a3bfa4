"""A model without a network: numbers drawn from a hash of the file or text."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from retrieval.embedder import CaptionSpan, GeneratedCaption, SongEmbedding, TextEmbedding
from retrieval.errors import NotAudioError, TextError


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    x = rng.normal(size=(rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


class FakeEmbedder:
    dim, tau, clip_s, digest = 16, 0.1, 10.0, "f" * 64

    def embed_song(self, path: str | Path) -> SongEmbedding:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise NotAudioError(f"{path}: cannot be read") from error
        if data.startswith(b"BAD"):
            raise NotAudioError(f"{path}: is no audio file")
        rng = _rng(data)
        clips = int(rng.integers(1, 30))
        start = np.arange(clips) * self.clip_s
        times = np.stack([start, start + self.clip_s], axis=1)
        return SongEmbedding(unit_rows(rng, clips, self.dim), times, clips * self.clip_s)

    def song_as_query(self, clip_emb: np.ndarray) -> np.ndarray:
        return clip_emb

    def embed_text(self, text: str) -> TextEmbedding:
        passages = [p.strip() for p in text.split(".") if p.strip()]
        if not passages:
            raise TextError("text: is empty")
        rng = _rng(text.encode())
        weight = rng.uniform(0.1, 1, len(passages))
        emb = unit_rows(rng, len(passages), self.dim)
        return TextEmbedding(passages, emb, (weight / weight.sum()).astype(np.float32))

    def caption(self, path: str | Path) -> GeneratedCaption:
        return GeneratedCaption("A song.", [CaptionSpan(0.0, 5.0, "A song.")])


def _rng(data: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(data).digest()[:8], "big"))
