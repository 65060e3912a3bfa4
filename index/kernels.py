"""The loops that read everything: bounds from codes, and scores. Compiled C where it was built.

``index/loops/*.c`` are built when the package is installed. Where there was no C compiler NumPy
does the same work, slower; answers are the same, as both stay within the roundings that search
allows.
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

from index.codes import block_rows

#: Parts of the work for each thread, so that none waits long for another.
_SHARES = 4
#: Less work than this many rows times passages is not worth waking a second thread.
_FEW_ROWS = 1 << 16
#: Rows that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12

_Int, _Float = ctypes.c_int64, ctypes.c_float


class Loops:
    """The compiled loops: the functions of ``index/loops``, built in one way.

    Args:
        library: all that was built.
        kind: ``avx2`` or ``plain``.
    """

    scan: Callable[..., int]
    refine: Callable[..., int]
    score: Callable[..., int]
    scan_texts: Callable[..., int]
    refine_texts: Callable[..., int]
    score_texts: Callable[..., int]

    def __init__(self, library: ctypes.CDLL, kind: str):
        for name in ("scan", "refine", "score", "scan_texts", "refine_texts", "score_texts"):
            setattr(self, name, getattr(library, f"longplay_{name}_{kind}"))


def load_loops(kind: str | None = None) -> Loops | None:
    """The compiled loops, the best for this processor or of one kind; None where there are none."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(f"_kernels{suffix}")
        if not path.exists():
            continue
        try:
            library = ctypes.CDLL(str(path))
        except OSError:  # built for another machine
            return None
        has_avx2 = bool(library.longplay_has_avx2())
        if kind == "avx2" and not has_avx2:
            return None
        return Loops(library, kind or ("avx2" if has_avx2 else "plain"))
    return None


@cache
def compiled() -> Loops | None:
    """The compiled loops, or None where they were not built."""
    return load_loops()


@dataclass(frozen=True)
class CodedQuery:
    """A query as the loops over codes take it.

    By the planes 0..i row c has the similarity
    ``shift[p] + sum_j step[j, p] * <coef[j][p], plane_j[c]>``, for i = 1 and 2 give or take
    ``reach[i - 1, p] * t + margin[i - 1, p]``, where t is the last byte that plane i has for c.

    Attributes:
        coef: int16 ``[passages, width]`` of each plane; :func:`scan` reads the first.
        step: float32 ``[3, passages]``.
        shift, weight: float32 ``[passages]``; a weight may be negative.
        reach, margin: float32 ``[2, passages]``; not used by :func:`scan`.
    """

    coef: tuple[np.ndarray, np.ndarray, np.ndarray]
    step: np.ndarray
    shift: np.ndarray
    weight: np.ndarray
    reach: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def in_c(self) -> ctypes.Structure:
        """``struct query`` of ``loops/codes.h``; its arrays live as long as this object."""
        return _Query(
            *(address(coef, np.int16) for coef in self.coef),
            *(address(row) for rows in (self.step, self.reach, self.margin) for row in rows),
            address(self.shift), address(self.weight), len(self), self.coef[2].shape[1],
        )  # fmt: skip


class _Query(ctypes.Structure):
    _fields_ = (
        *((f"pointer_{i}", ctypes.c_void_p) for i in range(12)),
        ("passages", _Int),
        ("third", _Int),
    )


def scan(
    plane: np.ndarray, offsets: np.ndarray, query: CodedQuery, begins: np.ndarray
) -> np.ndarray:
    """Weighted extremes of ``sim`` over the rows of each owner, for several queries at once.

    A passage of weight w >= 0 counts ``w * max_c sim``; one of weight w < 0 ``-w * mean_c sim``.

    Args:
        plane: the first of :class:`index.codes.Codes`.
        offsets: int64 ``[owners + 1]``, rows at which owners begin.
        query: the passages of all queries.
        begins: int64 ``[queries + 1]``, passages at which queries begin.

    Returns:
        float32 ``[queries, owners]``.
    """
    queries, owners = len(begins) - 1, len(offsets) - 1
    out = np.empty((queries, owners), np.float32)
    loops, longest = compiled(), int(np.diff(offsets).max(initial=1))

    def work(first: int, last: int) -> None:
        if loops is None:
            _scan(plane, offsets, first, last, query, begins, out)
            return
        check_memory(loops.scan(
            address(plane, np.int8), address(offsets, np.int64), _Int(first), _Int(last),
            address(query.coef[0], np.int16), address(query.step[0]), address(query.shift),
            address(query.weight), address(begins, np.int64), _Int(queries), _Int(owners),
            _Int(longest), address(out),
        ))  # fmt: skip

    share(owners, int(offsets[-1]) * len(query), work)
    return out


def _scan(
    plane: np.ndarray,
    offsets: np.ndarray,
    first: int,
    last: int,
    query: CodedQuery,
    begins: np.ndarray,
    out: np.ndarray,
) -> None:
    coef = (query.coef[0] * query.step[0][:, None]).T.astype(np.float32)
    while first < last:
        stop = int(np.searchsorted(offsets, offsets[first] + _BLOCK_ROWS, "right")) - 1
        stop = min(max(stop, first + 1), last)
        begin, end = offsets[first], offsets[stop]
        sim = block_rows(plane, int(begin), int(end)).astype(np.float32) @ coef + query.shift
        starts = offsets[first:stop] - begin
        best = np.maximum.reduceat(sim, starts, axis=0)
        mean = np.add.reduceat(sim, starts, axis=0)
        mean /= np.diff(offsets[first : stop + 1])[:, None]
        value = np.where(query.weight >= 0, best, mean) * np.abs(query.weight)
        out[:, first:stop] = np.add.reduceat(value, begins[:-1], axis=1).T
        first = stop


def refine(
    planes: tuple[np.ndarray, np.ndarray, np.ndarray],
    offsets: np.ndarray,
    chosen: np.ndarray,
    query: CodedQuery,
    tau: float,
    bar: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of the fusion score of some owners, from an interval for each similarity.

    Args:
        planes: of :class:`index.codes.Codes`.
        offsets: int64 ``[owners + 1]``.
        chosen: int64, owners.
        query: its last coefficients, in all planes, are 0.
        tau: temperature.
        bar: what bounds are below need not be known closer.

    Returns:
        Upper bounds and estimates of the score, float32 ``[len(chosen)]`` each; None where the
        loops were not compiled (the bounds of :func:`scan` hold as well, and NumPy would take
        longer than scoring the songs).
    """
    loops = compiled()
    if loops is None:
        return None
    upper, middle = np.empty((2, len(chosen)), np.float32)
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, in_c = int(counts.max(initial=1)), query.in_c()

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        check_memory(loops.refine(
            *(address(plane, np.int8) for plane in planes), address(offsets, np.int64),
            address(chosen[some], np.int64), _Int(last - first), ctypes.byref(in_c), _Float(tau),
            _Float(bar), _Int(longest), address(upper[some]), address(middle[some]),
        ))  # fmt: skip

    share(len(chosen), int(counts.sum()) * len(query), work)
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
    longest, loops = int(counts.max(initial=1)), compiled()
    half = rows.dtype == np.float16

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        if loops is None:
            _score(rows, offsets, owners[some], query, weight, tau, out[some])
            return
        check_memory(loops.score(
            address(rows, np.float16 if half else np.float32), ctypes.c_int(half),
            _Int(rows.shape[1]), address(offsets, np.int64), address(owners[some], np.int64),
            _Int(last - first), address(query), address(weight), _Int(len(query)), _Float(tau),
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
