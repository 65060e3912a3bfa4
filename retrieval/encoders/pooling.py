"""From the vectors of a passage's tokens to one vector."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def _mean(hidden: Tensor, weight: Tensor) -> Tensor:
    weight = weight.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _weighted(hidden: Tensor, mask: Tensor) -> Tensor:
    """Token k counts k times (SGPT, arXiv 2202.08904, section 3.1)."""
    return _mean(hidden, mask.cumsum(dim=1) * mask)


def _cls(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[_rows(hidden), mask.int().argmax(dim=1)]


def _last(hidden: Tensor, mask: Tensor) -> Tensor:
    return hidden[_rows(hidden), mask.shape[1] - 1 - mask.int().flip(1).argmax(dim=1)]


def _max(hidden: Tensor, mask: Tensor) -> Tensor:
    lowest = torch.finfo(hidden.dtype).min
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, lowest).amax(dim=1)


def _rows(hidden: Tensor) -> Tensor:
    return torch.arange(len(hidden), device=hidden.device)


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": _mean,
    "cls": _cls,
    "last": _last,
    "max": _max,
    "weighted": _weighted,
}
#: What :func:`pool_tokens` can do.
TOKEN_POOLINGS = tuple(_KINDS)


def pool_tokens(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """One vector a passage; what padding holds is never seen, on whichever side it stands.

    Args:
        hidden: ``[n, tokens, d]``.
        mask: integer or bool ``[n, tokens]``, above 0 where a token is real.
        pooling: one of :data:`TOKEN_POOLINGS`: the ``mean``, the first token (``cls``), the
            ``last``, the ``max`` of each entry, or the mean ``weighted`` by position.

    Returns:
        ``[n, d]``. A passage without any real token gives zeros for the means, and otherwise
        what its padding holds.
    """
    return _KINDS[pooling](hidden, mask)
