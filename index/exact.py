"""The exact kernel: NumPy, the same numbers for a song whatever stands beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import SearchError

POOLINGS = ("attention", "softmax", "mean", "max", "maxsim", "first")
# Clips whose similarities are computed together, so that memory stays small (32 MiB a passage).
_BLOCK_CLIPS = 1 << 17


@dataclass(frozen=True)
class Ragged:
    """Rows of many owners, one after another: clips of songs, or passages of texts.

    Attributes:
        emb: float32 ``[rows, dim]``, unit rows.
        offsets: int64 ``[owners + 1]``; owner i has rows ``offsets[i]:offsets[i + 1]``, at least 1.
        weight: float32 ``[rows]`` for passages, None for clips.
    """

    emb: np.ndarray
    offsets: np.ndarray
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, owner: int) -> np.ndarray:
        """``emb`` of one owner."""
        return self.emb[self.offsets[owner] : self.offsets[owner + 1]]

    def weights(self, owner: int) -> np.ndarray:
        """Passage weights of one owner, float32; a table of clips has none."""
        if self.weight is None:
            raise SearchError("weights: this table holds clips, expected passages")
        return self.weight[self.offsets[owner] : self.offsets[owner + 1]]


def stack(
    parts: Sequence[np.ndarray], dim: int, weights: Sequence[np.ndarray] | None = None
) -> Ragged:
    """Join the rows of many owners into one table."""
    counts = [len(part) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    emb = np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)
    weight = None
    if weights is not None:
        weight = np.concatenate(weights) if weights else np.zeros(0, np.float32)
    return Ragged(np.ascontiguousarray(emb, np.float32), offsets, weight)


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
    passage_emb: np.ndarray, passage_weight: np.ndarray, clips: Ragged, tau: float
) -> np.ndarray:
    """The ``attention`` score of one text with every song, float32 arithmetic: ``[songs]``.

    Within :func:`rounding` of :func:`pair_score`.
    """
    scores = np.empty(len(clips))
    weight = np.asarray(passage_weight, np.float32)
    for first, last in _blocks(clips.offsets):
        start = clips.offsets[first]
        sim = clips.emb[start : clips.offsets[last]] @ passage_emb.T.astype(np.float32)
        begins = clips.offsets[first:last] - start
        owner = np.repeat(np.arange(last - first), np.diff(clips.offsets[first : last + 1]))
        top = np.maximum.reduceat(sim, begins, axis=0)
        power = np.exp((sim - top[owner]) / np.float32(tau))
        total = np.add.reduceat(power, begins, axis=0)
        pooled = np.add.reduceat(power * sim, begins, axis=0) / total
        scores[first:last] = pooled @ weight
    return scores


def rounding(dim: int, tau: float, longest: int) -> float:
    """How far :func:`fast_scores` can be from :func:`pair_score`.

    A float32 dot product of unit vectors is off by at most about ``dim * eps``; sums over clips
    add ``clips * eps``. An error d in the similarities changes each attention weight by a factor
    within ``exp(+-2 d / tau)``, so the score by at most ``d + (exp(2 d / tau) - 1)``.
    """
    error = (dim + longest + 16) * float(np.finfo(np.float32).eps)
    return error + float(np.expm1(2 * error / tau)) + error * 4


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Raise SearchError unless every number is finite."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise SearchError(f"{name}: holds NaN or infinity, expected finite embeddings")


def _blocks(offsets: np.ndarray) -> list[tuple[int, int]]:
    blocks, first = [], 0
    count = len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + _BLOCK_CLIPS, "right")) - 1
        last = min(max(last, first + 1), count)
        blocks.append((first, last))
        first = last
    return blocks


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.float64) @ b.astype(np.float64).T


def _softmax(x: np.ndarray) -> np.ndarray:
    power = np.exp(x - x.max(axis=-1, keepdims=True))
    return power / power.sum(axis=-1, keepdims=True)
