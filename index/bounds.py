"""Upper bounds of the fusion score from codes (design section 3).

With ``z = basis.T (x - centre)`` and what its code says of it, a row x has for every query q

    <q, x> = <q, centre> + sum_d q'[d] said[d] + <q', left>,    q' = dual.T q
    |<q', left>| <= sqrt(sum_d spread[d] q'[d]^2) * sqrt(sum_d left[d]^2 / spread[d])

by Cauchy and Schwarz. The last factor is at most the size that a plane has for the row, so that a
product of half bytes bounds a similarity from both sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.codes import HALF, MIDDLE, UNKNOWN, WHOLE, Codes
from index.kernels import CodedQuery, bound, guess
from index.table import Ragged, Span

EPS = float(np.finfo(np.float32).eps)
#: A centre is a mean of unit rows or nearer to 0, rounded to float16.
_HALF_EPS = 2.0**-11
#: Largest coefficient of a query: 136 products with half bytes stay far below 2**31.
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


class SongBounds:
    """Bounds of one query's scores ``U[j] >= S[j]``; see :class:`index.walk.Bounds`.

    Args:
        query: one.
        clips: clips of all songs.
        codes: of each part of ``clips``; None where a part has none, so that nothing is known.
        tau: temperature.
    """

    def __init__(self, query: Passages, clips: Ragged, codes: Sequence[Codes | None], tau: float):
        self._query, self._clips, self._codes, self._tau = query, clips, codes, tau
        # Rounding of sums over passages and clips, and of the exponentials in between.
        terms = len(query.emb) + clips.longest + 64 + 1 / tau
        self._slack = 4 * terms * EPS * max(query.size, 1.0)
        self._guessed: np.ndarray | None = None  # of the only passage

    def guesses(self) -> np.ndarray:
        """The query's similarity to the mean of each song's clips."""
        if len(self._query.emb) > 1:
            return guesses(self._query.weight @ self._query.emb, self._clips, self._codes)
        self._guessed = guesses(self._query.emb[0], self._clips, self._codes)
        return self._guessed * np.sign(self._query.weight[0])

    def __call__(self, bar: float) -> tuple[np.ndarray, np.ndarray]:
        """Bounds and estimates of all songs."""
        upper, middle = np.empty((2, len(self._clips)), np.float32)
        for span, codes in zip(self._clips.spans, self._codes, strict=True):
            some = slice(span.first, span.last)
            if codes is None:
                upper[some] = middle[some] = np.inf
                continue
            coded = code_query(self._query.emb, self._query.weight, codes)
            below = bar - self._slack
            guessed = None if self._guessed is None else self._guessed[some]
            bound(codes, span.offsets, coded, self._tau, below, upper[some], middle[some], guessed)
            unknown = span.first + beyond_owners(span, codes)
            upper[unknown] = middle[unknown] = np.inf
        upper += np.float32(self._slack)
        return upper, middle


def guesses(query: np.ndarray, table: Ragged, codes: Sequence[Codes | None]) -> np.ndarray:
    """Similarity of one vector ``[dim]`` to the mean of each owner's rows, float32 ``[owners]``."""
    found = np.full(len(table), np.inf, np.float32)
    for span, coded in zip(table.spans, codes, strict=True):
        if coded is not None:
            guess(coded, np.ascontiguousarray(query, np.float32), found[span.first : span.last])
    return found


def beyond_owners(span: Span, codes: Codes) -> np.ndarray:
    """Owners of a span, counted from its first, that have a row of which nothing is known."""
    return np.unique(np.searchsorted(span.offsets, codes.beyond, "right") - 1)


def code_query(emb: np.ndarray, weight: np.ndarray, codes: Codes) -> CodedQuery:
    """A query for the loops.

    Args:
        emb: ``[passages, dim]``.
        weight: ``[passages]``.
        codes: whose directions it is turned into.
    """
    query = emb.astype(np.float64)
    # Not `@`: BLAS would wake all its threads for a small product, and then wait for them.
    turned = np.einsum("pd,de->pe", query, codes.dual)
    per_step = np.zeros((len(query), len(codes.scale)))
    kept = min(per_step.shape[1], turned.shape[1])
    per_step[:, :kept] = turned[:, :kept] * codes.scale[:kept]
    norm = np.sqrt((query * query).sum(axis=1))
    whole, others = per_step[:, :WHOLE], per_step[:, WHOLE:]
    reach = np.sqrt(np.einsum("pe,se->ps", turned * turned, codes.spread)) * codes.tail_step
    centre_off = np.where(weight < 0, norm * (_HALF_EPS + EPS * emb.shape[1]), 0)
    first, step, lost = _whole_numbers(np.hstack([HALF * whole, whole, HALF * others]), reach[:, 0])
    second, second_step, second_lost = _whole_numbers(others, np.zeros(len(query)))
    middle = MIDDLE * per_step.sum(axis=1)
    # Beside it the rotation, float32 products of `dim` numbers, and the sum of the planes.
    margin = 4 * EPS * (norm * (emb.shape[1] + 16) + 2 * MIDDLE * np.abs(per_step).sum(axis=1))
    shift = np.stack([UNKNOWN * others.sum(axis=1) - middle + lost + margin, -middle])
    f32 = [
        np.ascontiguousarray(x, np.float32)
        for x in (emb, weight, np.stack([step, second_step]), shift, reach[:, 1],
                  margin + lost + second_lost + centre_off)
    ]  # fmt: skip
    return CodedQuery(f32[0], f32[1], (first, second), *f32[2:])


def _whole_numbers(
    exact: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients of half bytes, int16, their step, and how much rounding them may cost.

    The last two are those of a row's size, for its upper and its lower half, rounded up.
    """
    most = np.maximum(np.abs(exact).max(axis=1), HALF * reach)
    step = (np.maximum(most, 1e-12) / _MOST).astype(np.float32).astype(np.float64)
    coef = np.rint(exact / step[:, None])
    size = np.ceil(reach / step)
    lost = np.abs(exact - coef * step[:, None]).sum(axis=1) * (HALF - 1)
    every = np.hstack([coef, HALF * size[:, None], size[:, None]])
    return np.ascontiguousarray(every, np.int16), step, lost
