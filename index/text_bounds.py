"""The bounds of :mod:`index.bounds` with the roles exchanged: clips ask, stored passages are coded.

A text's score with a song is the weighted sum of what each of its passages gives with the song's
clips, so each coded passage is bounded by its similarities to all clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.bounds import EPS, beyond_owners, code_query, guesses
from index.codes import Codes
from index.table import Ragged, Span
from index.text_kernels import bound_texts, score_texts


class TextBounds:
    """Bounds of one song's scores with stored texts; see :class:`index.walk.Bounds`.

    Args:
        clip_emb: float32 ``[clips, dim]``, unit rows.
        texts: passages of all texts; of those with a weight below 0 nothing is known.
        codes: of each part of ``texts``; None where a part has none, so that nothing is known.
        tau: temperature.
    """

    def __init__(
        self, clip_emb: np.ndarray, texts: Ragged, codes: Sequence[Codes | None], tau: float
    ):
        self._clip_emb, self._texts, self._codes, self._tau = clip_emb, texts, codes, tau
        # Rounding of sums over passages and clips, and of the exponentials in between.
        self._slack = np.float32(4 * (texts.longest + len(clip_emb) + 64 + 1 / tau) * EPS)

    def guesses(self) -> np.ndarray:
        """Similarity of the mean of the song's clips to that of each text's passages."""
        return guesses(self._clip_emb.mean(axis=0), self._texts, self._codes)

    def __call__(self, bar: float) -> tuple[np.ndarray, np.ndarray]:
        """Bounds and estimates of all texts."""
        upper, middle = np.empty((2, len(self._texts)), np.float32)
        for span, codes in zip(self._texts.spans, self._codes, strict=True):
            some = slice(span.first, span.last)
            if codes is None:
                upper[some] = middle[some] = np.inf
                continue
            weight = _weights(self._texts, span)
            slack = self._slack * _size(weight, span)
            coded = code_query(self._clip_emb, np.ones(len(self._clip_emb)), codes)
            bound_texts(
                codes, span.offsets, weight, coded, self._tau, bar - float(slack.max()),
                upper[some], middle[some],
            )  # fmt: skip
            upper[some] += slack
            unknown = span.first + _unknown(weight, span, codes)
            upper[unknown] = middle[unknown] = np.inf
        return upper, middle


def fast_text_scores(
    clip_emb: np.ndarray, texts: Ragged, tau: float, chosen: np.ndarray
) -> np.ndarray:
    """Scores of some texts with one song, float32 arithmetic; see :func:`index.exact.fast_scores`.

    Args:
        clip_emb: float32 ``[clips, dim]``, unit rows.
        texts: passages of all texts, float32 or float16, which may be mapped from a file.
        tau: temperature.
        chosen: int64, texts by number.

    Returns:
        float32 ``[texts]``.
    """
    scores = np.empty(len(chosen), np.float32)
    for span in texts.spans:
        places, own = span.within(chosen)
        if len(own):
            weight = _weights(texts, span)
            scores[places] = score_texts(span.rows, span.offsets, weight, own, clip_emb, tau)
    return scores


def _weights(texts: Ragged, span: Span) -> np.ndarray:
    """Weights of a span's passages, float32."""
    begin = int(texts.offsets[span.first])
    return np.ascontiguousarray(texts.all_weights[begin : begin + len(span.rows)], np.float32)


def _size(weight: np.ndarray, span: Span) -> np.ndarray:
    """What rounding grows with: the sum of a text's weights, at least 1."""
    return np.maximum(np.add.reduceat(weight, span.offsets[:-1]), 1)


def _unknown(weight: np.ndarray, span: Span, codes: Codes) -> np.ndarray:
    """Texts that are scored in any case: the bound is not for weights below 0."""
    negative = np.flatnonzero(np.minimum.reduceat(weight, span.offsets[:-1]) < 0)
    return np.union1d(beyond_owners(span, codes), negative)
