"""Upper bounds of the fusion score from codes (design section 3).

A row x whose code has the bytes k, the last of them t, lies for every query q within
``R(q) * t`` of what the others say:

    <q, x> = <q, mean> + sum_d q'[d] scale[d] k[d] + <q', left>,    q' = dual.T q
    |<q', left>| <= sqrt(sum_d spread[d] q'[d]^2) * sqrt(sum_d left[d]^2 / spread[d])

by Cauchy and Schwarz. So one product of bytes gives an upper bound of a similarity, and with the
last term's sign turned a lower one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.codes import Codes
from index.kernels import CodedQuery, refine, scan
from index.table import Ragged, Span

EPS = float(np.finfo(np.float32).eps)
#: Products of a similarity by the first plane, for the rounding of their sum.
TERMS = 32
#: Largest coefficient of a query: 80 products with bytes stay far below 2**31.
_MOST = 32_000


@dataclass(frozen=True)
class Passages:
    """A query as the score takes it.

    Attributes:
        emb: float32 ``[passages, dim]``, unit rows.
        weight: float32 ``[passages]``; that of a text sums to 1, others may be negative.
    """

    emb: np.ndarray
    weight: np.ndarray

    @property
    def size(self) -> float:
        """Sum of the weights' sizes."""
        return float(np.abs(self.weight).sum())


def song_bounds(
    queries: Sequence[Passages],
    clips: Ragged,
    codes: Sequence[Codes | None],
    songs: slice = slice(None),
) -> np.ndarray:
    """``U[i, j] >= S[i, j]`` of several queries with all songs, the bound of MaxSim.

    Attention lies between the least and the greatest similarity, and weighs similar clips more: a
    passage of negative weight counts with the mean similarity.

    Args:
        queries: all are bounded while the codes are read once.
        clips: clips of all songs.
        codes: of each part of ``clips``; None where a part has none, so that nothing is known.
        songs: a stretch of them, all by default.

    Returns:
        float32 ``[queries, songs]``, infinite where nothing is known.
    """
    begin, end, _ = songs.indices(len(clips))
    emb = np.concatenate([query.emb for query in queries])
    weight = np.concatenate([query.weight for query in queries])
    begins = np.cumsum([0, *(len(query.emb) for query in queries)])
    out = np.full((len(queries), end - begin), np.inf, np.float32)
    for span, coded in zip(clips.spans, codes, strict=True):
        first, last = max(span.first, begin), min(span.last, end)
        if coded is not None and last > first:
            every = code_query(emb, weight, coded, upper=True)
            offsets = span.offsets[first - span.first : last - span.first + 1]
            out[:, first - begin : last - begin] = scan(coded.first, offsets, every, begins)
            unknown = span.first + beyond_owners(span, coded)
            out[:, unknown[(unknown >= first) & (unknown < last)] - begin] = np.inf
    for row, query in zip(out, queries, strict=True):
        row += np.float32(4 * (len(query.emb) + TERMS) * EPS * max(query.size, 1.0))
    return out


class TightBounds:
    """Bounds from intervals of all similarities of some songs, and estimates of their scores.

    Args:
        query: one.
        clips: clips of all songs.
        codes: of each part of ``clips``, or None.
        tau: temperature.
    """

    def __init__(self, query: Passages, clips: Ragged, codes: Sequence[Codes | None], tau: float):
        self._clips, self._codes, self._tau = clips, codes, tau
        # Rounding of sums over passages and clips, and of the exponentials in between.
        terms = len(query.emb) + clips.longest + 64 + 1 / tau
        self._slack = 4 * terms * EPS * max(query.size, 1.0)
        self._coded = [
            None if c is None else code_query(query.emb, query.weight, c, upper=False)
            for c in codes
        ]

    def __call__(self, songs: np.ndarray, bar: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Bounds and estimates.

        Args:
            songs: int64, by number.
            bar: what bounds are below need not be known closer.

        Returns:
            float32 ``[songs]`` each; None where that would take longer than scoring them.
        """
        upper, middle = np.full((2, len(songs)), np.inf, np.float32)
        for span, codes, query in zip(self._clips.spans, self._codes, self._coded, strict=True):
            places, own = span.within(songs)
            if codes is None or query is None or not len(own):
                continue
            found = refine(codes.planes, span.offsets, own, query, self._tau, bar - self._slack)
            if found is None:
                return None
            upper[places], middle[places] = found
            unknown = places[np.isin(own, beyond_owners(span, codes))]
            upper[unknown] = middle[unknown] = np.inf
        return upper + np.float32(self._slack), middle


def beyond_owners(span: Span, codes: Codes) -> np.ndarray:
    """Owners of a span, counted from its first, that have a row of which nothing is known."""
    return np.unique(np.searchsorted(span.offsets, codes.beyond, "right") - 1)


def code_query(emb: np.ndarray, weight: np.ndarray, codes: Codes, *, upper: bool) -> CodedQuery:
    """A query for the loops.

    Args:
        emb: ``[passages, dim]``.
        weight: ``[passages]``.
        codes: whose directions it is turned into.
        upper: whether similarities by the first plane shall be upper bounds (of ``-sim`` where a
            weight is below 0), with all that is uncertain in ``coef[0][:, -1]`` and ``shift``.
    """
    sign = np.where(weight < 0, -1.0, 1.0) if upper else np.ones(len(weight))
    query = emb.astype(np.float64) * sign[:, None]
    # Not `@`: BLAS would wake all its threads for a small product, and then wait for them.
    turned = np.einsum("pd,de->pe", query, codes.dual)
    every = np.zeros((len(query), len(codes.scale)))
    kept = min(every.shape[1], turned.shape[1])
    every[:, :kept] = turned[:, :kept] * codes.scale[:kept]
    reach = np.sqrt(codes.spread @ (turned * turned).T) * codes.tail_step[:, None]
    coefs, steps, lost, done = [], [], [], 0
    for width in codes.widths:
        last = reach[0] if upper and not done else np.zeros(len(query))
        own = every[:, done : done + width - 1]
        done += width - 1
        coef, step, missed = _whole(np.column_stack([own, last]))
        coefs.append(coef)
        steps.append(step)
        lost.append(missed)
    # Beside it the rotation, float32 products of `dim` numbers, and the sum of the planes.
    norm = np.sqrt((query * query).sum(axis=1))
    summed = 127 * np.abs(every).sum(axis=1)
    rounding = 4 * EPS * (norm * (emb.shape[1] + 16) + summed)
    margin = np.cumsum(lost, axis=0) + rounding
    shift = query @ codes.mean + (margin[0] if upper else 0)
    shift, weight, step, reach, margin = (
        np.ascontiguousarray(x, np.float32)
        for x in (shift, weight, np.stack(steps), reach[1:], margin[1:])
    )
    return CodedQuery((coefs[0], coefs[1], coefs[2]), step, shift, weight, reach, margin)


def _whole(exact: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whole numbers int16 and their step float32, and how much rounding may cost with any bytes."""
    step = (np.maximum(np.abs(exact).max(axis=1), 1e-12) / _MOST).astype(np.float32)
    coef = np.rint(exact / step[:, None])
    return coef.astype(np.int16), step, np.abs(exact - coef * step[:, None]).sum(axis=1) * 127
