"""The generator head: a decoder that cross-attends to a song's clips and writes its caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.errors import ConfigError

#: Ids of the head's own marks; the words follow. PLAIN and TIMED open a caption without and with
#: positions, so that the two can be asked for.
PAD, END, UNKNOWN, PLAIN, TIMED = range(5)
SPECIALS = 5


@dataclass(frozen=True)
class CaptionerConfig:
    """Settings of the generator head.

    Attributes:
        vocabulary: ids of the text tower's tokens that occur in the training captions.
        width: of the decoder.
        layers: decoder layers.
        heads: attention heads.
        max_tokens: longest caption.
        dropout: everywhere.
        timed: whether captions are written with positions; False where none were trained.
    """

    vocabulary: tuple[int, ...] = ()
    width: int = 256
    layers: int = 2
    heads: int = 4
    max_tokens: int = 224
    dropout: float = 0.1
    timed: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ConfigError("captioner.vocabulary: holds a token twice")
        if self.max_tokens < 8:
            raise ConfigError(f"captioner.max_tokens: got {self.max_tokens}, expected at least 8")


class Captioner(nn.Module):
    """Transformer decoder; input and output embeddings are tied."""

    def __init__(self, config: CaptionerConfig, dim: int):
        super().__init__()
        self.config = config
        size = len(config.vocabulary) + SPECIALS
        self.word = nn.Embedding(size, config.width)
        self.position = nn.Embedding(config.max_tokens + 1, config.width)
        nn.init.normal_(self.word.weight, std=0.02)
        nn.init.normal_(self.position.weight, std=0.02)
        self.memory = nn.Linear(dim, config.width)
        layer = nn.TransformerDecoderLayer(
            config.width,
            config.heads,
            dim_feedforward=4 * config.width,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.decoder = nn.TransformerDecoder(layer, config.layers, nn.LayerNorm(config.width))
        self._index = {token: i + SPECIALS for i, token in enumerate(config.vocabulary)}

    def encode(self, token_ids: Sequence[int], timed: bool) -> list[int]:
        """Tower token ids -> ids of this head: opening mark, words, END; cut at ``max_tokens``."""
        words = [self._index.get(token, UNKNOWN) for token in token_ids]
        words = words[: self.config.max_tokens - 1]
        return [TIMED if timed else PLAIN, *words, END]

    def decode(self, ids: Sequence[int]) -> list[int]:
        """Ids of this head -> tower token ids, without marks."""
        return [self.config.vocabulary[i - SPECIALS] for i in ids if i >= SPECIALS]

    def forward(self, ids: Tensor, clip_state: Tensor, clip_mask: Tensor) -> Tensor:
        """Scores of the next word.

        Args:
            ids: int64 ``[n, length]``, from the opening mark on, padded with PAD at the end.
            clip_state: ``[n, clips, dim]``.
            clip_mask: bool ``[n, clips]``.

        Returns:
            ``[n, length, words]``.
        """
        length = ids.shape[1]
        position = torch.arange(length, device=ids.device)
        x = self.word(ids) + self.position(position)
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        out = self.decoder(
            x,
            self.memory(clip_state),
            tgt_mask=causal,
            memory_key_padding_mask=~clip_mask,
        )
        return out @ self.word.weight.T

    def loss_sum(self, ids: Tensor, clip_state: Tensor, clip_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over real words, and their number (both scalars)."""
        logits = self(ids[:, :-1], clip_state, clip_mask)
        target = ids[:, 1:]
        # Words outside the vocabulary are read but never learned, so they are never written.
        target = target.masked_fill(target == UNKNOWN, PAD)
        total = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=PAD, reduction="sum"
        )
        return total, (target != PAD).sum()

    @torch.no_grad()
    def generate(self, clip_state: Tensor, no_repeat: int = 6) -> list[int]:
        """Write one caption greedily.

        Args:
            clip_state: ``[clips, dim]`` of one song.
            no_repeat: no run of this many words is written twice.

        Returns:
            Tower token ids.
        """
        mask = torch.ones(1, len(clip_state), dtype=torch.bool, device=clip_state.device)
        ids = [TIMED if self.config.timed else PLAIN]
        while len(ids) <= self.config.max_tokens:
            batch = torch.tensor([ids], device=clip_state.device)
            logits = self(batch, clip_state[None], mask)[0, -1]
            logits[[PAD, UNKNOWN, PLAIN, TIMED]] = -torch.inf
            for word in _repeats(ids, no_repeat):
                logits[word] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == END:
                break
        return self.decode(ids)


def _repeats(ids: list[int], length: int) -> set[int]:
    """Words that would complete a run of ``length`` that was written before."""
    tail = ids[-(length - 1) :]
    if len(tail) < length - 1:
        return set()
    starts = range(len(ids) - length + 1)
    return {ids[i + length - 1] for i in starts if ids[i : i + length - 1] == tail}
