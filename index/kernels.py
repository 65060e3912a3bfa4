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
from functools import cache, partial
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import numpy as np

from index.codes import Codes, owners_together, sizes, unpack

#: Parts of the work for each thread, so that none waits long for another.
_SHARES = 4
#: Less work than this many rows times passages is not worth waking a second thread.
_FEW_ROWS = 1 << 16
#: Rows that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12

#: How the loops are built, each kind asking more of the processor than the one before.
KINDS = ("plain", "avx2", "avx512", "amx")

_Int, _Float = ctypes.c_int64, ctypes.c_float


class Loops:
    """The compiled loops: the functions of ``index/loops``, built in one way.

    Args:
        library: all that was built.
        kind: one of :data:`KINDS`.
    """

    guess: Callable[..., int]
    bound: Callable[..., int]
    score: Callable[..., int]
    bound_texts: Callable[..., int]
    score_texts: Callable[..., int]

    def __init__(self, library: ctypes.CDLL, kind: str):
        for name in ("guess", "bound", "score", "bound_texts", "score_texts"):
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
        usable = KINDS[: library.longplay_best() + 1]
        kind = kind or usable[-1]
        return Loops(library, kind) if kind in usable else None
    return None


@cache
def compiled() -> Loops | None:
    """The compiled loops, or None where they were not built."""
    return load_loops()


@dataclass(frozen=True)
class CodedQuery:
    """A query as the loops over codes take it.

    With ``n_i`` the half bytes of row c in plane i, its similarity is at most
    ``<emb[p], centre> + shift[0, p] + step[0, p] * <coef[0][p], n_0>``; and without the last two
    coefficients, so without the row's sizes, it is
    ``<emb[p], centre> + shift[1, p] + sum_i step[i, p] * <coef[i][p], n_i>``, give or take
    ``reach[p] * t + margin[p]``, where t is the size that the second plane has for c. Where
    ``weight[p] < 0``, the mean of its similarities to an owner's rows is at least
    ``<emb[p], centre> - margin[p]``.

    Attributes:
        emb: float32 ``[passages, dim]``.
        weight: float32 ``[passages]``; a weight may be negative.
        coef: int16 ``[passages, 2 * width]`` of each plane.
        step, shift: float32 ``[2, passages]``.
        reach, margin: float32 ``[passages]``.
    """

    emb: np.ndarray
    weight: np.ndarray
    coef: tuple[np.ndarray, np.ndarray]
    step: np.ndarray
    shift: np.ndarray
    reach: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def in_c(self) -> ctypes.Structure:
        """``struct query`` of ``loops/codes.h``; its arrays live as long as this object."""
        return _Query(
            address(self.emb), address(self.weight),
            *(address(coef, np.int16) for coef in self.coef),
            *(address(row) for rows in (self.step, self.shift) for row in rows),
            address(self.reach), address(self.margin), len(self),
        )  # fmt: skip


class _Query(ctypes.Structure):
    _fields_ = (*((f"pointer_{i}", ctypes.c_void_p) for i in range(10)), ("passages", _Int))


class _Codes(ctypes.Structure):
    _fields_ = (
        *((f"pointer_{i}", ctypes.c_void_p) for i in range(3)),
        ("dim", _Int),
        ("wide", _Int),
    )


def codes_in_c(codes: Codes) -> ctypes.Structure:
    """``struct codes`` of ``loops/codes.h``; its arrays live as long as the codes."""
    return _Codes(
        *(address(plane, np.uint8) for plane in codes.planes), address(codes.centre, np.float16),
        codes.centre.shape[1], codes.wide,
    )  # fmt: skip


def guess(codes: Codes, query: np.ndarray, out: np.ndarray) -> None:
    """Similarities of one vector to the centres.

    Args:
        codes: of all rows.
        query: float32 ``[dim]``.
        out: float32 ``[owners]``, written to.
    """
    loops, in_c = compiled(), codes_in_c(codes)

    def work(first: int, last: int) -> None:
        if loops is None:
            out[first:last] = codes.centre[first:last].astype(np.float32) @ query
            return
        loops.guess(
            ctypes.byref(in_c), _Int(first), _Int(last), address(query), address(out)
        )  # fmt: skip

    share(len(out), len(out), work)


