"""Every clip or passage in 80 bytes or 128, in two planes; what each leaves out is bounded.

Embeddings of one song lie close together: after its mean is taken off, less than half of their
variance is left. So an owner has its mean, and each of its rows a code of what is left,
a byte for each of 78 principal directions (126 of wide rows). The first plane has the whole byte
for the 8 that matter most and the upper half of it for the others: half a byte for every direction
leaves far less open than whole bytes for half of them. It is read for every owner. The second has
the lower halves, for the owners that the first leaves open. Each plane ends with the size of what
it and those before it leave out (design section 3).

Where it is known what will ask, as clips ask for texts, the directions are those in which the rows
differ most *for such queries*: texts vary in many ways that no song can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: Directions whose byte lies in the first plane whole; ``index/loops/codes.h`` has the numbers too.
WHOLE = 8
#: Directions that have a byte, of rows up to 80 wide and of others.
_DIRECTIONS = (78, 126)
_NARROW = 80
#: Half bytes of a plane beside its directions: those of the size of what is left out.
_SIZE = 2
#: Rows whose bytes stand together, so that one instruction multiplies two half bytes of each.
BLOCK = 8
#: Bytes of a row that stand together: as many as half bytes of one row for four instructions.
UNIT = 4
_BLOCK_ROWS = 1 << 13
_SAMPLE_ROWS = 1 << 16
#: Middle of a byte, what rounds to the furthest step from it, and the furthest size.
MIDDLE, _FURTHEST, _LARGEST = 128, 127, 255
#: What an upper half says of the lower one: that it is 7.5, so as far off as either end.
HALF, UNKNOWN = 16, 7.5
#: How many rows there are for each that may be beyond.
_BEYOND = 200_000
#: What a direction in which no query lies counts, beside the mean of all.
_UNASKED = 1e-3
#: Rows have length 1; steps below this cannot be divided by in float32.
_LEAST_SCALE = 1e-20
#: Room above the largest number in the sample; and how many standard deviations have steps, in
#: directions with half a byte: steps for the furthest few would be coarse for all others.
_ROOM, _DEVIATIONS = 1.2, 3.5


@dataclass(frozen=True)
class Codes:
    """Codes of the rows of one table.

    ``<q, x> = <q, centre[owner]> + <dual.T q, z>`` with ``z = basis.T (x - centre[owner])``. Row x
    has the bytes ``k[d] = round(z[d] / scale[d]) + 128``. The first plane holds, half byte by half
    byte, the upper halves of the first 8 directions, their lower halves, the upper halves of the
    others, and its size; the second the lower halves of the others, and its size. What a plane and
    those before it leave of z, where an unknown lower half counts 7.5, has the size
    ``sqrt(sum_d left[d]^2 / spread[d])``, which is at most ``tail_step`` times the plane's size.

    A plane is uint8 ``[blocks, width / 4, 8, 4]``: of every eight rows, four bytes of each in turn,
    which are two little-endian numbers of 16 bits; half byte 2 i + j of eight is the i-th of number
    j. Rows that only fill the last block are zeros.

    Attributes:
        first, second: the planes, as :func:`widths_of` says; sizes are 1..255.
        centre: float16 ``[owners, dim]``, near the mean of an owner's rows.
        basis: float32 ``[dim, dim]``, columns by falling variance of z.
        dual: float64 ``[dim, dim]``, ``dual.T @ basis`` is the identity.
        scale: float32 ``[directions]``; 0 beyond ``dim``.
        spread: float32 ``[2, dim]``, positive; how large the rest usually is in each direction,
            after each plane.
        tail_step: float32 ``[2]``, likewise.
        beyond: int64, rows whose rest is larger than a size can say, at most one in 100,000:
            nothing is known of them. Otherwise a few outliers would coarsen all others.
    """

    first: np.ndarray
    second: np.ndarray
    centre: np.ndarray
    basis: np.ndarray
    dual: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    tail_step: np.ndarray
    beyond: np.ndarray

    @property
    def planes(self) -> tuple[np.ndarray, np.ndarray]:
        """Both."""
        return self.first, self.second

    @property
    def wide(self) -> bool:
        """Whether rows are so wide that more directions have a byte."""
        return self.centre.shape[1] > _NARROW


def directions_of(dim: int) -> int:
    """Directions that have a byte."""
    return _DIRECTIONS[dim > _NARROW]


def widths_of(dim: int) -> tuple[int, int]:
    """Bytes of a row in each plane."""
    others = directions_of(dim) - WHOLE
    return (2 * WHOLE + others + _SIZE) // 2, (others + _SIZE) // 2


def make_codes(rows: np.ndarray, offsets: np.ndarray, queries: np.ndarray | None = None) -> Codes:
    """Codes of ``rows``, float32 or float16 ``[rows, dim]``, at least one row.

    The same arguments always give the same codes.

    Args:
        rows: what is coded.
        offsets: int64 ``[owners + 1]``, rows at which owners begin, each with at least one.
        queries: float ``[queries, dim]``, a sample of what will ask: bounds of similarities with
            others are as true, but wider. By default nothing is known of queries.
    """
    counts = np.diff(offsets)
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    centre = _centres(rows, offsets)
    # Not every n-th row: that might be the same place in every song.
    chosen = np.sort(np.random.default_rng(0).permutation(len(rows))[:_SAMPLE_ROWS])
    sample = rows[chosen].astype(np.float64) - centre[owner[chosen]]
    basis, dual = _directions(sample, queries)
    # A narrow metric makes similarities differences of large numbers: those need float64.
    turn = basis if queries is None else basis.astype(np.float64)
    turned = (sample @ basis).astype(np.float32)
    scale = _scale(turned, directions_of(rows.shape[1]))
    spread = np.stack([_spread(left) for left in _split(turned, scale)[1:]])
    blocks = -(-len(rows) // BLOCK)
    widths = widths_of(rows.shape[1])
    planes = [np.zeros((blocks, width // UNIT, BLOCK, UNIT), np.uint8) for width in widths]
    tail = np.empty((len(widths), len(rows)), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        apart = rows[some].astype(turn.dtype) - centre[owner[some]]
        code, *left = _split(apart @ turn, scale)
        for i, (plane, halves) in enumerate(zip(planes, _halves(code), strict=True)):
            own = _in_blocks(halves, widths[i])
            plane[start // BLOCK :][: len(own)] = own
            left[i] *= left[i]
            tail[i, some] = np.sqrt(left[i] @ (1 / spread[i]))
    place = len(rows) - 1 - len(rows) // _BEYOND
    most = np.partition(tail, place, axis=1)[:, place]
    # A little more than measured, for the rounding of float32.
    tail_step = (np.maximum(most, 1e-6) * (1 + 1e-3) / _LARGEST).astype(np.float32)
    steps = np.ceil(tail * (1 + 1e-4) / tail_step[:, None])
    for plane, step in zip(planes, np.clip(steps, 1, _LARGEST).astype(np.uint8), strict=True):
        _set_sizes(plane, step)
    beyond = np.flatnonzero((steps > _LARGEST).any(axis=0))
    return Codes(planes[0], planes[1], centre, basis, dual, scale, spread, tail_step, beyond)


def owners_together(offsets: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The owners ``first:last`` in runs of few enough rows to stay in the cache."""
    while first < last:
        end = int(np.searchsorted(offsets, offsets[first] + _BLOCK_ROWS, "right")) - 1
        end = min(max(end, first + 1), last)
        yield first, end
        first = end


