"""`LongplayModel`: a trained model as the index and a user call it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from retrieval.audio import clip_times, load_audio, split_clips
from retrieval.caption_format import parse_caption
from retrieval.embedder import GeneratedCaption, SongEmbedding, TextEmbedding
from retrieval.errors import CheckpointError
from retrieval.model import CoLLAP, SongState, song_places

if TYPE_CHECKING:
    from retrieval.pipeline.options import EmbedOptions
    from retrieval.pipeline.stream import Pipeline

#: Clips that go through the audio encoder together. Fixed, and counted from a song's start, so
#: that a song's numbers never depend on another song.
CHUNK_CLIPS = 8


class LongplayModel:
    """Embeds songs and texts, and writes captions; an :class:`retrieval.embedder.Embedder`.

    Every song and every text is encoded by itself, so that the same input gives the same bits.

    Attributes:
        net: the network, in evaluation mode.
        digest: hex digest of everything that determines the embeddings.
        path: folder of the checkpoint, None where the network has none.
    """

    def __init__(self, net: CoLLAP, digest: str, path: Path | None = None):
        self.net = net.eval()
        self.digest = digest
        self.path = path
        self.dim = net.config.joint_dim
        self.clip_s = float(net.audio.clip_s)
        self.tau = float(net.tau.detach())

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.net.log_tau.device

    def embed_song(self, path: str | Path) -> SongEmbedding:
        """Embed one audio file.

        Raises:
            AudioError: the file gives no usable sound.
        """
        state, times, duration_s = self._song_state(path)
        clip_emb = state.clip_emb[0].float().cpu().numpy()
        return SongEmbedding(clip_emb, times, duration_s)

    def song_as_query(self, clip_emb: np.ndarray) -> np.ndarray:
        """Clips of a song, ``[clips, dim]``, as rows that ask for songs like it."""
        return self.net.song_as_query(torch.from_numpy(clip_emb)).numpy()

    def pipeline(self, options: EmbedOptions) -> Pipeline:
        """What embeds many files at once; with the options' defaults, with the same bits."""
        from retrieval.pipeline.stream import Pipeline

        return Pipeline(self, options)

    def embed_samples(self, samples: np.ndarray) -> SongEmbedding:
        """Embed a song that is decoded already.

        Args:
            samples: mono float32 ``[n_samples]`` at the encoder's rate, at least one.
        """
        state, times, duration_s = self._state_of(samples)
        return SongEmbedding(state.clip_emb[0].float().cpu().numpy(), times, duration_s)

    def embed_text(self, text: str) -> TextEmbedding:
        """Embed one text of any length.

        Raises:
            TextError: the text is empty.
        """
        passages = [passage.text for passage in self.net.split(text)]
        with torch.inference_mode():
            state = self.net.encode_texts([passages])
        return TextEmbedding(
            passages,
            state.passage_emb[0].float().cpu().numpy(),
            state.passage_weight[0].float().cpu().numpy(),
        )

    def caption(self, path: str | Path) -> GeneratedCaption:
        """Write a caption with times for one audio file.

        Raises:
            AudioError: the file gives no usable sound.
            CheckpointError: the model has no generator head.
        """
        if self.net.captioner is None:
            raise CheckpointError(
                "checkpoint: has no generator head, so it cannot write captions; train one with "
                "captioner=decoder"
            )
        state, _, duration_s = self._song_state(path)
        ids = self.net.captioner.generate(state.clip_state[0])
        return parse_caption(self.net.text.decode(ids), duration_s)

    @torch.inference_mode()
    def encode_prepared(
        self, prepared: Tensor, filled: Tensor, place: Tensor, ordered: bool = True
    ) -> SongState:
        """One song from cached features: ``[clips, ...]``, ``[clips]``, ``[clips, 2]``.

        Without ``ordered`` no clip knows which ones come before it: a control for measurements.
        """
        parts = [
            self.net.encode_clips(chunk.to(self.device), part.to(self.device))
            for chunk, part in zip(
                prepared.split(CHUNK_CLIPS), filled.split(CHUNK_CLIPS), strict=True
            )
        ]
        position = torch.arange(len(prepared), device=self.device)[None] * int(ordered)
        mask = torch.ones_like(position, dtype=torch.bool)
        return self.net.contextualise(torch.cat(parts), mask, position, place[None].to(self.device))

    def _song_state(self, path: str | Path) -> tuple[SongState, np.ndarray, float]:
        return self._state_of(load_audio(path, self.net.audio.sample_rate_hz))

    def _state_of(self, samples: np.ndarray) -> tuple[SongState, np.ndarray, float]:
        prepared, filled, times, duration_s = prepare_samples(self.net, samples)
        place = song_places(torch.from_numpy(times), duration_s)
        return self.encode_prepared(prepared, filled, place), times, duration_s


def prepare_song(net: CoLLAP, path: str | Path) -> tuple[Tensor, Tensor, np.ndarray, float]:
    """Decode a song and run the cacheable part of the audio encoder.

    Returns:
        prepared ``[clips, ...]``, filled ``[clips]`` (0..1), clip times ``[clips, 2]`` in seconds,
        duration in seconds.

    Raises:
        AudioError: the file gives no usable sound.
    """
    return prepare_samples(net, load_audio(path, net.audio.sample_rate_hz))


def prepare_samples(net: CoLLAP, samples: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray, float]:
    """The same for decoded samples, mono float32 ``[n_samples]`` at the encoder's rate."""
    encoder = net.audio
    clips, valid = split_clips(samples, encoder.clip_samples)
    device = net.log_tau.device
    parts = [
        encoder.prepare(torch.from_numpy(np.ascontiguousarray(chunk)).to(device)).cpu()
        for chunk in np.split(clips, range(CHUNK_CLIPS, len(clips), CHUNK_CLIPS))
    ]
    filled = torch.full((len(clips),), valid / encoder.clip_samples)
    times = clip_times(len(samples), encoder.clip_samples, encoder.sample_rate_hz)
    return torch.cat(parts), filled, times, len(samples) / encoder.sample_rate_hz
