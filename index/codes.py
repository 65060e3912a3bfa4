"""Every clip or passage in 128 bytes or 72, in three planes; what each leaves out is bounded.

Embeddings lie in a narrow cone: after the mean is taken off, 23 principal directions hold nearly
all of the variance. The first plane has a byte for each of them, and one for the size of the
rest; it is read for every song. The second has the next 23 directions and the size of what is left
then; it is read for the songs that the first leaves open. The third has 79 more, or the 23 that a
narrow joint space has left, for the few songs that are open still (design section 3).

Where it is known what will ask, as clips ask for texts, the directions are those in which the rows
differ most *for such queries*: texts vary in many ways that no song can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Bytes of a row in the first two planes; ``index/loops/codes.h`` has the same numbers.
_FIRST = (24, 24)
#: In the third: of rows so narrow that nothing is left then, and of others.
_THIRD = (24, 80)
#: Rows whose bytes stand together, so that one instruction multiplies a number of each.
BLOCK = 8
_BLOCK_ROWS = 1 << 13
_SAMPLE_ROWS = 1 << 16
_MOST = 127
#: How many rows there are for each that may be beyond.
_BEYOND = 200_000
#: What a direction in which no query lies counts, beside the mean of all.
_UNASKED = 1e-3
#: Rows have length 1; steps below this cannot be divided by in float32.
_LEAST_SCALE = 1e-20
#: Room above the largest number in the sample.
_ROOM = 1.2


@dataclass(frozen=True)
class Codes:
    """Codes of the rows of one table.

    ``<q, x> = <q, mean> + <dual.T q, z>`` with ``z = basis.T (x - mean)``. Row x has the bytes
    ``round(z[d] / scale[d])``, at most 127 either way, for 23 directions d in ``first``, the next
    23 in ``second`` and 79 (or 23) more in ``third``. What a plane and those before it leave of z
    has the size ``sqrt(sum_d left[d]^2 / spread[d])``, which is at most ``tail_step`` times the
    plane's last byte.

    A plane is int8 ``[blocks, width / 2, 8, 2]``: of every eight rows, two bytes of each in turn.
    Rows that only fill the last block are zeros.

    Attributes:
        first, second, third: the planes, as :func:`widths_of` says; last bytes are 1..127.
        mean: float32 ``[dim]``.
        basis: float32 ``[dim, dim]``, columns by falling variance of z.
        dual: float64 ``[dim, dim]``, ``dual.T @ basis`` is the identity.
        scale: float32 ``[directions]``; 0 beyond ``dim``.
        spread: float32 ``[3, dim]``, positive; how large the rest usually is in each direction,
            after each plane.
        tail_step: float32 ``[3]``, likewise.
        beyond: int64, rows whose rest is larger than a last byte can say, at most one in 60,000:
            nothing is known of them. Otherwise a few outliers would coarsen all others.
    """

    first: np.ndarray
    second: np.ndarray
    third: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    dual: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    tail_step: np.ndarray
    beyond: np.ndarray

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All three."""
        return self.first, self.second, self.third

    @property
    def widths(self) -> tuple[int, ...]:
        """Bytes of a row in each."""
        return tuple(2 * plane.shape[1] for plane in self.planes)


def widths_of(dim: int) -> tuple[int, int, int]:
    """Bytes of a row in each plane; the last byte of each is a size."""
    narrow = (*_FIRST, _THIRD[0])
    return narrow if dim <= directions_of(narrow) else (*_FIRST, _THIRD[1])


def directions_of(widths: Sequence[int]) -> int:
    """Directions that have a byte."""
    return sum(widths) - len(widths)


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
    widths = widths_of(rows.shape[1])
    scale = np.zeros(directions_of(widths), np.float32)
    kept = min(len(scale), rows.shape[1])
    scale[:kept] = _ROOM * np.abs(turned[:, :kept]).max(axis=0) / _MOST
    scale[scale < _LEAST_SCALE] = 0  # where rows of less than full rank leave nothing but rounding
    spread = np.stack([_spread(left) for left in _split(turned, scale, widths)[1]])
    blocks = -(-len(rows) // BLOCK)
    planes = [np.empty((blocks, width // 2, BLOCK, 2), np.int8) for width in widths]
    tail = np.empty((len(widths), len(rows)), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        every, left = _split((rows[some].astype(turn.dtype) - mean) @ turn, scale, widths)
        for i, (plane, part) in enumerate(zip(planes, _by_planes(every, widths), strict=True)):
            own = _in_blocks(part)
            plane[start // BLOCK :][: len(own)] = own
            left[i] *= left[i]
            tail[i, some] = np.sqrt(left[i] @ (1 / spread[i]))
    place = len(rows) - 1 - len(rows) // _BEYOND
    most = np.partition(tail, place, axis=1)[:, place]
    # A little more than measured, for the rounding of float32.
    tail_step = (np.maximum(most, 1e-6) * (1 + 1e-3) / _MOST).astype(np.float32)
    steps = np.ceil(tail * (1 + 1e-4) / tail_step[:, None])
    for plane, step in zip(planes, np.clip(steps, 1, _MOST), strict=True):
        last = np.zeros(blocks * BLOCK, np.int8)
        last[: len(step)] = step
        plane[:, -1, :, 1] = last.reshape(blocks, BLOCK)
    beyond = np.flatnonzero((steps > _MOST).any(axis=0))
    first, second, third = planes
    return Codes(first, second, third, mean, basis, dual, scale, spread, tail_step, beyond)


def _in_blocks(code: np.ndarray) -> np.ndarray:
    """Bytes ``[rows, width - 1]`` as a plane of :class:`Codes`, its last bytes 0."""
    blocks = -(-len(code) // BLOCK)
    padded = np.zeros((blocks * BLOCK, code.shape[1] + 1), np.int8)
    padded[: len(code), :-1] = code
    paired = padded.reshape(blocks, BLOCK, -1, 2)
    return np.ascontiguousarray(paired.transpose(0, 2, 1, 3))


def block_rows(plane: np.ndarray, begin: int, end: int) -> np.ndarray:
    """The rows ``begin:end`` of a plane, int8 ``[rows, width]``."""
    some = plane[begin // BLOCK : -(-end // BLOCK)]
    rows = some.transpose(0, 2, 1, 3).reshape(len(some) * BLOCK, -1)
    return rows[begin % BLOCK :][: end - begin]


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


def _split(
    turned: np.ndarray, scale: np.ndarray, widths: Sequence[int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Bytes ``[rows, directions]``, and what each plane and those before it leave of ``turned``."""
    kept = min(len(scale), turned.shape[1])
    step = scale[:kept]
    code = np.zeros((len(turned), len(scale)), np.int8)
    rounded = turned[:, :kept] * (1 / np.where(step > 0, step, np.inf)).astype(np.float32)
    np.clip(np.rint(rounded, out=rounded), -_MOST, _MOST, out=rounded)
    code[:, :kept] = rounded
    rounded *= step
    left: list[np.ndarray] = []
    done = 0
    for width in widths:
        rest = (left[-1] if left else turned).copy()
        end = min(done + width - 1, kept)
        rest[:, done:end] -= rounded[:, done:end]
        left.append(rest)
        done = end
    return code, left


def _by_planes(code: np.ndarray, widths: Sequence[int]) -> list[np.ndarray]:
    """Bytes of all directions, plane by plane, without the last byte of each."""
    edges = np.cumsum([width - 1 for width in widths])
    return np.split(code, edges[:-1], axis=1)