def unpack(plane: np.ndarray, begin: int, end: int) -> np.ndarray:
    """The half bytes of the rows ``begin:end`` of a plane, uint8 ``[rows, 2 * width]``."""
    some = plane[begin // BLOCK : -(-end // BLOCK)]
    numbers = np.ascontiguousarray(some).view("<u2")  # [blocks, width / 4, 8, 2]
    halves = np.stack([numbers >> 4 * i & 15 for i in range(4)], axis=3).astype(np.uint8)
    rows = halves.transpose(0, 2, 1, 3, 4).reshape(len(some) * BLOCK, -1)
    return rows[begin % BLOCK :][: end - begin]


def sizes(halves: np.ndarray) -> np.ndarray:
    """The sizes at the end of rows of :func:`unpack`, uint8 ``[rows]``."""
    return halves[:, -2] * HALF + halves[:, -1]


def _in_blocks(halves: np.ndarray, width: int) -> np.ndarray:
    """Half bytes ``[rows, 2 * width - 2]`` as a plane of :class:`Codes`, its sizes 0."""
    blocks = -(-len(halves) // BLOCK)
    padded = np.zeros((blocks * BLOCK, 2 * width), np.uint16)
    padded[: len(halves), : halves.shape[1]] = halves
    units = padded.reshape(blocks, BLOCK, width // UNIT, 4, 2).transpose(0, 2, 1, 3, 4)
    numbers = sum(units[:, :, :, i] << 4 * i for i in range(4))
    return np.ascontiguousarray(numbers).astype("<u2").view(np.uint8)


def _set_sizes(plane: np.ndarray, step: np.ndarray) -> None:
    """Write the sizes, the last two half bytes of each row."""
    every = np.zeros((len(plane), BLOCK), np.uint8)
    every.reshape(-1)[: len(step)] = step
    # The last half bytes of both numbers of the last unit.
    plane[:, -1, :, 1] = plane[:, -1, :, 1] & 15 | every & 240
    plane[:, -1, :, 3] = plane[:, -1, :, 3] & 15 | (every & 15) << 4


def _centres(rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Mean of each owner's rows, float16 ``[owners, dim]``: codes are of what is left then."""
    centre = np.empty((len(offsets) - 1, rows.shape[1]), np.float16)
    for first, last in owners_together(offsets, 0, len(centre)):
        begin = offsets[first]
        some = rows[begin : offsets[last]].astype(np.float64)
        total = np.add.reduceat(some, offsets[first:last] - begin, axis=0)
        centre[first:last] = total / np.diff(offsets[first : last + 1])[:, None]
    return centre


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


def _scale(turned: np.ndarray, directions: int) -> np.ndarray:
    """Steps of :class:`Codes`, from a sample."""
    scale = np.zeros(directions, np.float32)
    kept = min(directions, turned.shape[1])
    own = turned[:, :kept]
    most = _ROOM * np.abs(own).max(axis=0)
    usual = _DEVIATIONS * np.sqrt((own.astype(np.float64) ** 2).mean(axis=0))
    most[WHOLE:] = np.minimum(most, usual)[WHOLE:]
    scale[:kept] = most / _FURTHEST
    scale[scale < _LEAST_SCALE] = 0  # where rows of less than full rank leave nothing but rounding
    return scale


def _spread(left: np.ndarray) -> np.ndarray:
    """Usual size in each direction, float32 ``[dim]``; never 0, as it is divided by."""
    size = np.sqrt((left.astype(np.float64) ** 2).mean(axis=0))
    return (size + 0.01 * size.max() + 1e-7).astype(np.float32)


def _split(turned: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes ``[rows, directions]``, and what the first plane and both leave of ``turned``."""
    kept = min(len(scale), turned.shape[1])
    step = scale[:kept]
    code = np.full((len(turned), len(scale)), MIDDLE, np.uint8)
    rounded = turned[:, :kept] * (1 / np.where(step > 0, step, np.inf)).astype(np.float32)
    rounded = np.clip(np.rint(rounded), -_FURTHEST, _FURTHEST)
    code[:, :kept] += rounded.astype(np.int16).astype(np.uint8)  # around 256: MIDDLE + rounded
    by_both = turned.copy()
    by_both[:, :kept] -= rounded * step
    by_first = by_both.copy()
    lower = (code[:, WHOLE:kept] % HALF).astype(np.float32)
    by_first[:, WHOLE:kept] += (lower - np.float32(UNKNOWN)) * step[WHOLE:]
    return code, by_first, by_both


def _halves(code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half bytes of both planes, without their sizes, from the bytes of all directions."""
    upper, lower = code // HALF, code % HALF
    whole = [upper[:, :WHOLE], lower[:, :WHOLE]]
    return np.hstack([*whole, upper[:, WHOLE:]]), lower[:, WHOLE:]
