"""What experts of whole texts and whole songs share: a place in the embeddings, and regression.

An expert's vector of a song is the same in all of its clips, and that of a text in all of its
passages. So both fit into the embeddings, beside the coordinates that are there:
``S' = S + scale * gate(text) * <text, song>``. Attention over clips does not change, score, bound
and index stay as they are, and rows stay unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Of the median spread of what is read: below, a number counts as constant.
_CONSTANT = 1e-3


@dataclass(frozen=True)
class Fit:
    """What an expert is fitted to be; rows of the matrices are its coordinates.

    Attributes:
        songs, songs_bias: clips' numbers ``[dim, inputs]``, ``[dim]`` to vectors of songs.
        texts, texts_bias: what is read of texts ``[dim, d_text]``, ``[dim]`` to theirs.
        held_out: vectors of the songs by what was fitted without them, ``[songs, dim]``.
    """

    songs: np.ndarray
    songs_bias: np.ndarray
    texts: np.ndarray
    texts_bias: np.ndarray
    held_out: np.ndarray


class Beside(nn.Module):
    """The fitted matrices of an expert, and the two changes of embeddings.

    Args:
        dim: coordinates of its vectors.
        inputs: numbers of a clip that it reads.
        d_text: numbers of a text that it reads.
    """

    #: Coordinates beside the vectors: what a text with a low gate lacks of its length.
    FILLERS = 1

    def __init__(self, dim: int, inputs: int, d_text: int):
        super().__init__()
        self.register_buffer("songs", torch.zeros(dim, inputs))
        self.register_buffer("songs_bias", torch.zeros(dim))
        self.register_buffer("texts", torch.zeros(dim, d_text))
        self.register_buffer("texts_bias", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.songs: Tensor
        self.songs_bias: Tensor
        self.texts: Tensor
        self.texts_bias: Tensor
        self.scale: Tensor  #: weight of its product beside one of clip and passage

    @property
    def rest(self) -> Tensor:
        """Square of the length that is left to the other coordinates: the factor of scores."""
        return 1 / (1 + self.scale)

    def of_songs(self, inputs: Tensor, clip_mask: Tensor) -> Tensor:
        """Vectors of songs, unit rows ``[songs, dim]``.

        Args:
            inputs: ``[songs, clips, inputs]``, of :func:`clip_inputs`, zero on padding.
            clip_mask: True where a clip is real.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            count = clip_mask.sum(dim=1, keepdim=True).clamp(min=1)
            return F.normalize(
                F.linear(inputs.float().sum(dim=1) / count, self.songs, self.songs_bias), dim=-1
            )

    def read(self, texts: Tensor) -> Tensor:
        """Vectors of texts, unit rows ``[texts, dim]``, from what is read of them."""
        with torch.autocast(texts.device.type, enabled=False):
            return F.normalize(F.linear(texts.float(), self.texts, self.texts_bias), dim=-1)

    def widen_songs(self, clip_emb: Tensor, clip_mask: Tensor, vector: Tensor) -> Tensor:
        """Clips ``[songs, clips, d]``, unit rows, with their song's vector: unit rows again."""
        with torch.autocast(clip_emb.device.type, enabled=False):
            beside = F.pad(vector, (0, self.FILLERS))[:, None] * clip_mask[..., None]
            return self._beside(clip_emb, beside)

    def widen_texts(
        self, passage_emb: Tensor, passage_mask: Tensor, vector: Tensor, gate: Tensor
    ) -> Tensor:
        """The same for passages; what the gate takes from the vector fills a coordinate."""
        with torch.autocast(passage_emb.device.type, enabled=False):
            filler = (1 - gate.square()).clamp(min=0).sqrt()
            row = torch.cat([vector * gate[:, None], filler[:, None]], dim=-1)
            return self._beside(passage_emb, row[:, None] * passage_mask[..., None])

    def _beside(self, emb: Tensor, beside: Tensor) -> Tensor:
        rest = self.rest
        # In front: the last coordinates are a bank's.
        return torch.cat([beside * (1 - rest).sqrt(), emb.float() * rest.sqrt()], dim=-1)


def clip_inputs(vectors: Tensor, frames: Tensor, frame_mask: Tensor) -> Tensor:
    """What experts read of a clip: ``[n, d + 2 * d_audio]``.

    Args:
        vectors: ``[n, d]`` of the clips.
        frames: ``[n, frames, d_audio]`` of the audio encoder; their mean and spread are read.
        frame_mask: True where a frame is sound and not padding.
    """
    with torch.autocast(frames.device.type, enabled=False):
        exact, real = frames.float(), frame_mask[..., None].float()
        count = real.sum(dim=1)
        mean = (exact * real).sum(dim=1) / count
        spread = ((exact - mean[:, None]).square() * real).sum(dim=1) / count
        return torch.cat([vectors.float(), mean, spread.sqrt()], dim=-1)


def ridge(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, shrink: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted ridge regression ``y = matrix x + bias``.

    Args:
        x: ``[n, inputs]``; each number is brought to unit variance.
        y: ``[n, outputs]``.
        weights: ``[n]``, how much each row counts; their mean is 1.
        shrink: the larger, the smoother.

    Returns:
        ``matrix [outputs, inputs]``, ``bias [outputs]`` and the weighted mean of y.
    """
    total = weights.sum()
    middle, mean = weights @ x / total, weights @ y / total
    spread = np.sqrt(weights @ (x - middle) ** 2 / total)
    # What is the same in every row says nothing, and its rounding must not be blown up.
    spread[spread <= _CONSTANT * np.median(spread)] = np.inf
    z = (x - middle) / spread
    if len(z) <= z.shape[1]:
        kernel = z @ z.T / z.shape[1] + shrink * np.diag(1 / weights)
        found = np.linalg.solve(kernel, y - mean).T @ z
    else:  # the same solution, by the smaller system
        own = (z.T * weights) @ z / z.shape[1] + shrink * np.eye(z.shape[1])
        found = np.linalg.solve(own, (z.T * weights) @ (y - mean)).T
    matrix = found / (z.shape[1] * spread)
    return matrix, mean - matrix @ middle, mean


def held_out(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray, shrink: float, folds: int
) -> np.ndarray:
    """What :func:`ridge` says of each row, from the rows of other folds, less their mean of y."""
    found = np.empty_like(y)
    for fold in range(folds):
        without = np.arange(len(x)) % folds != fold
        matrix, bias, mean = ridge(x[without], y[without], weights[without], shrink)
        found[~without] = x[~without] @ matrix.T + bias - mean
    return found


def main_axes(rows: np.ndarray, dim: int) -> np.ndarray:
    """The directions in which rows are largest, ``[dim, columns]``; few rows have fewer, then 0."""
    found = np.linalg.svd(rows, full_matrices=False)[2][:dim]
    axes = np.zeros((dim, rows.shape[1]))
    axes[: len(found)] = found
    return axes
