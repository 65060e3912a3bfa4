"""The exact kernel: NumPy, the same numbers for a song whatever stands beside it."""

from __future__ import annotations

import numpy as np

from index.kernels import score
from index.table import Ragged
from retrieval.errors import SearchError

POOLINGS = ("attention", "softmax", "mean", "max", "maxsim", "first")


def attention_weights(passage_emb: np.ndarray, clip_emb: np.ndarray, tau: float) -> np.ndarray:
    """``a[p, c]`` of the design, float64 ``[passages, clips]``, rows sum to 1."""
    return _softmax(_dots(passage_emb, clip_emb) / tau)


def pair_score(
    passage_emb: np.ndarray,
    passage_weight: np.ndarray,
    clip_emb: np.ndarray,
    tau: float,
    pooling: str = "attention",
) -> float:
    """The fusion score of one text with one song, in float64; what every search returns.

    Args:
        passage_emb: ``[passages, dim]``, unit rows.
        passage_weight: ``[passages]``, sums to 1.
        clip_emb: ``[clips, dim]``, unit rows.
        tau: temperature.
        pooling: one of :data:`POOLINGS` (as in ``retrieval.fusion.fused_score``).
    """
    weight = np.asarray(passage_weight, np.float64)
    if pooling == "mean":
        centre = clip_emb.astype(np.float64).mean(axis=0)
        centre /= max(float(np.sqrt((centre * centre).sum())), 1e-12)
        return float((weight * (passage_emb.astype(np.float64) * centre).sum(axis=1)).sum())
    if pooling == "softmax":
        query = (weight[:, None] * passage_emb.astype(np.float64)).sum(axis=0)
        size = max(float(np.sqrt((query * query).sum())), 1e-12)
        passage_emb, weight = query[None] / size, np.array([size])
    sim = _dots(passage_emb, clip_emb[:1] if pooling == "first" else clip_emb)
    if pooling in ("attention", "softmax"):
        value = (_softmax(sim / tau) * sim).sum(axis=1)
    elif pooling in POOLINGS:
        value = sim.max(axis=1)
    else:
        raise SearchError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
    if pooling == "maxsim":
        weight = np.full(len(sim), 1.0 / len(sim))
    return float((weight * value).sum())


def fast_scores(
    passage_emb: np.ndarray,
    passage_weight: np.ndarray,
    clips: Ragged,
    tau: float,
    owners: np.ndarray | None = None,
) -> np.ndarray:
    """The ``attention`` score of one text with songs, float32 arithmetic.

    Within :func:`rounding` times the sum of the weights' sizes of :func:`pair_score`.

    Args:
        passage_emb: ``[passages, dim]``, unit rows.
        passage_weight: ``[passages]``.
        clips: clips of all songs, float32 or float16, which may be mapped from a file.
        tau: temperature.
        owners: songs to score, by number; all by default.

    Returns:
        float32 ``[owners]``.
    """
    query = np.ascontiguousarray(passage_emb, np.float32)
    weight = np.ascontiguousarray(passage_weight, np.float32)
    scores = np.empty(len(clips) if owners is None else len(owners), np.float32)
    for span in clips.spans:
        if owners is None:
            places: np.ndarray | slice = slice(span.first, span.last)
            own = np.arange(span.last - span.first)
        else:
            places, own = span.within(owners)
        if len(own):
            scores[places] = score(span.rows, span.offsets, own, query, weight, tau)
    return scores


def rounding(dim: int, tau: float, longest: int) -> float:
    """How far :func:`fast_scores` can be from :func:`pair_score`.

    A float32 dot product of unit vectors is off by at most about ``dim * eps``; sums over clips
    add ``clips * eps``, and the exponential's polynomial a few eps. An error d in the similarities
    changes each attention weight by a factor within ``exp(+-2 d / tau)``, so the score by at most
    ``d + (exp(2 d / tau) - 1)``.
    """
    error = (dim + longest + 16) * float(np.finfo(np.float32).eps)
    return error + float(np.expm1(2 * error / tau)) + error * 4


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Raise SearchError unless every number is finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise SearchError(f"{name}: holds NaN or infinity, expected finite embeddings")


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) @ b.astype(np.float64).T


def _softmax(x: np.ndarray) -> np.ndarray:
    power = np.exp(x - x.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)
