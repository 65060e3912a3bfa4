"""Decoded songs -> embeddings, in the two steps that overlap: features, then the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.audio import clip_times, split_clips
from retrieval.embedder import SongEmbedding
from retrieval.errors import EncoderError
from retrieval.inference import CHUNK_CLIPS, LongplayModel
from retrieval.model import song_places
from retrieval.pipeline.options import EmbedOptions
from retrieval.precision import computes_in_bfloat16, lowered

#: Clips of several songs that a GPU encodes together; one of these is too small to fill it.
GPU_CLIPS = 64


@dataclass(frozen=True)
class Features:
    """One song before the network.

    Attributes:
        chunks: the audio encoder's fixed features ``[at most CHUNK_CLIPS, ...]``, in order.
        filled: ``[clips]``, how much of each clip is sound.
        times: float64 ``[clips, 2]``, start and end of each clip in seconds.
        duration_s: length of the song.
    """

    chunks: list[Tensor]
    filled: Tensor
    times: np.ndarray
    duration_s: float

    def __len__(self) -> int:
        return len(self.filled)


class SongEncoder:
    """The network of a model, for many songs one after another.

    In float32 and with ``together`` 0 an embedding has the bits of
    :meth:`retrieval.inference.LongplayModel.embed_song`: clips go through the network in chunks
    that are counted from each song's start. All clips have one length, so there is nothing to
    sort by length: with ``together`` above 0, clips of several songs fill batches of exactly that
    size without padding. Those differ in the last bits, as matrix products of another shape do.

    Args:
        model: gives the weights.
        options: ``precision``, ``compiled`` and ``together`` are what it reads.
    """

    def __init__(self, model: LongplayModel, options: EmbedOptions):
        self.net, self.device = model.net, model.device
        self.sample_rate_hz = int(model.net.audio.sample_rate_hz)
        self.precision = resolved_precision(options.precision, self.device)
        self.together = options.together or 0
        if options.together is None and self.device.type == "cuda":
            self.together = GPU_CLIPS
        audio = self.net.audio
        encode = (audio if self.precision == "float32" else lowered(audio)).encode
        self._encode: Callable[[Tensor], Tensor] = _compiled(encode) if options.compiled else encode

    @torch.inference_mode()
    def features(self, samples: np.ndarray) -> Features:
        """Cut a song and compute its fixed features; any thread may.

        Args:
            samples: mono float32 ``[n_samples]`` at the encoder's rate, at least one.
        """
        audio = self.net.audio
        clips, valid = split_clips(samples, audio.clip_samples)
        chunks = [
            audio.front_end(torch.from_numpy(chunk).to(self.device))
            for chunk in np.split(clips, range(CHUNK_CLIPS, len(clips), CHUNK_CLIPS))
        ]
        filled = torch.full((len(clips),), valid / audio.clip_samples, device=self.device)
        times = clip_times(len(samples), audio.clip_samples, audio.sample_rate_hz)
        return Features(chunks, filled, times, len(samples) / audio.sample_rate_hz)

    @torch.inference_mode()
    def embed(self, songs: Sequence[Features]) -> list[SongEmbedding]:
        """Embeddings of songs, each with its own clips as its only context."""
        encode = self._packed if self.together else self._chunked
        vectors = encode(songs)
        return [self._embedding(*pair) for pair in zip(songs, vectors, strict=True)]

    def _chunked(self, songs: Sequence[Features]) -> list[Tensor]:
        return [
            torch.cat(
                [
                    self._vectors(*pair)
                    for pair in zip(song.chunks, song.filled.split(CHUNK_CLIPS), strict=True)
                ]
            )
            for song in songs
        ]

    def _packed(self, songs: Sequence[Features]) -> list[Tensor]:
        """Batches of one size only: the last is filled up with zeros, which nothing reads."""
        features = torch.cat([chunk for song in songs for chunk in song.chunks])
        filled = torch.cat([song.filled for song in songs])
        missing = -len(filled) % self.together
        features = torch.cat([features, features.new_zeros(missing, *features.shape[1:])])
        filled = torch.cat([filled, filled.new_ones(missing)])
        parts = [
            self._vectors(*pair)
            for pair in zip(features.split(self.together), filled.split(self.together), strict=True)
        ]
        counts = [len(song) for song in songs]
        return list(torch.cat(parts)[: sum(counts)].split(counts))

    def _vectors(self, features: Tensor, filled: Tensor) -> Tensor:
        """Clips before the temporal encoder, float32 ``[n, dim]``."""
        with self._autocast():
            return self.net.pool_frames(self._encode(features), filled).float()

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _embedding(self, song: Features, vectors: Tensor) -> SongEmbedding:
        position = torch.arange(len(song), device=self.device)[None]
        mask = torch.ones_like(position, dtype=torch.bool)
        place = song_places(torch.from_numpy(song.times), song.duration_s).to(self.device)
        state = self.net.contextualise(vectors, mask, position, place[None])
        return SongEmbedding(state.clip_emb[0].float().cpu().numpy(), song.times, song.duration_s)


def resolved_precision(precision: str, device: torch.device) -> str:
    """``float32`` or ``bfloat16``, for one of :data:`retrieval.pipeline.options.PRECISIONS`."""
    if precision == "auto":
        return "bfloat16" if computes_in_bfloat16(device) else "float32"
    return precision


def _compiled(encode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same through ``torch.compile``; EncoderError where that fails on this machine."""
    from torch._dynamo.exc import TorchDynamoException

    faster = torch.compile(encode)

    def run(features: Tensor) -> Tensor:
        try:
            return faster(features)
        except TorchDynamoException as error:
            raise EncoderError(
                f"compile: torch.compile failed ({str(error).splitlines()[0]}); on CPUs it needs "
                "a C++ compiler. Leave the option out to run without"
            ) from error

    return run
