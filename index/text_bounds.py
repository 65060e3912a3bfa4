"""The bounds of :mod:`index.bounds` with the roles exchanged: clips ask, stored passages are coded.

A text's score with a song is the weighted sum of what each of its passages gives with the song's
clips, so each coded passage is bounded by its similarities to all clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.bounds import EPS, TERMS, beyond_owners, code_query
from index.codes import Codes
from index.table import Ragged, Span
from index.text_kernels import refine_texts, scan_texts, score_texts


def text_bounds(clip_emb: np.ndarray, texts: Ragged, codes: Sequence[Codes | None]) -> np.ndarray:
    """``U[i] >= S[i]`` of every stored text with one song, the bound of MaxSim.

    Args:
        clip_emb: float32 ``[clips, dim]``, unit rows.
        texts: passages of all texts; stored weights are at least 0.
        codes: of each part of ``texts``; None where a part has none, so that nothing is known.

    Returns:
        float32 ``[texts]``, infinite where nothing is known.
    """
    out = np.full(len(texts), np.inf, np.float32)
    for span, coded in zip(texts.spans, codes, strict=True):
        if coded is None or span.last == span.first:
            continue
        query = code_query(clip_emb, np.ones(len(clip_emb)), coded, upper=True)
        weight = _weights(texts, span)
        bound = scan_texts(coded.first, span.offsets, weight, query)
        # Rounding of the sums of bytes and of passages.
        bound += np.float32(4 * (texts.longest + TERMS) * EPS) * _size(weight, span)
        bound[_unknown(weight, span, coded)] = np.inf
        out[span.first : span.last] = bound
    return out


def tight_text_bounds(
    clip_emb: np.ndarray,
    texts: Ragged,
    codes: Sequence[Codes | None],
    tau: float,
    chosen: np.ndarray,
    bar: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds from intervals of all similarities of some texts, and estimates of their scores.

    Args:
        clip_emb: float32 ``[clips, dim]``, unit rows.
        texts: passages of all texts.
        codes: of each part of ``texts``, or None.
        tau: temperature.
        chosen: int64, texts by number.
        bar: what bounds are below need not be known closer.

    Returns:
        float32 ``[texts]`` each; None where that would take longer than scoring them.
    """
    upper, middle = np.full((2, len(chosen)), np.inf, np.float32)
    # Rounding of sums over passages and clips, and of the exponentials in between.
    slack = np.float32(4 * (texts.longest + len(clip_emb) + 64 + 1 / tau) * EPS)
    for span, coded in zip(texts.spans, codes, strict=True):
        places, own = span.within(chosen)
        if coded is None or not len(own):
            continue
        query = code_query(clip_emb, np.ones(len(clip_emb)), coded, upper=False)
        weight = _weights(texts, span)
        found = refine_texts(coded, span.offsets, weight, own, query, tau, bar - 2 * float(slack))
        if found is None:
            return None
        upper[places] = found[0] + slack * _size(weight, span)[own]
        middle[places] = found[1]
        unknown = places[np.isin(own, _unknown(weight, span, coded))]
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