def bound(
    codes: Codes,
    offsets: np.ndarray,
    query: CodedQuery,
    tau: float,
    bar: float,
    upper: np.ndarray,
    middle: np.ndarray,
    guessed: np.ndarray | None = None,
) -> None:
    """Bounds of one query's score with each owner, and estimates of it.

    Where a bound by the first plane reaches the bar, both planes make it closer; where it still
    does, it is that of the softmax average of similarities within their intervals. NumPy stops
    before that: it would take longer than scoring the songs.

    Args:
        codes: of all rows.
        offsets: int64 ``[owners + 1]``, rows at which owners begin.
        query: one.
        tau: temperature.
        bar: what bounds are below need not be known closer.
        upper: float32 ``[owners]``, the bounds are written to it.
        middle: likewise the estimates, which are good where the bound reaches the bar.
        guessed: float32 ``[owners]``, what :func:`guess` gave for a query's only passage: centres
            need not be read again.
    """
    loops, longest = compiled(), int(np.diff(offsets).max(initial=1))
    in_c, codes_c = query.in_c(), codes_in_c(codes)

    def work(first: int, last: int) -> None:
        if loops is None:
            _bound(codes, offsets, first, last, query, upper[first:last])
            middle[first:last] = upper[first:last]
            return
        check_memory(loops.bound(
            ctypes.byref(codes_c), address(offsets, np.int64), _Int(first), _Int(last),
            ctypes.byref(in_c), _Float(tau), _Float(bar), _Int(longest),
            None if guessed is None else address(guessed), address(upper), address(middle),
        ))  # fmt: skip

    share(len(upper), int(offsets[-1]) * len(query), work)


def _bound(
    codes: Codes,
    offsets: np.ndarray,
    first: int,
    last: int,
    query: CodedQuery,
    out: np.ndarray,
) -> None:
    for begin, end in owners_together(offsets, first, last):
        sim, centre = upper_sims(codes, offsets, begin, end, query)
        best = np.maximum.reduceat(sim, offsets[begin:end] - offsets[begin], axis=0)
        # Attention weighs similar clips more: an average is at least the plain mean.
        each = np.where(query.weight >= 0, best, centre - query.margin)
        out[begin - first : end - first] = each @ query.weight


def upper_sims(
    codes: Codes, offsets: np.ndarray, first: int, last: int, query: CodedQuery
) -> tuple[np.ndarray, np.ndarray]:
    """Upper bounds of similarities by both planes, and similarities of centres, by NumPy.

    Args:
        codes: of all rows.
        offsets: int64 ``[owners + 1]``, rows at which owners begin.
        first: the first owner.
        last: the one behind the last.
        query: one.

    Returns:
        float32 ``[their rows, passages]`` and ``[last - first, passages]``.
    """
    begin, end = int(offsets[first]), int(offsets[last])
    centre = codes.centre[first:last].astype(np.float32) @ query.emb.T
    sim = np.repeat(centre, np.diff(offsets[first : last + 1]), axis=0)
    sim += query.shift[1] + query.margin
    for i, plane in enumerate(codes.planes):
        halves = unpack(plane, begin, end)
        coef = query.coef[i][:, :-2] * query.step[i][:, None]
        sim += halves[:, :-2].astype(np.float32) @ coef.T
    sim += sizes(halves).astype(np.float32)[:, None] * query.reach
    return sim, centre


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
        _quietly(work, 0, count)
    else:
        edges = np.linspace(0, count, shares + 1).astype(int).tolist()
        list(_pool().map(partial(_quietly, work), edges[:-1], edges[1:]))


def _quietly(work: Callable[[int, int], None], first: int, last: int) -> None:
    """Do a part of the work.

    NumPy has been seen to warn of an invalid value in products of a few finite rows, on a processor
    with AVX-512; the cause is not known. What is asked is checked to be finite before this.
    """
    with np.errstate(invalid="ignore"):
        work(first, last)


@cache
def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_threads(), "longplay-search")
