"""The fusion score and its attention (design section 2.5): pure functions.

Bounds of the score, for search, are in ``index/bounds.py``.

Shapes: I texts, P passages, J songs, C clips, D = dim. Masks are True where an entry is real.
A text's real passages have weights that sum to 1; a song has at least one real clip.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

#: The scores that one checkpoint can be asked for; all but ``attention`` are baselines.
POOLINGS = ("attention", "softmax", "mean", "max", "maxsim", "first")
#: Pairs of a passage and a clip that are scored at once: 16 MB of float32 each for their cosines,
#: weights and products, near enough to the caches of a CPU and enough to keep a GPU busy.
CHUNK_PAIRS = 1 << 22


def similarity(passage_emb: Tensor, clip_emb: Tensor) -> Tensor:
    """Cosine of every passage with every clip.

    Args:
        passage_emb: ``[I, P, D]``, unit rows.
        clip_emb: ``[J, C, D]``, unit rows.

    Returns:
        ``[I, J, P, C]`` in -1..1.
    """
    texts, passages, dim = passage_emb.shape
    songs, clips, _ = clip_emb.shape
    flat = passage_emb.reshape(-1, dim) @ clip_emb.reshape(-1, dim).T
    return flat.reshape(texts, passages, songs, clips).transpose(1, 2)


def mask_clips(values: Tensor, clip_mask: Tensor) -> Tensor:
    """Fill ``[I, J, P, C]`` with the dtype's minimum where ``clip_mask [J, C]`` is False."""
    fill = torch.finfo(values.dtype).min
    return values.masked_fill(~clip_mask[None, :, None, :], fill)


def attention(sim: Tensor, clip_mask: Tensor, tau: float | Tensor) -> Tensor:
    """Text-conditioned weights over clips: ``a[p, c]`` of the design, with ``clip_key = clip_emb``.

    Args:
        sim: ``[I, J, P, C]`` from :func:`similarity`.
        clip_mask: bool ``[J, C]``.
        tau: temperature, positive.

    Returns:
        ``[I, J, P, C]``; sums to 1 over a song's real clips, 0 on the others.
    """
    return torch.softmax(mask_clips(sim / tau, clip_mask), dim=-1)


def fused_score(
    passage_emb: Tensor,
    passage_weight: Tensor,
    clip_emb: Tensor,
    clip_mask: Tensor,
    tau: float | Tensor,
    pooling: str = "attention",
) -> Tensor:
    """Score of every text with every song.

    ``attention`` is the design's score. The baselines, on the same vectors:
    ``mean`` (tau to infinity, with the song's mean vector renormalised, so that varied songs are
    not marked down), ``softmax`` (the attention of the whole text as one vector), ``max`` (tau to
    0), ``maxsim`` (ColBERT's late interaction: the best clip of each passage, all passages alike;
    arXiv 2004.12832) and ``first`` (the first clip alone).

    Args:
        passage_emb: ``[I, P, D]``, unit rows.
        passage_weight: ``[I, P]``, 0 on padding, sums to 1.
        clip_emb: ``[J, C, D]``, unit rows.
        clip_mask: bool ``[J, C]``.
        tau: temperature, positive; used by ``attention`` and ``softmax``.
        pooling: one of :data:`POOLINGS`.

    Returns:
        ``[I, J]``.

    Raises:
        ValueError: ``pooling`` is unknown.
    """
    if pooling in ("mean", "softmax"):
        query = torch.einsum("ip,ipd->id", passage_weight, passage_emb)
        if pooling == "mean":
            return query @ mean_clip(clip_emb, clip_mask).T
        passage_emb, passage_weight = (
            F.normalize(query, dim=-1)[:, None],
            query.norm(dim=-1)[:, None],
        )
    if pooling == "first":
        clip_emb, clip_mask = clip_emb[:, :1], clip_mask[:, :1]
    if pooling == "maxsim":
        real = (passage_weight > 0).to(clip_emb.dtype)
        passage_weight = real / real.sum(dim=-1, keepdim=True).clamp(min=1)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling: got {pooling!r}, expected one of {', '.join(POOLINGS)}")
    tempered = tau if pooling in ("attention", "softmax") else None
    return _by_texts(passage_emb, passage_weight, clip_emb, clip_mask, tempered)


def _by_texts(
    passage_emb: Tensor,
    passage_weight: Tensor,
    clip_emb: Tensor,
    clip_mask: Tensor,
    tau: float | Tensor | None,
) -> Tensor:
    """:func:`_score_texts` for a few texts at a time, so that memory does not grow with texts.

    Where a gradient is wanted, only the scores are kept of each few and the rest is computed again
    on the way back: that takes less time than writing all of it to memory and reading it.
    """
    pairs = passage_emb.shape[1] * clip_mask.numel()
    texts = max(CHUNK_PAIRS // max(pairs, 1), 1)
    if len(passage_emb) <= texts:
        return _score_texts(passage_emb, passage_weight, clip_emb, clip_mask, tau)
    chunks = zip(passage_emb.split(texts), passage_weight.split(texts), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_score_texts(*chunk, clip_emb, clip_mask, tau) for chunk in chunks])
    again = [
        checkpoint(_score_texts, *chunk, clip_emb, clip_mask, tau, use_reentrant=False)
        for chunk in chunks
    ]
    return torch.cat(again)


def _score_texts(
    passage_emb: Tensor,
    passage_weight: Tensor,
    clip_emb: Tensor,
    clip_mask: Tensor,
    tau: float | Tensor | None,
) -> Tensor:
    """Weighted sum over passages of the attended cosine, or without ``tau`` of the best clip's."""
    texts, passages, dim = passage_emb.shape
    # Passages of all texts in one row: the layout that the matrix product gives, never copied.
    sim = (passage_emb.reshape(-1, dim) @ clip_emb.reshape(-1, dim).T).unflatten(1, clip_mask.shape)
    fill = torch.finfo(sim.dtype).min
    if tau is None:
        per_passage = sim.masked_fill(~clip_mask, fill).amax(dim=-1)
    else:
        weight = torch.softmax((sim / tau).masked_fill(~clip_mask, fill), dim=-1)
        per_passage = (weight * sim).sum(dim=-1)
    return torch.einsum("ipj,ip->ij", per_passage.unflatten(0, (texts, passages)), passage_weight)


def peak_span(weight: np.ndarray, clip_times: np.ndarray) -> tuple[float, float]:
    """The clips around the peak of an attention that have half of its weight or more.

    Args:
        weight: ``[clips]``, of one passage.
        clip_times: ``[clips, 2]`` in seconds.

    Returns:
        Start and end in seconds.
    """
    first, last = peak_clips(weight)
    return float(clip_times[first, 0]), float(clip_times[last, 1])


def peak_clips(weight: np.ndarray) -> tuple[int, int]:
    """First and last clip of :func:`peak_span`."""
    peak = first = last = int(weight.argmax())
    while first > 0 and weight[first - 1] >= weight[peak] / 2:
        first -= 1
    while last + 1 < len(weight) and weight[last + 1] >= weight[peak] / 2:
        last += 1
    return first, last


def mean_clip(clip_emb: Tensor, clip_mask: Tensor) -> Tensor:
    """Mean of a song's real clips, renormalised: ``[J, C, D]``, ``[J, C]`` -> unit ``[J, D]``."""
    weight = clip_mask.to(clip_emb.dtype)
    total = torch.einsum("jc,jcd->jd", weight, clip_emb)
    return F.normalize(total / weight.sum(dim=1, keepdim=True).clamp(min=1), dim=-1)
