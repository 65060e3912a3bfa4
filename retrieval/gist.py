"""A second expert: what a text is about as a whole, heard in what a song is as a whole.

People's descriptions of whole songs ("quirky and light, good for a cartoon") name nothing that
stands at a place, and there are few of them to learn from; a network that has read many more
captions of another kind reads them badly. Ridge regression from the mean of a song's frames to the
text tower's own vectors knows less and forgets less. So the score has two experts, and the text
says how much the second counts (as in the mixture of embedding experts of Miech et al. 2018,
arXiv 1804.02516): ``S = attention + scale * gate(text) * <gist(text), gist(song)>``.
How both fit into the embeddings: :mod:`retrieval.beside`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.beside import Beside, Fit, held_out, main_axes, ridge
from retrieval.errors import ConfigError

#: Parts of the songs, each predicted by what the others teach, that tell how far to trust it.
_FOLDS = 5
#: Shrinkage of the gate's regression, in the mean variance of what it reads; its Newton steps; and
#: what makes a gate of 1 where all texts are of one kind.
_GATE_SHRINK, _NEWTON_STEPS, _CERTAIN = 0.1, 20, 30.0


@dataclass(frozen=True)
class GistConfig:
    """The second expert.

    Attributes:
        dim: coordinates of a gist.
        shrink: of the ridge regression, for inputs of unit variance; the larger, the smoother.
        strength: spread of its scores, for songs it was not fitted to, in that of the attention's.
        inputs: numbers of a clip that it reads; 0 while a model is trained, which has none yet.
    """

    dim: int = 32
    shrink: float = 3.0
    strength: float = 1.0
    inputs: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or self.inputs < 0 or self.shrink <= 0 or self.strength <= 0:
            raise ConfigError(
                f"gist: dim {self.dim}, inputs {self.inputs}, shrink {self.shrink}, strength "
                f"{self.strength}, expected at least 1, at least 0, and above 0 twice"
            )


class Gist(Beside):
    """The fitted matrices, and the gate.

    Args:
        config: with ``inputs`` above 0.
        d_text: width of the text tower's vectors.
    """

    def __init__(self, config: GistConfig, d_text: int):
        super().__init__(config.dim, config.inputs, d_text)
        self.config = config
        self.register_buffer("gate", torch.zeros(d_text))
        self.register_buffer("gate_bias", torch.zeros(()))
        self.gate: Tensor
        self.gate_bias: Tensor

    def of_texts(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Gists of texts ``[texts, dim]``, unit rows, and how much each counts, 0 to 1.

        Args:
            vectors: ``[texts, d_text]``, unit rows of :func:`text_inputs`.
        """
        with torch.autocast(vectors.device.type, enabled=False):
            return self.read(vectors), torch.sigmoid(vectors.float() @ self.gate + self.gate_bias)


def text_inputs(vectors: Tensor, passage_mask: Tensor) -> Tensor:
    """The mean of a text's passages in the text tower's space, unit rows ``[texts, d_text]``.

    Args:
        vectors: ``[texts, passages, d_text]``, unit rows, zero on padding.
        passage_mask: True where a passage is real.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        exact = vectors.float() * passage_mask[..., None]
        return F.normalize(exact.sum(dim=1), dim=-1)


def fit_gist(
    inputs: np.ndarray, vectors: np.ndarray, weights: np.ndarray, config: GistConfig
) -> Fit:
    """Weighted ridge regression of texts on songs, in the directions that songs tell most of.

    Args:
        inputs: ``[songs, n]``, means over clips of :func:`retrieval.beside.clip_inputs`.
        vectors: ``[songs, d_text]``, unit rows, of each song's text.
        weights: ``[songs]``, how much each counts.
        config: width and shrinkage.
    """
    x, y = inputs.astype(np.float64), vectors.astype(np.float64)
    weights = weights / weights.mean()
    matrix, bias, targets_mean = ridge(x, y, weights, config.shrink)
    told = (x @ matrix.T + bias) - targets_mean
    axes = main_axes(np.sqrt(weights)[:, None] * told, config.dim)
    left_out = held_out(x, y, weights, config.shrink, _FOLDS) @ axes.T
    left_out /= np.maximum(np.linalg.norm(left_out, axis=1, keepdims=True), 1e-12)
    return Fit(axes @ matrix, axes @ (bias - targets_mean), axes, -axes @ targets_mean, left_out)


def fit_gate(ours: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, float]:
    """How much the gist of a text counts: logistic regression, both kinds weighing the same.

    Args:
        ours: ``[texts, d_text]``, unit rows, texts of the kind that :func:`fit_gist` read.
        others: likewise, texts of which the attention knows more; may be none.

    Returns:
        What to multiply a text's vector with, and what to add, before the logistic function.
    """
    if not len(others):
        return np.zeros(ours.shape[1]), _CERTAIN
    rows = np.concatenate([ours, others]).astype(np.float64)
    wanted = np.repeat([1.0, 0.0], [len(ours), len(others)])
    share = np.repeat([0.5 / len(ours), 0.5 / len(others)], [len(ours), len(others)])
    middle = share @ rows
    x = np.concatenate([rows - middle, np.ones((len(rows), 1))], axis=1)
    shrink = np.full(x.shape[1], _GATE_SHRINK * (share @ x[:, :-1] ** 2).mean())
    shrink[-1] = 0
    found = np.zeros(x.shape[1])
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-(x @ found)))
        slope = x.T @ (share * (chance - wanted)) + shrink * found
        curve = (x.T * (share * chance * (1 - chance))) @ x + np.diag(shrink)
        found -= np.linalg.solve(curve, slope)
    return found[:-1], float(found[-1] - found[:-1] @ middle)
