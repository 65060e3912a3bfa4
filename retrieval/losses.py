"""The training losses: contrastive, alignment, caption (design section 2.6)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from retrieval.data.labels import LabelSet
from retrieval.model import SongState, TextState

# A binary cross-entropy averaged over 70 mostly absent names is small beside a cross-entropy over
# 24 keys; ten times it is about as large at the start of training.
_BINARY_WEIGHT = 10.0
# Of a caption's passages one or two are changed, so that a long caption's score changes less.
_CONTRAST_SCALE = 16.0


@dataclass(frozen=True)
class JointBatch:
    """Songs and texts of all processes; text i belongs to song i.

    Attributes:
        songs: ``[n, clips, ...]``.
        texts: ``[n, passages, ...]``.
        song_key: int64 ``[n]``, equal for the same song.
        text_key: int64 ``[n]``, equal for the same caption.
        target: float ``[n, passages, clips]``, where each passage should attend; zeros where no
            time is known.
    """

    songs: SongState
    texts: TextState
    song_key: Tensor
    text_key: Tensor
    target: Tensor


def info_nce(
    scores: Tensor, logit_scale: Tensor, same: Tensor, passage_weight: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE (CLIP, arXiv 2103.00020, figure 3) with duplicates masked.

    Among the songs of one text, the logits of a long text are larger: its score is a mean over
    passages, so one song is above another by less than with a short query, in proportion to the
    root of the sum of squared weights if passages err independently.

    Args:
        scores: ``[n, n]``, text i with song j; the diagonal holds the pairs.
        logit_scale: scalar.
        same: bool ``[n, n]``, True where text i also fits song j, so that it is no negative.
        passage_weight: ``[n, passages]`` of the texts, rows sum to 1; None takes all for short.

    Returns:
        Scalar, the mean of both directions.
    """
    off_pair = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    among_texts = among_songs = logit_scale * scores
    if passage_weight is not None:
        among_songs = among_songs * passage_weight.detach().square().sum(1, keepdim=True).rsqrt()
    target = torch.arange(len(scores), device=scores.device)
    least = torch.finfo(scores.dtype).min
    return (
        F.cross_entropy(among_songs.masked_fill(off_pair, least), target)
        + F.cross_entropy(among_texts.masked_fill(off_pair, least).T, target)
    ) / 2


def same_pairs(song_key: Tensor, text_key: Tensor) -> Tensor:
    """Bool ``[n, n]``: pairs that share a song or a caption."""
    songs = song_key[:, None] == song_key[None, :]
    return songs | (text_key[:, None] == text_key[None, :])


def alignment_loss(
    texts: TextState, songs: SongState, target: Tensor, tau: Tensor | float
) -> Tensor:
    """Pull each passage's attention toward the clips of the section that it describes.

    Cross-entropy between ``target`` and ``a[p, :]`` of each text with its own song, averaged over
    the passages that have a target; 0 where none has.

    Args:
        texts: ``[n, passages, ...]``.
        songs: ``[n, clips, ...]``.
        target: ``[n, passages, clips]``; a row sums to 1, or to 0 where no time is known.
        tau: temperature.
    """
    sim = torch.einsum("npd,ncd->npc", texts.passage_emb, songs.clip_emb) / tau
    sim = sim.masked_fill(~songs.clip_mask[:, None, :], torch.finfo(sim.dtype).min)
    cross = -(target * torch.log_softmax(sim, dim=-1)).sum(dim=-1)
    known = target.sum(dim=-1) > 0
    return cross[known].sum() / known.sum().clamp(min=1)


def contrast_loss(scores: Tensor, mask: Tensor, passages: Tensor) -> Tensor:
    """Choose the true caption of a song among the same caption with one fact made false.

    The scale is fixed, above that of the contrastive loss and in proportion to the passages: one
    fact stands in one of them, and changes the score of a caption of twenty by a few thousandths.

    Args:
        scores: ``[m, versions]``, each version with its own song; the true one first.
        mask: bool ``[m, versions]``, True where there is such a version.
        passages: ``[m]``, how many the true caption has.

    Returns:
        Mean cross-entropy, scalar; 0 without songs.
    """
    if not len(scores):
        return scores.sum()
    scale = _CONTRAST_SCALE * passages[:, None]
    logits = (scale * scores).masked_fill(~mask, torch.finfo(scores.dtype).min)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def label_loss(logits: Tensor, target: Tensor, labels: LabelSet) -> Tensor:
    """Name what is heard in each clip: the mean over kinds of labels.

    Exclusive kinds by cross-entropy against the shares of the clip, the others by binary
    cross-entropy, averaged over clips and names.

    Args:
        logits: ``[clips, labels]``.
        target: ``[clips, labels]`` of :meth:`retrieval.data.labels.LabelSet.target`.
        labels: gives the columns their kinds.
    """
    losses = []
    for kind, logit, share in zip(
        labels.kinds,
        logits.split([len(k.names) for k in labels.kinds], dim=1),
        target.split([len(k.names) for k in labels.kinds], dim=1),
        strict=True,
    ):
        if kind.exclusive:
            known = share.sum(dim=1) > 0  # False for NaN too
            share = share[known] / share[known].sum(dim=1, keepdim=True)
            losses.append(_mean_or_zero(-(share * logit[known].log_softmax(dim=1)).sum(dim=1)))
        else:
            known = ~share.isnan().any(dim=1)
            each = F.binary_cross_entropy_with_logits(logit[known], share[known], reduction="none")
            losses.append(_mean_or_zero(each.mean(dim=1)) * _BINARY_WEIGHT)
    return torch.stack(losses).mean()


