"""What the words of a passage say beside its sentence vector: numbers, keys, instruments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retrieval.sequence import SequenceEncoder, pool

#: Turns an octave of the waves that spell a number: from a sixteenth, so that 2 and 2,000 differ,
#: to eight, so that 120 and 124 do.
_NUMBER_RATES = 2.0 ** torch.arange(-4, 4)
NUMBER_WIDTH = 2 * len(_NUMBER_RATES)


def number_features(words: Sequence[str]) -> Tensor:
    """What a text tower's words say as numbers: ``[words, NUMBER_WIDTH]``, zeros for other words.

    Sines and cosines of the number's logarithm, so that numbers a few percent apart are alike,
    those met in training and others. Without this each of them is a word by itself.

    Args:
        words: the tower's vocabulary; marks of its tokenizer at a word's start may precede it.
    """
    bare = [word.lstrip("\u0120\u2581") for word in words]  # of byte-level BPE and SentencePiece
    # isdigit also holds for superscripts and other scripts, which int or log2 would refuse.
    value = [int(w) if w.isascii() and w.isdigit() and len(w) < 6 else 0 for w in bare]
    numbers = torch.tensor(value, dtype=torch.float64)
    angle = 2 * math.pi * numbers.clamp(min=1).log2()[:, None] * _NUMBER_RATES.double()
    waves = torch.cat([angle.sin(), angle.cos()], dim=1).float()
    return waves * (numbers > 0)[:, None]


class WordEncoder(nn.Module):
    """A small trained transformer over the frozen word vectors of the text tower.

    A sentence vector is made for topics: 71 and 140 beats a minute come out almost alike. Here the
    model learns from its own texts which words matter. The last layer starts at zero, so that an
    untrained branch changes nothing; while training it is left out for some passages, so that the
    sentence vector alone stays usable for words that were never met.

    Args:
        numbers: of :func:`number_features`, a row for each of the tower's words.
        d_word: width of the tower's word vectors.
        dim: width of the joint space.
        width: of the branch.
        layers: of the branch.
        dropout: in the branch.
        left_out: chance that a passage is read without it, in training.
    """

    def __init__(
        self,
        numbers: Tensor,
        d_word: int,
        dim: int,
        width: int = 128,
        layers: int = 2,
        dropout: float = 0.1,
        left_out: float = 0.15,
    ):
        super().__init__()
        self.heads, self.left_out = 4, left_out
        self.register_buffer("numbers", numbers, persistent=False)  # as the vocabulary has it
        self.numbers: Tensor
        self.enter = nn.Linear(d_word, width)
        self.enter_number = nn.Linear(NUMBER_WIDTH, width, bias=False)
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
        entered = self.enter(vectors) + self.enter_number(F.embedding(padded, self.numbers))
        x = self.sequence(entered, mask, index, place)
        said = self.leave(pool(x, mask, self.score(x), self.heads))
        if self.training and self.left_out:
            said = said * (torch.rand(len(ids), 1, device=device) >= self.left_out)
        return said
