"""Every clip or passage in 48 bytes and 80 more, what they leave out bounded (design section 3).

Embeddings lie in a narrow cone: after the mean is taken off, 47 principal directions hold about
99 % of the variance. The first half of a code has a byte for each of them, and one for the size of
the rest; it is read for every song. The second half has a byte for each of the next 79 directions,
and one for the size of what is left then; it is read for the few songs that the first leaves open.

Where it is known what will ask, as clips ask for texts, the directions are those in which the rows
differ most *for such queries*: texts vary in many ways that no song can tell apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Bytes of the halves of a code; ``index/kernels.c`` has the same numbers.
WIDTH, MORE = 48, 80
_BLOCK_ROWS = 1 << 13
_SAMPLE_ROWS = 1 << 16
_MOST = 127
#: How many rows there are for each that may be beyond.
_BEYOND = 200_000
#: What a direction in which no query lies counts, beside the mean of all.
_UNASKED = 1e-3
#: Room above the largest number in the sample.
_ROOM = 1.2


@dataclass(frozen=True)
class Codes:
    """Codes of the rows of one table.

    ``<q, x> = <q, mean> + <dual.T q, z>`` with ``z = basis.T (x - mean)``. Row x has the bytes
    ``round(z[d] / scale[d])``, at most 127 either way, for the first 47 directions d in ``code``
    and the next 79 in ``more``. What they leave of z has the size
    ``sqrt(sum_d left[d]^2 / spread[d])``, which is at most ``tail_step`` times the last byte:
    without the second half in ``code``, with it in ``more``.

    Attributes:
        code: int8 ``[rows, 48]``; the last byte is 1..127.
        more: int8 ``[rows, 80]``; likewise.
        mean: float32 ``[dim]``.
        basis: float32 ``[dim, dim]``, columns by falling variance of z.
        dual: float64 ``[dim, dim]``, ``dual.T @ basis`` is the identity.
        scale: float32 ``[126]``; 0 beyond ``dim``.
        spread: float32 ``[2, dim]``, positive; how large the rest usually is in each direction,
            without the second half and with it.
        tail_step: float32 ``[2]``, likewise.
        beyond: int64, rows whose rest is larger than the last byte can say, at most one in
            100,000: nothing is known of them. Otherwise a few outliers would coarsen all others.
    """

    code: np.ndarray
    more: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    dual: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    tail_step: np.ndarray
    beyond: np.ndarray


def make_codes(rows: np.ndarray, queries: np.ndarray | None = None) -> Codes:
    """Codes of ``rows``, float32 or float16 ``[rows, dim]``, at least one row.

    The same arguments always give the same codes.

    Args:
        rows: what is coded.
        queries: float ``[queries, dim]``, a sample of what will ask: bounds of similarities with
            others are as true, but wider. By default nothing is known of queries.
    """
    # Not every n-th row: that might be the same place in every song.
    chosen = np.random.default_rng(0).permutation(len(rows))[:_SAMPLE_ROWS]
    sample = rows[np.sort(chosen)].astype(np.float64)
    mean = sample.mean(axis=0).astype(np.float32)
    sample -= mean
    basis, dual = _directions(sample, queries)
    # A narrow metric makes similarities differences of large numbers: those need float64.
    turn = basis if queries is None else basis.astype(np.float64)
    turned = (sample @ basis).astype(np.float32)
    scale = np.zeros(WIDTH + MORE - 2, np.float32)
    kept = min(len(scale), rows.shape[1])
    scale[:kept] = _ROOM * np.abs(turned[:, :kept]).max(axis=0) / _MOST
    spread = np.stack([_spread(left) for left in _split(turned, scale)[1]])
    code, more = np.empty((len(rows), WIDTH), np.int8), np.empty((len(rows), MORE), np.int8)
    tail = np.empty((2, len(rows)), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        turned = (rows[some].astype(turn.dtype) - mean) @ turn
        every, left = _split(turned, scale)
        code[some, :-1], more[some, :-1] = every[:, : WIDTH - 1], every[:, WIDTH - 1 :]
        for half in (0, 1):
            left[half] *= left[half]
            tail[half, some] = np.sqrt(left[half] @ (1 / spread[half]))
    place = len(rows) - 1 - len(rows) // _BEYOND
    most = np.partition(tail, place, axis=1)[:, place]
    # A little more than measured, for the rounding of float32.
    tail_step = (np.maximum(most, 1e-6) * (1 + 1e-3) / _MOST).astype(np.float32)
    steps = np.ceil(tail * (1 + 1e-4) / tail_step[:, None])
    code[:, -1], more[:, -1] = np.clip(steps, 1, _MOST)
    beyond = np.flatnonzero((steps > _MOST).any(axis=0))
    return Codes(code, more, mean, basis, dual, scale, spread, tail_step, beyond)


def _directions(sample: np.ndarray, queries: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Basis and dual of :class:`Codes` from rows without their mean.

    With the second moment ``M M`` of queries, ``E <q, left>^2 = |M left|^2``, which is least where
    the directions are the principal ones of ``M x``.
    """
    if queries is None:
        basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].astype(np.float32)
    else:
        asked = queries.astype(np.float64)
        size, own = np.linalg.eigh(asked.T @ asked)
        root = np.sqrt(np.maximum(size, 0) + _UNASKED * max(float(size.mean()), 1e-12))
        metric = (own * root) @ own.T / root.max()
        inner = metric @ (sample.T @ sample) @ metric
        basis = (metric @ np.linalg.eigh(inner)[1][:, ::-1]).astype(np.float32)
    return basis, np.linalg.inv(basis.astype(np.float64)).T


def _spread(left: np.ndarray) -> np.ndarray:
    """Usual size in each direction, float32 ``[dim]``; never 0, as it is divided by."""
    size = np.sqrt((left.astype(np.float64) ** 2).mean(axis=0))
    return (size + 0.01 * size.max() + 1e-7).astype(np.float32)


def _split(turned: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bytes ``[rows, 126]``, and what the first 47 of them and what all leave of ``turned``."""
    kept, first = min(len(scale), turned.shape[1]), WIDTH - 1
    step = scale[:kept]
    code = np.zeros((len(turned), len(scale)), np.int8)
    rounded = turned[:, :kept] * (1 / np.where(step > 0, step, np.inf)).astype(np.float32)
    np.clip(np.rint(rounded, out=rounded), -_MOST, _MOST, out=rounded)
    code[:, :kept] = rounded
    rounded *= step
    without, left = turned.copy(), turned
    without[:, : min(first, kept)] -= rounded[:, :first]
    left[:, :kept] -= rounded
    return code, [without, left]
