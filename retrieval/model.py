"""CoLLAP: audio and text encoders, kernel attention, temporal encoders, fusion score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.beside import Beside, clip_inputs
from retrieval.captioner import Captioner, CaptionerConfig
from retrieval.encoders import build_audio_encoder, build_text_encoder
from retrieval.encoders.base import tower_owners
from retrieval.errors import ConfigError
from retrieval.fusion import POOLINGS, fused_score
from retrieval.gist import Gist, GistConfig, text_inputs
from retrieval.naming import Naming, NamingConfig, affirmed, word_inputs
from retrieval.narrow import Narrow, NarrowConfig
from retrieval.querybank import RESERVED, Querybank, QuerybankConfig
from retrieval.sequence import KernelAttention, SequenceEncoder
from retrieval.text import Passage, split_passages
from retrieval.words import WordEncoder, number_features

#: ``logit_scale`` starts at 1 / 0.07 and may reach 100, as in CLIP (arXiv 2103.00020, 2.5).
LOGIT_SCALE_INIT = math.log(1 / 0.07)
LOGIT_SCALE_MAX = math.log(100.0)
#: Below, the softmax over clips is a hard maximum in fp16; above, it is a mean.
TAU_RANGE = (0.01, 10.0)


@dataclass(frozen=True)
class ModelConfig:
    """Everything that fixes the architecture; the weights are apart.

    Attributes:
        encoder: audio encoder, ``{"name": "mel", ...}``; docs/encoders.md lists the names.
        text: text encoder, ``{"name": "transformer", ...}``.
        dim: width of the encoders over clips and passages, and of the joint space in training.
        kernel_frames: frames that kernel attention pools at a time.
        clip_layers: layers of the temporal encoder over clips.
        text_layers: layers over passages.
        word_layers: layers over the words of a passage (:mod:`retrieval.words`); 0 for none.
        heads: attention heads of both.
        dropout: in both.
        passage_reach: how far a passage's weight may be from the others': by at most
            ``exp(2 * passage_reach)``; None sets no limit.
        tau: initial temperature of the clip attention.
        pooling: the score that the model is trained and asked with; all but ``attention`` are
            baselines.
        captioner: generator head, None for none.
        gist: how whole texts and whole songs are compared beside passages and clips
            (:mod:`retrieval.gist`); None for not at all.
        naming: how what a short query names is heard (:mod:`retrieval.naming`); None for not.
        querybank: how songs that every text finds are lowered (:mod:`retrieval.querybank`); None
            for not at all.
        narrow: how narrow the joint space of a trained model is (:mod:`retrieval.narrow`); None
            for all of it.
    """

    encoder: Mapping[str, Any] = field(default_factory=lambda: {"name": "mel"})
    text: Mapping[str, Any] = field(default_factory=lambda: {"name": "transformer"})
    dim: int = 256
    kernel_frames: int = 8
    clip_layers: int = 2
    text_layers: int = 1
    word_layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    passage_reach: float | None = None
    tau: float = 0.1
    pooling: str = "attention"
    captioner: CaptionerConfig | None = None
    gist: GistConfig | None = None
    naming: NamingConfig | None = None
    querybank: QuerybankConfig | None = None
    narrow: NarrowConfig | None = None

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling: got {self.pooling!r}, expected one of {POOLINGS}")
        if self.dim < 1 or self.dim % self.heads:
            raise ConfigError(f"dim: got {self.dim}, expected a multiple of heads ({self.heads})")
        if self.passage_reach is not None and self.passage_reach <= 0:
            raise ConfigError(f"passage_reach: got {self.passage_reach}, expected above 0")
        if not TAU_RANGE[0] <= self.tau <= TAU_RANGE[1]:
            raise ConfigError(f"tau: got {self.tau}, expected {TAU_RANGE[0]} to {TAU_RANGE[1]}")

    @property
    def wide_dim(self) -> int:
        """Width of the embeddings before they are narrowed."""
        fitted = [expert for expert in (self.gist, self.naming) if expert and expert.inputs]
        return self.dim + sum(expert.dim + Beside.FILLERS for expert in fitted)

    @property
    def joint_dim(self) -> int:
        """Width of the embeddings that come out."""
        narrowed = self.narrow is not None and self.narrow.directions
        return self.narrow.dim if self.narrow and narrowed else self.wide_dim


@dataclass  # not frozen: Lightning moves its tensors in place
class SongBatch:
    """Songs as the model reads them, clips of all songs in one row.

    Attributes:
        prepared: ``[n, ...]``, what the audio encoder's ``prepare`` gave; n = clips of all songs.
        filled: float ``[n]``, the part of each clip that is sound and not padding, 0..1.
        clip_mask: bool ``[songs, clips]``; its True entries, row by row, are the n clips.
        position: int64 ``[songs, clips]``, number of each clip in its song, from 0.
        place: ``[songs, clips, 2]``, start and end of each clip as a fraction of its song.
    """

    prepared: Tensor
    filled: Tensor
    clip_mask: Tensor
    position: Tensor
    place: Tensor


@dataclass(frozen=True)
class SongState:
    """Songs in the joint space.

    Attributes:
        clip_state: ``[songs, clips, dim]``, before normalisation; the captioner reads it.
        clip_emb: ``[songs, clips, dim]``, unit rows, zero on padding.
        clip_mask: bool ``[songs, clips]``.
    """

    clip_state: Tensor
    clip_emb: Tensor
    clip_mask: Tensor

    def float(self) -> SongState:
        """The same in float32."""
        return SongState(self.clip_state.float(), self.clip_emb.float(), self.clip_mask)


@dataclass(frozen=True)
class TextState:
    """Texts in the joint space: unit ``passage_emb [texts, passages, dim]``, mask and weights."""

    passage_emb: Tensor
    passage_mask: Tensor
    passage_weight: Tensor

    def float(self) -> TextState:
        """The same in float32."""
        return TextState(self.passage_emb.float(), self.passage_mask, self.passage_weight.float())

    def part(self, rows: slice, passages: int | None = None) -> TextState:
        """Some of the texts, and their first passages where the others are padding."""
        return TextState(
            self.passage_emb[rows, :passages],
            self.passage_mask[rows, :passages],
            self.passage_weight[rows, :passages],
        )


class CoLLAP(nn.Module):
    """The model of design section 2 (after CoLLAP, arXiv 2410.02271)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.audio = build_audio_encoder(config.encoder)
        self.text = build_text_encoder(config.text)
        self.kernel = KernelAttention(self.audio.d_audio, config.dim, config.kernel_frames)
        self.clips = SequenceEncoder(config.dim, config.clip_layers, config.heads, config.dropout)
        # Orthogonal, so that training starts with the tower's own geometry of texts.
        self.text_project = nn.Linear(self.text.d_text, config.dim, bias=False)
        nn.init.orthogonal_(self.text_project.weight)
        self.words: WordEncoder | None = None
        if config.word_layers:
            numbers = number_features(self.text.vocabulary())
            d_word = self.text.word_table().shape[1]
            self.words = WordEncoder(
                numbers, d_word, config.dim, layers=config.word_layers, dropout=config.dropout
            )
        self.passages = SequenceEncoder(
            config.dim, config.text_layers, config.heads, config.dropout
        )
        self.passage_logit = nn.Linear(config.dim, 1)
        nn.init.zeros_(self.passage_logit.weight)
        nn.init.zeros_(self.passage_logit.bias)
        self.log_tau = nn.Parameter(torch.tensor(math.log(config.tau)))
        self.log_scale = nn.Parameter(torch.tensor(LOGIT_SCALE_INIT))
        self.captioner = Captioner(config.captioner, config.dim) if config.captioner else None
        gist, narrow, bank = config.gist, config.narrow, config.querybank
        self.gist = Gist(gist, self.text.d_text) if gist and gist.inputs else None
        self.naming: Naming | None = None
        if config.naming and config.naming.inputs:
            self.naming = Naming(config.naming, self.text.word_table().shape[1])
        self.narrow = Narrow(narrow, config.wide_dim) if narrow and narrow.directions else None
        self.querybank = Querybank(bank, config.joint_dim) if bank and bank.passages else None

    @property
    def experts(self) -> list[Beside]:
        """What stands beside the attention in the embeddings, in the order of its coordinates."""
        return [e for e in (self.gist, self.naming) if e is not None]

    @property
    def trained_tau(self) -> Tensor:
        """Temperature of the clip attention as it is learned, within :data:`TAU_RANGE`."""
        low, high = TAU_RANGE
        return self.log_tau.clamp(math.log(low), math.log(high)).exp()

    @property
    def tau(self) -> Tensor:
        """Temperature for the embeddings: where a bank lowers songs, they differ by less."""
        return self.bare_tau * (self.querybank.config.rest if self.querybank else 1.0)

    @property
    def bare_tau(self) -> Tensor:
        """Temperature before a bank: products are the trained ones times :attr:`kept_scale`."""
        return self.trained_tau * self.kept_scale

    @property
    def kept_scale(self) -> Tensor | float:
        """Products of clips and passages over those of training.

        Experts take some of a row's length, and a narrow space has a scale of its own.
        """
        kept: Tensor | float = self.narrow.scale if self.narrow is not None else 1.0
        for expert in self.experts:
            kept = expert.rest * kept
        return kept

    @property
    def logit_scale(self) -> Tensor:
        """Factor of the scores in the contrastive loss, at most 100."""
        return self.log_scale.clamp(max=LOGIT_SCALE_MAX).exp()

    def tower_parameters(self) -> set[nn.Parameter]:
        """The weights inside published towers."""
        owners = [*tower_owners(self.audio), *tower_owners(self.text)]
        return {p for _, owner in owners for p in owner.get_submodule("tower").parameters()}

    def split(self, text: str) -> list[Passage]:
        """Passages of a text; raises ``TextError`` where it is empty."""
        return split_passages(text, self.text.count_tokens, self.text.max_tokens)

    def encode_clips(self, prepared: Tensor, filled: Tensor) -> Tensor:
        """Clips before the temporal encoder: ``[n, ...]``, ``[n]`` -> ``[n, dim]``.

        Where the network has experts, what those read of them stands behind the ``dim`` numbers.
        """
        return self.pool_frames(self.audio(prepared), filled)

    def pool_frames(self, frames: Tensor, filled: Tensor) -> Tensor:
        """Frames of the audio encoder ``[n, frames, d_audio]`` -> as :meth:`encode_clips`."""
        count = frames.shape[1]
        valid = (filled * count).ceil().clamp(min=1)
        frame_mask = torch.arange(count, device=frames.device)[None, :] < valid[:, None]
        vectors = self.kernel(frames, frame_mask)
        if not self.experts:
            return vectors
        return clip_inputs(vectors, frames, frame_mask)

    def encode_songs(self, batch: SongBatch) -> SongState:
        """Songs -> contextual clips. Padded clips never reach the audio encoder."""
        vectors = self.encode_clips(batch.prepared, batch.filled)
        return self.contextualise(vectors, batch.clip_mask, batch.position, batch.place)

    def contextualise(
        self, vectors: Tensor, clip_mask: Tensor, position: Tensor, place: Tensor
    ) -> SongState:
        """Clip vectors of :meth:`encode_clips` -> songs."""
        padded = vectors.new_zeros(*clip_mask.shape, vectors.shape[-1])
        padded[clip_mask] = vectors
        state = self.clips(padded[..., : self.config.dim], clip_mask, position, place)
        clip_emb = self._unit(state)
        for expert in self.experts:
            vector = expert.of_songs(padded, clip_mask)
            clip_emb = expert.widen_songs(clip_emb, clip_mask, vector)
        if self.narrow is not None:
            clip_emb = self.narrow.narrow_songs(clip_emb)
        if self.querybank is not None:
            prior = self.bank_prior(clip_emb, clip_mask)
            clip_emb = self.querybank.lower_songs(clip_emb, clip_mask, prior)
        return SongState(state, clip_emb, clip_mask)

    def bank_prior(self, clip_emb: Tensor, clip_mask: Tensor) -> Tensor:
        """What the bank gives each song; see :meth:`retrieval.querybank.Querybank.prior`."""
        assert self.querybank is not None
        return self.querybank.prior(clip_emb, clip_mask, self.bare_tau, self.kept_scale)

    def song_as_query(self, clip_emb: Tensor) -> Tensor:
        """Clips that ask for songs, as passages do: unit rows without what only songs have."""
        if self.narrow is not None:
            clip_emb = self.narrow.swap(clip_emb)
        return self.querybank.swap(clip_emb) if self.querybank is not None else clip_emb

    def _unit(self, state: Tensor) -> Tensor:
        """Unit rows, zero in the coordinates that a bank has for itself."""
        if self.config.querybank is not None:
            state = F.pad(state[..., :-RESERVED], (0, RESERVED))
        return F.normalize(state, dim=-1)

    def encode_texts(self, texts: Sequence[Sequence[str]]) -> TextState:
        """Texts, each a list of at least one passage -> passages in the joint space."""
        longest = max(len(passages) for passages in texts)
        device = self.log_tau.device
        counts = torch.tensor([len(passages) for passages in texts], device=device)
        mask = torch.arange(longest, device=device)[None, :] < counts[:, None]
        projected, vectors = self._encode_passages([p for passages in texts for p in passages])
        padded = projected.new_zeros(*mask.shape, projected.shape[-1])
        padded[mask] = projected
        index = torch.arange(longest, device=device)[None, :].expand(len(texts), -1)
        place = torch.stack([index, index + 1], dim=-1) / counts[:, None, None]
        state = self.passages(padded, mask, index, place)
        logit = self.passage_logit(state).squeeze(-1)
        reach = self.config.passage_reach
        if reach is not None:
            logit = reach * torch.tanh(logit / reach)
        weight = torch.softmax(logit.masked_fill(~mask, torch.finfo(logit.dtype).min), dim=-1)
        passage_emb = self._unit(state)
        # How much a text is like the builder's, which the bank and the expert for names know.
        of_bank = mask.new_ones(len(texts), dtype=torch.float32)
        if self.gist is not None:
            gist, gate = self.gist.of_texts(self._whole_texts(vectors, mask))
            passage_emb = self.gist.widen_texts(passage_emb, mask, gist, gate)
            of_bank = 1 - gate
        if self.naming is not None:
            named = self.naming.read(self.named_words(texts))
            words = [sum(len(passage.split()) for passage in passages) for passages in texts]
            gate = self.naming.gate(torch.tensor(words, device=device), of_bank)
            passage_emb = self.naming.widen_texts(passage_emb, mask, named, gate)
        if self.narrow is not None:
            passage_emb = self.narrow.narrow_texts(passage_emb)
        if self.querybank is not None:
            passage_emb = self.querybank.mark_texts(passage_emb, mask, of_bank)
        return TextState(passage_emb, mask, weight)

    def whole_texts(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """What a gist reads of texts: unit rows ``[texts, d_text]``."""
        counts = torch.tensor([len(passages) for passages in texts], device=self.log_tau.device)
        mask = torch.arange(int(counts.max()), device=counts.device)[None, :] < counts[:, None]
        vectors = self.text([p for passages in texts for p in passages])
        return self._whole_texts(F.normalize(vectors, dim=-1), mask)

    def named_words(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """What the expert for names reads of texts: ``[texts, d_word]``."""
        ids = [
            [i for passage in passages for i in self.text.token_ids(affirmed(passage))]
            for passages in texts
        ]
        return word_inputs(ids, self.text.word_table())

    def _whole_texts(self, vectors: Tensor, passage_mask: Tensor) -> Tensor:
        padded = vectors.new_zeros(*passage_mask.shape, vectors.shape[-1])
        padded[passage_mask] = vectors
        return text_inputs(padded, passage_mask)

    def _encode_passages(self, passages: list[str]) -> tuple[Tensor, Tensor]:
        """Each by itself, ``[n, dim]``, and the tower's own unit vectors of them ``[n, d_text]``.

        A passage that stands in several texts is read once.
        """
        number = {passage: i for i, passage in enumerate(dict.fromkeys(passages))}
        vectors = F.normalize(self.text(list(number)), dim=-1)
        # Times sqrt(d): each entry is about 1, whatever tower they come from.
        projected = self.text_project(vectors * math.sqrt(vectors.shape[-1]))
        if self.words is not None:
            ids = [self.text.token_ids(passage) for passage in number]
            projected = projected + self.words(ids, self.text.word_table())
        rows = [number[passage] for passage in passages]
        return projected[rows], vectors[rows]

    def score(self, texts: TextState, songs: SongState) -> Tensor:
        """The fusion score of every text with every song, ``[texts, songs]``."""
        return fused_score(
            texts.passage_emb,
            texts.passage_weight,
            songs.clip_emb,
            songs.clip_mask,
            self.tau,
            self.config.pooling,
        )


def song_places(times_s: Tensor, duration_s: float) -> Tensor:
    """Clip times ``[clips, 2]`` in seconds -> places 0..1 for :class:`SongBatch`."""
    return (times_s / max(duration_s, 1e-6)).clamp(0, 1).float()
