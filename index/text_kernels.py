"""The loops of :mod:`index.kernels` with the roles exchanged: many texts against one song."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64

import numpy as np

from index.codes import Codes, owners_together
from index.kernels import (
    CodedQuery,
    address,
    check_memory,
    codes_in_c,
    compiled,
    share,
    upper_sims,
)

#: Passages that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12


def bound_texts(
    codes: Codes,
    offsets: np.ndarray,
    weight: np.ndarray,
    clips: CodedQuery,
    tau: float,
    bar: float,
    upper: np.ndarray,
    middle: np.ndarray,
) -> None:
    """Bounds of one song's score with each text, and estimates of it.

    See :func:`index.kernels.bound`, with the roles exchanged.

    Args:
        codes: of all passages.
        offsets: int64 ``[texts + 1]``, passages at which texts begin.
        weight: float32 ``[passages]``, at least 0.
        clips: those of one song.
        tau: temperature.
        bar: what bounds are below need not be known closer.
        upper: float32 ``[texts]``, the bounds are written to it.
        middle: likewise the estimates, which are good where the bound reaches the bar.
    """
    loops, longest = compiled(), int(np.diff(offsets).max(initial=1))
    in_c, codes_c = clips.in_c(), codes_in_c(codes)

    def work(first: int, last: int) -> None:
        if loops is None:
            _bound(codes, offsets, weight, first, last, clips, upper[first:last])
            middle[first:last] = upper[first:last]
            return
        check_memory(loops.bound_texts(
            ctypes.byref(codes_c), address(offsets, np.int64), address(weight), c_int64(first),
            c_int64(last), ctypes.byref(in_c), c_float(tau), c_float(bar), c_int64(longest),
            address(upper), address(middle),
        ))  # fmt: skip

    share(len(upper), int(offsets[-1]) * len(clips), work)


def _bound(
    codes: Codes,
    offsets: np.ndarray,
    weight: np.ndarray,
    first: int,
    last: int,
    clips: CodedQuery,
    out: np.ndarray,
) -> None:
    for begin, end in owners_together(offsets, first, last):
        best = upper_sims(codes, offsets, begin, end, clips)[0].max(axis=1)
        best *= weight[offsets[begin] : offsets[end]]
        starts = offsets[begin:end] - offsets[begin]
        out[begin - first : end - first] = np.add.reduceat(best, starts)


def score_texts(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    chosen: np.ndarray,
    clip_emb: np.ndarray,
    tau: float,
) -> np.ndarray:
    """The ``attention`` score of some texts with one song, in float32 arithmetic.

    Args:
        rows: float32 or float16 ``[passages, dim]``.
        offsets: int64 ``[texts + 1]``.
        weight: float32 ``[passages]``.
        chosen: int64, which to score.
        clip_emb: float32 ``[clips, dim]``.
        tau: temperature.

    Returns:
        float32 ``[len(chosen)]``.
    """
    out, loops = np.empty(len(chosen), np.float32), compiled()
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, half = int(counts.max(initial=1)), rows.dtype == np.float16

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        if loops is None:
            out[some] = _score(rows, offsets, weight, chosen[some], clip_emb, tau)
            return
        check_memory(loops.score_texts(
            address(rows, np.float16 if half else np.float32), c_int(half),
            c_int64(rows.shape[1]), address(offsets, np.int64), address(weight),
            address(chosen[some], np.int64), c_int64(last - first), address(clip_emb),
            c_int64(len(clip_emb)), c_float(tau), c_int64(longest), address(out[some]),
        ))  # fmt: skip

    share(len(chosen), int(counts.sum()) * len(clip_emb), work)
    return out


def _score(
    rows: np.ndarray,
    offsets: np.ndarray,
    weight: np.ndarray,
    chosen: np.ndarray,
    clip_emb: np.ndarray,
    tau: float,
) -> np.ndarray:
    counts = offsets[chosen + 1] - offsets[chosen]
    starts = np.cumsum(counts) - counts
    every = np.repeat(offsets[chosen] - starts, counts) + np.arange(int(counts.sum()))
    value = np.empty(len(every), np.float32)
    for start in range(0, len(every), _BLOCK_ROWS):
        some = every[start : start + _BLOCK_ROWS]
        sim = rows[some].astype(np.float32) @ clip_emb.T
        power = np.exp((sim - sim.max(axis=1, keepdims=True)) / np.float32(tau))
        value[start : start + len(some)] = (power * sim).sum(axis=1) / power.sum(axis=1)
    return np.add.reduceat(value * weight[every], starts)
