"""Which hidden layers of a published tower are heard: one of them, or a learned mix."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.encoders.base import AudioEncoder
from retrieval.errors import ConfigError

#: ``-1``, one number, several, or ``"all"``.
Layers = int | str | Sequence[int]


def choose_layers(layers: Layers, count: int) -> list[int]:
    """Numbers of hidden states, 0 (what enters the first layer) to ``count`` (the output).

    Args:
        layers: one number or several, negative ones counted from the end; or ``"all"``.
        count: layers of the tower.

    Raises:
        ConfigError: a number is out of range or named twice, or there is none.
    """
    if layers == "all":
        return list(range(count + 1))
    numbers: list[Any] = [layers] if isinstance(layers, int) else list(layers)
    if not numbers or not all(isinstance(n, int) and -count - 1 <= n <= count for n in numbers):
        raise ConfigError(
            f"layers: got {layers!r}, expected 'all' or numbers from {-count - 1} to {count}: the "
            f"tower has {count} layers; 0 is what enters the first, -1 is the tower's output"
        )
    chosen = [n % (count + 1) for n in numbers]
    if len(set(chosen)) < len(chosen):
        raise ConfigError(f"layers: got {layers!r}, expected each layer once")
    return chosen


class LayeredEncoder(AudioEncoder):
    """An encoder that hears one hidden layer of its ``tower``, or a mix of several.

    The mix is that of SUPERB (arXiv 2105.01051, section 3.2): one softmax weight a layer, equal at
    first. It is trained even where the tower is frozen: then ``prepare`` keeps the chosen layers
    side by side, which takes as many times the space in a cache, and ``finish`` mixes them.

    A subclass builds ``self.tower`` and calls :meth:`set_layers`.
    """

    tower: nn.Module

    def set_layers(self, layers: Layers, count: int, width: int) -> None:
        """Fix what is heard of a tower with ``count`` layers of ``width`` channels.

        Raises:
            ConfigError: the tower has no such layer.
        """
        self.layers = choose_layers(layers, count)
        self.d_audio = width
        self.mix: nn.Parameter | None = None
        if len(self.layers) > 1:
            self.mix = nn.Parameter(torch.zeros(len(self.layers)))

    @abstractmethod
    def states(self, features: Tensor) -> list[Tensor]:
        """The chosen hidden states, in order, each ``[n, frames, d_audio]``."""

    @property
    def d_encoded(self) -> int:
        """All chosen layers side by side."""
        return len(self.layers) * self.d_audio

    def encode(self, features: Tensor) -> Tensor:
        """Features ``[n, ...]`` -> chosen layers side by side, ``[n, frames, d_encoded]``."""
        return torch.cat(self.states(features), dim=-1)

    def finish(self, encoded: Tensor) -> Tensor:
        """Mix the layers: ``[..., layers * d_audio]`` -> ``[..., d_audio]``."""
        if self.mix is None:
            return encoded
        weight = torch.softmax(self.mix, dim=0).to(encoded.dtype)
        return torch.einsum("...ld,l->...d", encoded.unflatten(-1, (len(self.layers), -1)), weight)

    def train(self, mode: bool = True) -> LayeredEncoder:
        """Set training mode; batch statistics stay fixed, so that clips never mix."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self
