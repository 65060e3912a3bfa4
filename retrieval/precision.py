"""Which devices compute faster in bfloat16, and modules for them."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

M = TypeVar("M", bound=nn.Module)

#: Modules whose weights autocast rounds.
CAST = (nn.Linear, nn.Conv1d, nn.Conv2d)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16 matrices."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def lowered(module: M) -> M:
    """A copy that computes under autocast what the module does, with nothing left to cast.

    Autocast rounds the weights of linear maps and convolutions to bfloat16 in every call; here
    they are rounded once. Everything else stays in float32. Weights that are computed from others
    (parametrised ones) stay too.
    """
    found = copy.deepcopy(module)
    for part in found.modules():
        if isinstance(part, CAST) and not is_parametrized(part):
            part.to(torch.bfloat16)
    return found
