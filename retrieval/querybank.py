"""What every long text finds is worth less: hubs are lowered, inside the embeddings themselves.

In a large library some songs stand high for whatever is asked ("hubs"). Querybank normalisation
(Bogolin et al. 2022, arXiv 2112.12777) subtracts from a song's score what it would get from a bank
of other texts. That part depends on the song alone, so it fits into the embeddings: a number in a
coordinate of its own, the same in all clips of a song, changes no attention and adds the same to
every passage's similarity. Score, bound and index stay as they are, and rows stay unit vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from retrieval.errors import ConfigError
from retrieval.fusion import fused_score

#: Coordinates at the end that hold nothing else: a song's number, and what fills a text's length.
RESERVED = 2
#: A song's number is at most this either way, so that the rest of its vector keeps its length.
_MOST = 0.5


@dataclass(frozen=True)
class QuerybankConfig:
    """How songs are lowered.

    Attributes:
        texts: in the bank; long captions of training songs.
        passages: of the longest of them; 0 while a model is trained, which has no bank yet.
        share: of the reserved coordinates in a passage's length. The larger, the smaller the
            numbers of songs are.
        sharpness: how much the texts that like a song most count beside the others: what is
            subtracted is ``log(mean(exp(sharpness * S))) / sharpness`` over the bank.
        full_passages: from so many passages on, a text counts as long. For one of fewer, in
            proportion, less is subtracted: what is a hub for long texts need not be one for short
            queries.
    """

    texts: int = 400
    passages: int = 0
    share: float = 0.6
    sharpness: float = 20.0
    full_passages: int = 8

    def __post_init__(self) -> None:
        if self.texts < 1 or self.passages < 0 or self.full_passages < 1:
            raise ConfigError(
                f"querybank: texts {self.texts}, passages {self.passages}, full_passages "
                f"{self.full_passages}, expected at least 1, 0 and 1"
            )
        if not 0 < self.share < 1 or self.sharpness <= 0:
            raise ConfigError(
                f"querybank: share {self.share}, sharpness {self.sharpness}, expected 0 to 1, both "
                "left out, and above 0"
            )

    @property
    def rest(self) -> float:
        """Length that is left to a passage's other coordinates."""
        return math.sqrt(1 - self.share**2)


class Querybank(nn.Module):
    """Passages of the bank, and the two changes of embeddings.

    Args:
        config: with ``passages`` above 0.
        dim: width of the joint space.
    """

    def __init__(self, config: QuerybankConfig, dim: int):
        super().__init__()
        self.config = config
        self.register_buffer("passage_emb", torch.zeros(config.texts, config.passages, dim))
        self.register_buffer("passage_weight", torch.zeros(config.texts, config.passages))
        self.register_buffer("level", torch.zeros(()))
        self.passage_emb: Tensor
        self.passage_weight: Tensor
        self.level: Tensor  #: mean of :meth:`prior` over training songs

    def prior(
        self, clip_emb: Tensor, clip_mask: Tensor, tau: Tensor, scale: float | Tensor = 1.0
    ) -> Tensor:
        """What the bank gives each song, float32 ``[songs]``.

        Args:
            clip_emb: ``[songs, clips, dim]``, unit rows, zero in the reserved coordinates.
            clip_mask: ``[songs, clips]``, True where a clip is real.
            tau: temperature without a bank.
            scale: how much smaller scores are than those that ``sharpness`` is meant for.
        """
        # In float32 and apart from autocast: differences of scores of a few thousandths.
        with torch.autocast(clip_emb.device.type, enabled=False):
            exact = clip_emb.float()
            scores = fused_score(self.passage_emb, self.passage_weight, exact, clip_mask, tau)
            sharp = self.config.sharpness / scale
            return (torch.logsumexp(sharp * scores, dim=0) - math.log(len(scores))) / sharp

    def lower_songs(self, clip_emb: Tensor, clip_mask: Tensor, prior: Tensor) -> Tensor:
        """Clips with their song's number.

        Args:
            clip_emb: as for :meth:`prior`.
            clip_mask: likewise.
            prior: ``[songs]``, of :meth:`prior`.
        """
        with torch.autocast(clip_emb.device.type, enabled=False):
            exact = clip_emb.float()
            above = prior - self.level
            # A passage has `share` there, and `rest` of what it would say else.
            number = (-above * self.config.rest / self.config.share).clamp(-_MOST, _MOST)
            number = number[:, None].expand(clip_mask.shape) * clip_mask
            lowered = exact * (1 - number.square()).sqrt()[..., None]
            lowered[..., -RESERVED] = number
            return lowered

    def mark_texts(self, passage_emb: Tensor, passage_mask: Tensor, alike: Tensor) -> Tensor:
        """Passages that read songs' numbers, as far as their text is long and like the bank's.

        Args:
            passage_emb: ``[texts, passages, dim]``, unit rows, zero in the reserved coordinates.
            passage_mask: True where a passage is real.
            alike: ``[texts]``, 0 to 1, how much each is of the kind that is in the bank.
        """
        long = (passage_mask.sum(dim=1) / self.config.full_passages).clamp(max=1) * alike
        reads = torch.stack([long, (1 - long.square()).sqrt()], dim=-1) * self.config.share
        marked = passage_emb * self.config.rest
        marked[..., -RESERVED:] = reads[:, None] * passage_mask[..., None]
        return marked

    def swap(self, rows: Tensor) -> Tensor:
        """Clips that ask as passages do: their song's number is nothing to other songs."""
        return torch.cat([rows[..., :-RESERVED], rows[..., -RESERVED:].abs().flip(-1)], dim=-1)

    def raise_songs(self, clip_emb: Tensor) -> Tensor:
        """Undo :meth:`lower_songs`: what the clips of songs are without their song's number."""
        number = clip_emb[..., -RESERVED:-1]
        raised = clip_emb / (1 - number.square()).sqrt()
        raised[..., -RESERVED:] = 0
        return raised

    def raise_texts(self, passage_emb: Tensor) -> Tensor:
        """Undo :meth:`mark_texts`."""
        raised = passage_emb / self.config.rest
        raised[..., -RESERVED:] = 0
        return raised
