"""The loops that read everything: bounds from codes, and scores. Compiled C where it was built.

``index/kernels.c`` is built when the package is installed. Where there was no C compiler NumPy does
the same work, slower; answers are the same, as both stay within the roundings that search allows.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

#: Parts of the work for each thread, so that none waits long for another.
_SHARES = 4
#: Less work than this many rows times passages is not worth a second thread.
_FEW_ROWS = 1 << 12
#: Rows that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12

#: What float16 rows are short of when C widens them: it is put on the other factor.
HALF_SCALE = 2.0**112

_Int, _Float = ctypes.c_int64, ctypes.c_float


@cache
def compiled() -> ctypes.CDLL | None:
    """The compiled loops, or None where they were not built."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if path.exists():
            try:
                return ctypes.CDLL(str(path))
            except OSError:  # built for another machine
                return None
    return None


@dataclass(frozen=True)
class CodedQuery:
    """A query as the loops over codes take it.

    Row c has the similarity ``step[p] * <coef[p], code[c]> + shift[p]``, or with the second half of
    its code ``step[p] * <coef[p], code[c]> + more_step[p] * <more_coef[p], more[c]> + shift[p]``,
    give or take ``reach[p] * more[c, -1] + margin[p]``.

    Attributes:
        coef: int16 ``[passages, width]``.
        step, shift, weight: float32 ``[passages]``; a weight may be negative.
        more_coef: int16 ``[passages, width of the second half]``; for :func:`scan` not used.
        more_step, reach, margin: float32 ``[passages]``; for :func:`scan` not used.
    """

    coef: np.ndarray
    step: np.ndarray
    shift: np.ndarray
    weight: np.ndarray
    more_coef: np.ndarray
    more_step: np.ndarray
    reach: np.ndarray
    margin: np.ndarray

    def in_c(self) -> ctypes.Structure:
        """``struct query`` of ``kernels.c``; its arrays live as long as this object."""
        return _Query(
            address(self.coef, np.int16), address(self.more_coef, np.int16), address(self.step),
            address(self.more_step), address(self.shift), address(self.reach), address(self.margin),
            address(self.weight), len(self.coef),
        )  # fmt: skip


class _Query(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("coef", "more_coef", "step", "more_step", "shift",
                                               "reach", "margin", "weight")),
        ("passages", _Int),
    )  # fmt: skip


def scan(
    code: np.ndarray, offsets: np.ndarray, query: CodedQuery, begins: np.ndarray
) -> np.ndarray:
    """Weighted extremes of ``sim`` over the rows of each owner, for several queries at once.

    A passage of weight w >= 0 counts ``w * max_c sim``; one of weight w < 0 ``-w * mean_c sim``.

    Args:
        code: int8 ``[rows, width]``.
        offsets: int64 ``[owners + 1]``, rows at which owners begin.
        query: the passages of all queries.
        begins: int64 ``[queries + 1]``, passages at which queries begin.

    Returns:
        float32 ``[queries, owners]``.
    """
    queries, owners = len(begins) - 1, len(offsets) - 1
    out = np.empty((queries, owners), np.float32)
    library = compiled()

    def work(first: int, last: int) -> None:
        if library is None:
            _scan(code, offsets, first, last, query, begins, out)
            return
        check_memory(library.longplay_scan(
            address(code, np.int8), address(offsets, np.int64), _Int(first), _Int(last),
            address(query.coef, np.int16), address(query.step), address(query.shift),
            address(query.weight), address(begins, np.int64), _Int(queries), _Int(owners),
            address(out),
        ))  # fmt: skip

    share(owners, int(offsets[-1]) * len(query.coef), work)
    return out


def _scan(
    code: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    query: CodedQuery,
    begins: np.ndarray,
    out: np.ndarray,
) -> None:
    coef = (query.coef * query.step[:, None]).T.astype(np.float32)
    while first < last:
        stop = int(np.searchsorted(offsets, offsets[first] + _BLOCK_ROWS, "right")) - 1
        stop = min(max(stop, first + 1), last)
        begin, end = offsets[first], offsets[stop]
        sim = code[begin:end].astype(np.float32) @ coef + query.shift
        starts = offsets[first:stop] - begin
        best = np.maximum.reduceat(sim, starts, axis=0)
        mean = np.add.reduceat(sim, starts, axis=0)
        mean /= np.diff(offsets[first : stop + 1])[:, None]
        value = np.where(query.weight >= 0, best, mean) * np.abs(query.weight)
        out[:, first:stop] = np.add.reduceat(value, begins[:-1], axis=1).T
        first = stop


