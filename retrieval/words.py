"""What the words of a passage say beside its sentence vector: numbers, keys, instruments."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.sequence import SequenceEncoder, pool


class WordEncoder(nn.Module):
    """A small trained transformer over the frozen word vectors of the text tower.

    A sentence vector is made for topics: 71 and 140 beats a minute come out almost alike. Here the
    model learns from its own texts which words matter. The last layer starts at zero, so that an
    untrained branch changes nothing; while training it is left out for some passages, so that the
    sentence vector alone stays usable for words that were never met.

    Args:
        d_word: width of the tower's word vectors.
        dim: width of the joint space.
        width: of the branch.
        layers: of the branch.
        dropout: in the branch.
        left_out: chance that a passage is read without it, in training.
    """

    def __init__(
        self,
        d_word: int,
        dim: int,
        width: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
        left_out: float = 0.15,
    ):
        super().__init__()
        self.heads, self.left_out = 4, left_out
        self.enter = nn.Linear(d_word, width)
        self.sequence = SequenceEncoder(width, layers, self.heads, dropout)
        self.score = nn.Linear(width, self.heads)
        self.leave = nn.Linear(width, dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, ids: list[list[int]], table: Tensor) -> Tensor:
        """Token ids of n passages, word vectors ``[vocabulary, d_word]`` -> ``[n, dim]``."""
        device = table.device
        counts = torch.tensor([max(len(row), 1) for row in ids], device=device)
        longest = int(counts.max())
        index = torch.arange(longest, device=device)[None, :].expand(len(ids), -1)
        mask = index < counts[:, None]
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in ids], device=device)
        vectors = F.normalize(F.embedding(padded, table), dim=-1) * math.sqrt(table.shape[1])
        place = torch.stack([index, index + 1], dim=-1) / counts[:, None, None]
        x = self.sequence(self.enter(vectors), mask, index, place)
        said = self.leave(pool(x, mask, self.score(x), self.heads))
        if self.training and self.left_out:
            said = said * (torch.rand(len(ids), 1, device=device) >= self.left_out)
        return said
