"""A joint space that is only as wide as texts and songs differ for one another.

A score reads nothing of clips but their products with passages. Of the many coordinates that a
network is trained in, most say next to nothing in those products, and a library would store them,
and search read them, for nothing. So a trained network gets two matrices, one for clips and one for
passages, whose products are the old ones in the few directions that matter times one factor:
``<S x, T q> = scale <q, x> + what is left out`` (:func:`fit_narrow`).

Rows stay unit vectors: what their length lacks stands in a coordinate that the other side has 0 in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.errors import ConfigError

#: Of clips and of passages, float64 ``[directions, wide]``, and narrow products over wide ones.
Matrices = tuple[np.ndarray, np.ndarray, float]
#: Coordinates behind the directions: what fills the length of clips, and that of passages.
FILLERS = 2
#: Of each direction in which texts do not lie, beside the mean of all: other people's may.
_UNASKED = 1e-2
#: Share of rows whose length is within 1; the few longer ones are shortened.
_WITHIN = 0.999


@dataclass(frozen=True)
class NarrowConfig:
    """How narrow.

    Attributes:
        dim: width of the joint space, all coordinates.
        directions: of them; 0 while a model is trained, which has all of its width.
    """

    dim: int = 64
    directions: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.directions <= self.dim - FILLERS or self.dim <= FILLERS:
            raise ConfigError(
                f"narrow: dim {self.dim}, directions {self.directions}, expected dim above "
                f"{FILLERS} and at most dim - {FILLERS} directions"
            )


class Narrow(nn.Module):
    """The two matrices; what :func:`fit_narrow` finds is copied into its buffers.

    Args:
        config: with ``directions`` above 0.
        wide: width of the network.
    """

    def __init__(self, config: NarrowConfig, wide: int):
        super().__init__()
        self.config = config
        self.register_buffer("songs", torch.zeros(config.directions, wide))
        self.register_buffer("texts", torch.zeros(config.directions, wide))
        self.register_buffer("scale", torch.ones(()))
        self.songs: Tensor
        self.texts: Tensor
        self.scale: Tensor  #: narrow products over wide ones

    def narrow_songs(self, clip_emb: Tensor) -> Tensor:
        """Unit rows (or rows of zeros) ``[..., wide]`` -> ``[..., dim]``, likewise."""
        return self._narrow(clip_emb, self.songs, 0)

    def narrow_texts(self, passage_emb: Tensor) -> Tensor:
        """The same for passages."""
        return self._narrow(passage_emb, self.texts, 1)

    def swap(self, rows: Tensor) -> Tensor:
        """Clips that ask as passages do: their length is filled where other clips have nothing."""
        at = self.config.directions
        swapped = rows.clone()
        swapped[..., at : at + FILLERS] = rows[..., at : at + FILLERS].flip(-1)
        return swapped

    def _narrow(self, emb: Tensor, matrix: Tensor, filler: int) -> Tensor:
        # In float32 and apart from autocast: scores are differences of near-equal cosines.
        with torch.autocast(emb.device.type, enabled=False):
            kept = emb.float() @ matrix.T
            size = kept.norm(dim=-1, keepdim=True)
            kept = kept / size.clamp(min=1)
            lacks = (1 - size.clamp(max=1).square()).sqrt() * (emb != 0).any(dim=-1, keepdim=True)
            out = kept.new_zeros(*kept.shape[:-1], self.config.dim)
            at = self.config.directions
            out[..., :at] = kept
            out[..., at + filler] = lacks[..., 0]
            return out


def fit_narrow(
    clips: np.ndarray, passages: np.ndarray, weights: np.ndarray, directions: int
) -> Matrices:
    """The directions that matter most to products of passages and clips.

    With the second moment ``M M`` of passages, the mean of ``<q, left>^2`` is that of
    ``|M left|^2``, which is least where the directions are the principal ones of ``M x``. What is
    free besides, how much of a direction's size clips have and how much passages, is halved between
    them, which makes the product of their lengths least.

    Args:
        clips: ``[n, wide]``, unit rows.
        passages: ``[m, wide]``, unit rows.
        weights: ``[m]``, how much each counts in its text: a short text is worth as much as a long
            one.
        directions: how many.

    Returns:
        The matrices of clips and passages, float64 ``[directions, wide]``, and the factor
        between products.
    """
    x, q = clips.astype(np.float64), passages.astype(np.float64)
    size, own = np.linalg.eigh((q.T * weights) @ q / weights.sum())
    root = np.sqrt(np.maximum(size, 0) + _UNASKED * size.mean())
    metric, inverse = (own * root) @ own.T, (own / root) @ own.T
    spread, axes = np.linalg.eigh(metric @ (x.T @ x / len(x)) @ metric)
    spread, axes = spread[::-1][:directions], axes[:, ::-1][:, :directions]
    half = np.maximum(spread, 1e-12) ** 0.25
    return fill_lengths((axes / half).T @ metric, (axes * half).T @ inverse, 1.0, x, q)


def fill_lengths(
    songs: np.ndarray, texts: np.ndarray, scale: float, clips: np.ndarray, passages: np.ndarray
) -> Matrices:
    """The same matrices, as large as nearly all rows allow, which are at most 1 long."""
    longest, widest = _length(clips @ songs.T), _length(passages @ texts.T)
    return songs / longest, texts / widest, scale / (longest * widest)


def _length(rows: np.ndarray) -> float:
    return float(np.quantile(np.linalg.norm(rows, axis=1), _WITHIN))
