"""The loops of :mod:`index.kernels` with the roles exchanged: many texts against one song."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_int64

import numpy as np

from index.codes import Codes
from index.kernels import HALF_SCALE, CodedQuery, address, check_memory, compiled, share

#: Passages that NumPy works on together, so that they stay in the cache.
_BLOCK_ROWS = 1 << 12


def scan_texts(
    code: np.ndarray, offsets: np.ndarray, weight: np.ndarray, clips: CodedQuery
) -> np.ndarray:
    """``sum_r weight[r] * max_c sim[r, c]`` over the passages r of each text and all clips c.

    Args:
        code: int8 ``[passages, width]``.
        offsets: int64 ``[texts + 1]``, passages at which texts begin.
        weight: float32 ``[passages]``, at least 0.
        clips: those of one song.

    Returns:
        float32 ``[texts]``.
    """
    texts, library = len(offsets) - 1, compiled()
    out = np.empty(texts, np.float32)
    longest = int(np.diff(offsets).max(initial=1))

    def work(first: int, last: int) -> None:
        if library is None:
            begin, end = int(offsets[first]), int(offsets[last])
            best = _best(code[begin:end], clips)
            best *= weight[begin:end]
            out[first:last] = np.add.reduceat(best, offsets[first:last] - begin)
            return
        check_memory(library.longplay_scan_texts(
            address(code, np.int8), address(offsets, np.int64), address(weight), c_int64(first),
            c_int64(last), address(clips.coef, np.int16), address(clips.step),
            address(clips.shift), c_int64(len(clips.coef)), c_int64(longest), address(out),
        ))  # fmt: skip

    share(texts, len(code) * len(clips.coef), work)
    return out


def _best(code: np.ndarray, clips: CodedQuery) -> np.ndarray:
    coef = (clips.coef * clips.step[:, None]).T
    best = np.empty(len(code), np.float32)
    for start in range(0, len(best), _BLOCK_ROWS):
        block = code[start : start + _BLOCK_ROWS].astype(np.float32)
        best[start : start + len(block)] = (block @ coef + clips.shift).max(axis=1)
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
        clips: those of one song; the last coefficients, in both halves, are 0.
        tau: temperature.
        bar: what bounds are below need not be known closer.

    Returns:
        Upper bounds and estimates of the score, float32 ``[len(chosen)]`` each; None where the
        loops were not compiled, as in :func:`index.kernels.refine`.
    """
    library = compiled()
    if library is None:
        return None
    upper, middle = np.empty((2, len(chosen)), np.float32)
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, in_c = int(counts.max(initial=1)), clips.in_c()

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        check_memory(library.longplay_refine_texts(
            address(codes.code, np.int8), address(codes.more, np.int8),
            address(offsets, np.int64), address(weight), address(chosen[some], np.int64),
            c_int64(last - first), ctypes.byref(in_c), c_float(tau), c_float(bar),
            c_int64(longest), address(upper[some]), address(middle[some]),
        ))  # fmt: skip

    share(len(chosen), int(counts.sum()) * len(clips.coef), work)
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
    out, library = np.empty(len(chosen), np.float32), compiled()
    counts = offsets[chosen + 1] - offsets[chosen]
    longest, half = int(counts.max(initial=1)), rows.dtype == np.float16
    scaled = clip_emb * np.float32(HALF_SCALE) if half else clip_emb

    def work(first: int, last: int) -> None:
        some = slice(first, last)
        if library is None:
            out[some] = _score(rows, offsets, weight, chosen[some], clip_emb, tau)
            return
        check_memory(library.longplay_score_texts(
            address(rows, np.float16 if half else np.float32), c_int(half),
            c_int64(rows.shape[1]), address(offsets, np.int64), address(weight),
            address(chosen[some], np.int64), c_int64(last - first), address(scaled),
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