def refine(
    code: np.ndarray,
    more: np.ndarray,
    offsets: np.ndarray,
    chosen: np.ndarray,
    query: CodedQuery,
    tau: float,
    bar: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of the fusion score of some owners, from an interval for each similarity.

    Args:
        code: int8 ``[rows, width]``.
        more: int8 ``[rows, width of the second half]``.
        offsets: int64 ``[owners + 1]``.
        chosen: int64, owners.
        query: its last coefficients, in both halves, are 0.
        tau: temperature.
        bar: what bounds are below need not be known closer.

    Returns:
        Upper bounds and estimates of the score, float32 ``[len(chosen)]`` each; None where the
        loops were not compiled (the bounds of :func:`scan` hold as well, and NumPy would take
        longer than scoring the songs).
    """
    library = compiled()
    if library is None:
        return None
    upper, middle = np.empty((2, len(chosen)), np.float32)
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, in_c = int(counts.max(initial=1)), query.in_c()

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        check_memory(library.longplay_refine(
            address(code, np.int8), address(more, np.int8), address(offsets, np.int64),
            address(chosen[some], np.int64), _Int(last - first), ctypes.byref(in_c), _Float(tau),
            _Float(bar), _Int(longest), address(upper[some]), address(middle[some]),
        ))  # fmt: skip

    share(len(chosen), int(counts.sum()) * len(query.coef), work)
    return upper, middle


def score(
    rows: np.ndarray,
    offsets: np.ndarray,
    owners: np.ndarray,
    query: np.ndarray,
    weight: np.ndarray,
    tau: float,
) -> np.ndarray:
    """The ``attention`` score of one query with some owners, in float32 arithmetic.

    Args:
        rows: float32 or float16 ``[rows, dim]``.
        offsets: int64 ``[owners + 1]``.
        owners: int64, which to score.
        query: float32 ``[passages, dim]``.
        weight: float32 ``[passages]``.
        tau: temperature.

    Returns:
        float32 ``[len(owners)]``.
    """
    out = np.empty(len(owners), np.float32)
    counts = offsets[owners + 1] - offsets[owners]
    longest, library = int(counts.max(initial=1)), compiled()
    half = rows.dtype == np.float16
    scaled = query * np.float32(HALF_SCALE) if half else query

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        if library is None:
            _score(rows, offsets, owners[some], query, weight, tau, out[some])
            return
        check_memory(library.longplay_score(
            address(rows, np.float16 if half else np.float32), ctypes.c_int(half),
            _Int(rows.shape[1]), address(offsets, np.int64), address(owners[some], np.int64),
            _Int(last - first), address(scaled), address(weight), _Int(len(query)), _Float(tau),
            _Int(longest), address(out[some]),
        ))  # fmt: skip

    share(len(owners), int(counts.sum()) * len(query), work)
    return out


def _score(
    rows: np.ndarray,
    offsets: np.ndarray,
    owners: np.ndarray,
    query: np.ndarray,
    weight: np.ndarray,
    tau: float,
    out: np.ndarray,
) -> None:
    first, tall = 0, query.T.copy()
    ends = np.cumsum(offsets[owners + 1] - offsets[owners])
    while first < len(owners):
        done = ends[first - 1] if first else 0
        stop = max(int(np.searchsorted(ends, done + _BLOCK_ROWS, "right")), first + 1)
        begins, stops = offsets[owners[first:stop]], offsets[owners[first:stop] + 1]
        if len(owners) and (begins[1:] == stops[:-1]).all():
            chosen = rows[begins[0] : stops[-1]]
        else:
            chosen = np.concatenate([rows[a:b] for a, b in zip(begins, stops, strict=True)])
        sim = chosen.astype(np.float32, copy=False) @ tall
        counts = stops - begins
        starts, owner = np.cumsum(counts) - counts, np.repeat(np.arange(len(counts)), counts)
        top = np.maximum.reduceat(sim, starts, axis=0)
        power = np.exp((sim - top[owner]) / np.float32(tau))
        total = np.add.reduceat(power, starts, axis=0)
        out[first:stop] = (np.add.reduceat(power * sim, starts, axis=0) / total) @ weight
        first = stop


def address(array: np.ndarray, dtype: type[np.generic] = np.float32) -> ctypes.c_void_p:
    """Where an array lies; what C is told must be true, so it is checked here."""
    if array.dtype != dtype or not array.flags.c_contiguous:
        raise TypeError(f"array: got {array.dtype}, expected contiguous {np.dtype(dtype)}")
    return ctypes.c_void_p(array.ctypes.data)


def check_memory(failed: int) -> None:
    """MemoryError where C had none."""
    if failed:
        raise MemoryError("search: no memory for the similarities of one song")


def share(count: int, rows: int, work: Callable[[int, int], None]) -> None:
    """Do ``work(first, last)`` for parts of ``range(count)``, on all cores if there is much."""
    threads = _threads() if rows >= _FEW_ROWS else 1
    shares = min(count, threads * _SHARES) if threads > 1 else 1
    if shares <= 1:
        work(0, count)
    else:
        edges = np.linspace(0, count, shares + 1).astype(int).tolist()
        list(_pool().map(work, edges[:-1], edges[1:]))


@cache
def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), "longplay-search")
