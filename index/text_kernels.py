"""The loops of :mod:`index.kernels` with the roles exchanged: many texts against one song."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64

import numpy as np

from index.codes import Codes, block_rows
from index.kernels import CodedQuery, address, check_memory, compiled, share

#: Passages that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12


def scan_texts(
    plane: np.ndarray, offsets: np.ndarray, weight: np.ndarray, clips: CodedQuery
) -> np.ndarray:
    """``sum_r weight[r] * max_c sim[r, c]`` over the passages r of each text and all clips c.

    Args:
        plane: the first of :class:`index.codes.Codes`.
        offsets: int64 ``[texts + 1]``, passages at which texts begin.
        weight: float32 ``[passages]``, at least 0.
        clips: those of one song.

    Returns:
        float32 ``[texts]``.
    """
    texts, loops = len(offsets) - 1, compiled()
    out = np.empty(texts, np.float32)

    def work(first: int, last: int) -> None:
        if loops is None:
            begin, end = int(offsets[first]), int(offsets[last])
            best = _best(plane, begin, end, clips)
            best *= weight[begin:end]
            out[first:last] = np.add.reduceat(best, offsets[first:last] - begin)
            return
        check_memory(loops.scan_texts(
            address(plane, np.int8), address(offsets, np.int64), address(weight), c_int64(first),
            c_int64(last), address(clips.coef[0], np.int16), address(clips.step[0]),
            address(clips.shift), c_int64(len(clips)), address(out),
        ))  # fmt: skip

    share(texts, int(offsets[-1]) * len(clips), work)
    return out


def _best(plane: np.ndarray, begin: int, end: int, clips: CodedQuery) -> np.ndarray:
    coef = (clips.coef[0] * clips.step[0][:, None]).T
    best = np.empty(end - begin, np.float32)
    for start in range(begin, end, _BLOCK_ROWS):
        rows = block_rows(plane, start, min(start + _BLOCK_ROWS, end)).astype(np.float32)
        best[start - begin :][: len(rows)] = (rows @ coef + clips.shift).max(axis=1)
    return best


def refine_texts(
    codes: Codes,
    offsets: np.ndarray,
    weight: np.ndarray,
    chosen: np.ndarray,
    clips: CodedQuery,
    tau: float,
    bar: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of the score of some texts, from an interval for each similarity.

    Args:
        codes: of all passages.
        offsets: int64 ``[texts + 1]``.
        weight: float32 ``[passages]``, at least 0.
        chosen: int64, texts.
        clips: those of one song; the last coefficients, in all planes, are 0.
        tau: temperature.
        bar: what bounds are below need not be known closer.

    Returns:
        Upper bounds and estimates of the score, float32 ``[len(chosen)]`` each; None where the
        loops were not compiled, as in :func:`index.kernels.refine`.
    """
    loops = compiled()
    if loops is None:
        return None
    upper, middle = np.empty((2, len(chosen)), np.float32)
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, in_c = int(counts.max(initial=1)), clips.in_c()

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        check_memory(loops.refine_texts(
            *(address(plane, np.int8) for plane in codes.planes), address(offsets, np.int64),
            address(weight), address(chosen[some], np.int64), c_int64(last - first),
            ctypes.byref(in_c), c_float(tau), c_float(bar), c_int64(longest),
            address(upper[some]), address(middle[some]),
        ))  # fmt: skip

    share(len(chosen), int(counts.sum()) * len(clips), work)
    return upper, middle


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
