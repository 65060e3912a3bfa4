"""A third expert: what a short query names, heard in a song as a whole.

Queries name a style, a few instruments, a tempo, a mood ("relaxed jazz with a flute"), and songs of
training have such words as tags. Ridge regression from the mean of a song's frames tells which of
them are true of it; another, from the sum of a query's word vectors, which are true of the songs
that it was written of. A network that learns to read long captions learns both worse. As in
:mod:`retrieval.gist` the score is a sum: ``S' = S + scale * gate(text) * <named(text),
heard(song)>``. Where it stands in the embeddings: :mod:`retrieval.beside`.

Tags are many, and what is true of songs varies in fewer directions: a mood is heard because some
styles have it. So both sides have the numbers of the ``dim`` directions in which predictions of
tags differ most, a tag's share of songs p weighing ``1 / sqrt(p + rarity)`` on each side: a rare
word says more, as in inverse document frequency.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.beside import Beside, Fit, held_out, main_axes, ridge
from retrieval.errors import ConfigError

#: Songs that must have a tag; fewer do not tell how it sounds.
_LEAST = 3
#: Parts of the songs, each predicted by what the others teach.
_FOLDS = 4
#: Shrinkage of the regression from words: there are ten times as many queries as word directions.
_WORDS_SHRINK = 0.01
#: Power of how much a text is like the builder's: people's are so by 0.14 to 0.25, and what they
#: name is said by the gist already (docs/experiments.md, experiment 21).
_DOUBT = 3
#: What a text says is not there, up to a sign or a word behind which there is something again.
_DENIED = re.compile(r"\b(?:no|not|never|without)\b.*?(?=[.,;:!?]|\b(?:but|with)\b|$)", re.I | re.S)


@dataclass(frozen=True)
class NamingConfig:
    """The third expert.

    Attributes:
        dim: coordinates of it.
        shrink: of the regression from songs to tags, for inputs of unit variance.
        rarity: share of songs up to which rarer tags weigh more.
        strength: spread of its scores, for songs it was not fitted to, in that of the attention's.
        query_words: texts of at most so many words are queries.
        full_words: texts of so many are descriptions, and it says nothing of them; in between the
            more, the fewer they have.
        inputs: numbers of a clip that it reads; 0 while a model is trained, which has none yet.
    """

    dim: int = 32
    shrink: float = 1.0
    rarity: float = 0.005
    strength: float = 0.8
    query_words: int = 15
    full_words: int = 25
    inputs: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or self.inputs < 0:
            raise ConfigError(
                f"naming: dim {self.dim}, inputs {self.inputs}, expected at least 1 and 0"
            )
        if not 0 < self.query_words < self.full_words:
            raise ConfigError(
                f"naming: query_words {self.query_words}, full_words {self.full_words}, expected "
                "1 or more, and more than those"
            )
        if min(self.shrink, self.rarity, self.strength) <= 0:
            raise ConfigError(
                f"naming: shrink {self.shrink}, rarity {self.rarity}, strength {self.strength}, "
                "expected above 0"
            )


class Naming(Beside):
    """The fitted matrices.

    Args:
        config: with ``inputs`` above 0.
        d_word: width of the text tower's word vectors.
    """

    def __init__(self, config: NamingConfig, d_word: int):
        super().__init__(config.dim, config.inputs, d_word)
        self.config = config

    def gate(self, words: Tensor, of_builder: Tensor) -> Tensor:
        """How much it counts for texts, 0 to 1.

        Args:
            words: how many each has.
            of_builder: how much each is like the corpus builder's, 0 to 1.
        """
        full = self.config.full_words
        short = ((full - words) / (full - self.config.query_words)).clamp(0, 1)
        return short * of_builder**_DOUBT


def affirmed(text: str) -> str:
    """A text without what it says is not there: of "calm, no drums" the "calm"."""
    return _DENIED.sub(" ", text)


def word_inputs(texts: Sequence[Sequence[int]], table: Tensor) -> Tensor:
    """What is read of texts: the sum of their words' vectors, ``[texts, d_word]``.

    Args:
        texts: token ids of each.
        table: vectors of all words, ``[vocabulary, d_word]``.
    """
    rows = [table[list(ids)].float().sum(dim=0) / max(len(ids), 1) ** 0.5 for ids in texts]
    return torch.stack(rows)


def fit_naming(
    inputs: np.ndarray,
    tags: Sequence[Sequence[str]],
    words: np.ndarray,
    of: np.ndarray,
    config: NamingConfig,
) -> Fit | None:
    """Two regressions on tags, in the directions that songs tell most of.

    A text is read as what is true of the songs that such texts are written of, and not only as
    what it names: a style has its moods and its players, so a query for one is one for the others.

    Args:
        inputs: ``[songs, n]``, means over clips of :func:`retrieval.beside.clip_inputs`.
        tags: of each song.
        words: ``[texts, d_word]``, :func:`word_inputs` of short texts.
        of: ``[texts]``, the song each was written of.
        config: width, shrinkage and what rare tags weigh.

    Returns:
        None where not one tag is that of several songs.
    """
    known = sorted(tag for tag, n in Counter(t for own in tags for t in set(own)).items()
                   if _LEAST <= n < len(tags))  # fmt: skip
    if not known:
        return None
    x = inputs.astype(np.float64)
    true = np.array([[tag in own for tag in known] for own in map(set, tags)], np.float64)
    weight = (true.mean(axis=0) + config.rarity) ** -0.5
    matrix, bias, mean = ridge(x, true, np.ones(len(x)), config.shrink)
    predicted = held_out(x, true, np.ones(len(x)), config.shrink, _FOLDS) * weight
    axes = main_axes(predicted, config.dim)
    own = axes * weight
    said = ((true - mean) @ own.T)[of]
    reads, reads_bias, _ = ridge(words.astype(np.float64), said, np.ones(len(words)), _WORDS_SHRINK)
    return Fit(own @ matrix, own @ (bias - mean), reads, reads_bias, predicted @ axes.T)
