"""Every clip or passage in 48 bytes, with what the bytes leave out bounded (design section 3).

Embeddings lie in a narrow cone: after the mean is taken off, 47 principal directions hold about
99 % of the variance. A code has a byte for each of them, and one for the size of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Bytes of a code; ``index/kernels.c`` has the same number.
WIDTH = 48
_DIRECTIONS = WIDTH - 1
_BLOCK_ROWS = 1 << 13
_SAMPLE_ROWS = 1 << 16
_MOST = 127


@dataclass(frozen=True)
class Codes:
    """Codes of the rows of one table.

    With ``z = basis.T (x - mean)``, row x has the code ``round(z[d] / scale[d])``, at most 127
    either way, for the first 47 directions d. What is left of z has the size
    ``sqrt(sum_d left[d]^2 / spread[d])``, which is at most ``tail_step`` times the last byte.

    Attributes:
        code: int8 ``[rows, 48]``; the last byte is 1..127.
        mean: float32 ``[dim]``.
        basis: float32 ``[dim, dim]``, orthonormal columns by falling variance.
        scale: float32 ``[47]``; 0 beyond ``dim``.
        spread: float32 ``[dim]``, positive; how large the rest usually is in each direction.
        tail_step: float32 ``[1]``.
    """

    code: np.ndarray
    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    tail_step: np.ndarray


def make_codes(rows: np.ndarray) -> Codes:
    """Codes of ``rows``, float32 or float16 ``[rows, dim]``, at least one row.

    The same rows always get the same codes.
    """
    sample = rows[:: max(1, len(rows) // _SAMPLE_ROWS)].astype(np.float64)
    mean = sample.mean(axis=0).astype(np.float32)
    sample -= mean
    basis = np.linalg.eigh(sample.T @ sample)[1][:, ::-1].astype(np.float32)
    turned = (sample @ basis).astype(np.float32)
    kept = min(_DIRECTIONS, rows.shape[1])
    scale = np.zeros(_DIRECTIONS, np.float32)
    scale[:kept] = np.abs(turned[:, :kept]).max(axis=0) / _MOST
    spread = np.sqrt((_split(turned, scale)[1].astype(np.float64) ** 2).mean(axis=0))
    spread = (spread + 0.01 * spread.max() + 1e-7).astype(np.float32)
    code, tail = np.empty((len(rows), WIDTH), np.int8), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        some = slice(start, start + _BLOCK_ROWS)
        turned = (rows[some].astype(np.float32) - mean) @ basis
        code[some, :_DIRECTIONS], left = _split(turned, scale)
        left *= left
        tail[some] = np.sqrt(left @ (1 / spread))
    # A little more than measured, for the rounding of float32.
    tail_step = np.array([max(float(tail.max()), 1e-6) * (1 + 1e-3) / _MOST], np.float32)
    code[:, -1] = np.clip(np.ceil(tail * (1 + 1e-4) / tail_step), 1, _MOST)
    return Codes(code, mean, basis, scale, spread, tail_step)


def _split(turned: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bytes ``[rows, 47]``, and what they leave of ``turned``, written over it."""
    kept = min(_DIRECTIONS, turned.shape[1])
    step = scale[:kept]
    code = np.zeros((len(turned), _DIRECTIONS), np.int8)
    rounded = turned[:, :kept] * (1 / np.where(step > 0, step, np.inf)).astype(np.float32)
    np.clip(np.rint(rounded, out=rounded), -_MOST, _MOST, out=rounded)
    code[:, :kept] = rounded
    turned[:, :kept] -= rounded * step
    return code, turned