def _mean_or_zero(values: Tensor) -> Tensor:
    return values.sum() / max(len(values), 1)


def section_target(
    passage_spans: list[tuple[int, int]],
    section_spans: list[tuple[int, int, float, float]],
    clip_times: Tensor,
) -> Tensor:
    """Where each passage of a caption should attend.

    Args:
        passage_spans: character span of each passage in the caption.
        section_spans: character span, start_s and end_s of each section's text in the caption.
        clip_times: ``[clips, 2]`` in seconds.

    Returns:
        ``[passages, clips]``: each row is shared out over clips by the seconds that they overlap
        the sections which the passage's words belong to; zeros where it belongs to none.
    """
    target = torch.zeros(len(passage_spans), len(clip_times))
    for row, (begin, end) in enumerate(passage_spans):
        for first, last, start_s, end_s in section_spans:
            shared = min(end, last) - max(begin, first)
            if shared <= 0:
                continue
            overlap = clip_times[:, 1].clamp(max=end_s) - clip_times[:, 0].clamp(min=start_s)
            overlap = overlap.clamp(min=0).float()
            target[row] += shared * overlap / max(end_s - start_s, 1e-6)
    total = target.sum(dim=1, keepdim=True)
    return torch.where(total > 0, target / total.clamp(min=1e-9), torch.zeros_like(target))


def gather_batch(batch: JointBatch) -> JointBatch:
    """Join the batches of all processes, with gradients; the same batch without processes.

    Every process then computes the whole joint loss. The backward pass of the gathering sums the
    gradients that all processes have for an embedding, and DistributedDataParallel averages over
    processes, so that a parameter's gradient is that of one process with the joint batch.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return batch
    clips = _largest(batch.songs.clip_mask.shape[1], batch.target.device)
    passages = _largest(batch.texts.passage_mask.shape[1], batch.target.device)
    songs, texts = batch.songs, batch.texts
    return JointBatch(
        SongState(
            _gather(_pad(songs.clip_state, 1, clips)),
            _gather(_pad(songs.clip_emb, 1, clips)),
            _gather(_pad(songs.clip_mask, 1, clips)),
        ),
        TextState(
            _gather(_pad(texts.passage_emb, 1, passages)),
            _gather(_pad(texts.passage_mask, 1, passages)),
            _gather(_pad(texts.passage_weight, 1, passages)),
        ),
        _gather(batch.song_key),
        _gather(batch.text_key),
        _gather(_pad(_pad(batch.target, 1, passages), 2, clips)),
    )


def joint_mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean over all processes of something summed and counted on each.

    Scaled so that the gradient averaged over processes is that of the joint mean; the value is
    this process's share.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        joint = count.clone()
        dist.all_reduce(joint)
        return total * dist.get_world_size() / joint.clamp(min=1)
    return total / count.clamp(min=1)


def _largest(size: int, device: torch.device) -> int:
    value = torch.tensor(size, device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return int(value)


def _pad(x: Tensor, axis: int, size: int) -> Tensor:
    missing = size - x.shape[axis]
    if missing == 0:
        return x
    shape = list(x.shape)
    shape[axis] = missing
    return torch.cat([x, x.new_zeros(shape)], dim=axis)


class _AllGather(torch.autograd.Function):
    """Concatenate a tensor of equal shape from all processes; sum gradients on the way back."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        grad = grad.clone(memory_format=torch.contiguous_format)  # others may still read it
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.rows
        return grad[start : start + ctx.rows]


def _gather(x: Tensor) -> Tensor:
    if x.dtype == torch.bool:
        return _AllGather.apply(x.to(torch.uint8)).bool()
    return _AllGather.apply(x)
