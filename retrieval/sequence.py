"""Transformers over short sequences: the clips of a song, the passages of a text."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BUCKETS = 32
_MAX_DISTANCE = 64
_PLACE_FREQUENCIES = 8


def relative_buckets(position: Tensor) -> Tensor:
    """Bucket of every signed distance: int64 ``[n, length]`` -> ``[n, length, length]``, 0..31.

    Half of the buckets for each direction; exact up to 7 steps, then logarithmic up to 64
    (Raffel et al., arXiv 1910.10683, section 2.1).
    """
    distance = position[:, None, :] - position[:, :, None]
    half = _BUCKETS // 2
    exact = half // 2
    size = distance.abs()
    far = torch.log(size.clamp(min=1) / exact) / math.log(_MAX_DISTANCE / exact)
    far = (exact + far * (half - exact)).long().clamp(max=half - 1)
    return torch.where(size < exact, size, far) + half * (distance > 0)


class Block(nn.Module):
    """One pre-norm transformer layer whose two branches start small (LayerScale)."""

    def __init__(self, dim: int, heads: int, dropout: float, scale_init: float = 0.1):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.wide = nn.Linear(dim, 2 * dim)
        self.narrow = nn.Linear(2 * dim, dim)
        self.scale1 = nn.Parameter(torch.full((dim,), scale_init))
        self.scale2 = nn.Parameter(torch.full((dim,), scale_init))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """``[n, length, dim]``, attention bias ``[n, heads, length, length]``."""
        n, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = self.out(mixed.transpose(1, 2).reshape(n, length, dim))
        x = x + self.dropout(self.scale1 * mixed)
        return x + self.dropout(self.scale2 * self.narrow(F.gelu(self.wide(self.norm2(x)))))


class SequenceEncoder(nn.Module):
    """A transformer with relative positions and, added at the bottom, each element's place.

    The place (start and end as fractions of the whole, 0..1) is what tells an element that it is
    the opening or the ending; the relative positions tell it what came before.
    """

    def __init__(self, dim: int, layers: int, heads: int, dropout: float):
        super().__init__()
        self.bias = nn.Embedding(_BUCKETS, heads)
        nn.init.zeros_(self.bias.weight)
        self.place = nn.Linear(4 * _PLACE_FREQUENCIES, dim)
        nn.init.normal_(self.place.weight, std=0.02)
        nn.init.zeros_(self.place.bias)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor, position: Tensor, place: Tensor) -> Tensor:
        """Contextualise a batch of sequences.

        Args:
            x: ``[n, length, dim]``; what padding holds is never seen.
            mask: bool ``[n, length]``, True where real; at least one a row.
            position: int64 ``[n, length]``, number of each element in the whole sequence; training
                leaves elements out.
            place: ``[n, length, 2]``, start and end of each element, 0..1.

        Returns:
            ``[n, length, dim]``, zeros on padding.
        """
        x = (x + self.place(_place_features(place))).masked_fill(~mask[:, :, None], 0.0)
        bias = self.bias(relative_buckets(position)).permute(0, 3, 1, 2).to(x.dtype)
        bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(x.dtype).min)
        for block in self.blocks:
            x = block(x, bias)
        return x.masked_fill(~mask[:, :, None], 0.0)


def _place_features(place: Tensor) -> Tensor:
    """Sines and cosines of half to 64 turns a song: ``[..., 2]`` -> ``[..., 32]``."""
    rates = math.pi * 2.0 ** torch.arange(_PLACE_FREQUENCIES, device=place.device)
    angle = place[..., None] * rates
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class KernelAttention(nn.Module):
    """Frames -> kernels -> one clip vector, by learned queries that see no text.

    A kernel is a group of neighbouring frames. Frames within each, and then the kernels, are
    weighed by learned scores, one a head (attention pooling with fixed queries). The scores
    start at zero, so that an untrained layer is mean pooling.
    """

    def __init__(self, d_audio: int, dim: int, kernel_frames: int = 8, heads: int = 4):
        super().__init__()
        self.kernel_frames, self.heads = kernel_frames, heads
        self.frame_score = nn.Linear(d_audio, heads)
        self.kernel_score = nn.Linear(d_audio, heads)
        self.project = nn.Linear(d_audio, dim)
        self.norm = nn.LayerNorm(dim)
        for layer in (self.frame_score, self.kernel_score):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Pool clips.

        Args:
            frames: ``[n, frames, d_audio]``.
            frame_mask: bool ``[n, frames]``; at least one True a row.

        Returns:
            ``[n, dim]``.
        """
        n, count, width = frames.shape
        extra = -count % self.kernel_frames
        frames = F.pad(frames, (0, 0, 0, extra))
        frame_mask = F.pad(frame_mask, (0, extra))
        groups = frames.reshape(-1, self.kernel_frames, width)
        group_mask = frame_mask.reshape(-1, self.kernel_frames)
        kernels = pool(groups, group_mask, self.frame_score(groups), self.heads)
        kernels = kernels.reshape(n, -1, width)
        kernel_mask = group_mask.any(dim=1).reshape(n, -1)
        clip = pool(kernels, kernel_mask, self.kernel_score(kernels), self.heads)
        return self.norm(self.project(clip))


def pool(x: Tensor, mask: Tensor, score: Tensor, heads: int) -> Tensor:
    """Weighted means ``[n, length, d]``, mask ``[n, length]``, score ``[n, length, heads]``.

    A row without any real element gives its plain mean, which nothing reads.
    """
    n, length, width = x.shape
    score = score.masked_fill(~mask[:, :, None], torch.finfo(score.dtype).min)
    weight = torch.softmax(score, dim=1)
    by_head = x.reshape(n, length, heads, width // heads)
    return torch.einsum("nlh,nlhd->nhd", weight, by_head).reshape(n, width)
