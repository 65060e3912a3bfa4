"""The forward pass of transformers' HTS-AT in fewer passes over memory, for evaluation.

The same modules with the same weights compute the same numbers (HTS-AT: arXiv 2202.00874; windows
that shift: Swin, arXiv 2103.14030). Two things are done otherwise. Tokens are not put back in order
after each block, only into the order of the next one. And attention never holds its scores: where
windows shift, those that meet an edge have a mask of their own, the others none.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import starmap
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: What transformers adds to the scores of tokens that only the shift made neighbours.
_APART = -100.0


def divides(encoder: Any) -> bool:
    """Whether the images of a ``ClapAudioEncoder`` divide into whole windows in every stage."""
    return all(
        side % block.window_size == 0
        for stage, sides in zip(encoder.layers, encoder.input_resolutions, strict=True)
        for block in stage.blocks
        for side in sides
    )


def hidden_states(encoder: Any, features: Tensor) -> Tensor:
    """What a ``ClapAudioEncoder`` in evaluation mode calls its last hidden state.

    Args:
        encoder: its images divide into windows (:func:`divides`).
        features: log-mel ``[n, 1, frames, mels]``; with feature fusion the first channel is read.

    Returns:
        ``[n, d_audio, frequencies, time]``.
    """
    scaled = encoder.batch_norm(features.transpose(1, 3)).transpose(1, 3)
    image = encoder.reshape_mel2img(scaled)
    x = encoder.patch_embed(image, ())  # no clip is longer
    for stage, sides in zip(encoder.layers, encoder.input_resolutions, strict=True):
        x = _stage(stage, x, sides)
    return _unfold(encoder, encoder.norm(x), image.shape[2])


def _stage(stage: Any, x: Tensor, sides: tuple[int, int]) -> Tensor:
    """Tokens ``[n, height * width, channels]`` -> those of the next stage."""
    n, tokens, _ = x.shape
    order = natural = torch.arange(n * tokens, device=x.device)
    x = x.flatten(0, 1)
    for block in stage.blocks:
        window = block.window_size
        shift = block.shift_size if window < min(sides) else 0
        windows, counts = _windows(*sides, window, shift)
        starts = tokens * torch.arange(n, device=x.device)
        wanted = (windows.to(x.device)[:, None] + starts[:, None]).flatten()
        x = _block(block, _reorder(x, order, wanted), window, shift, [n * c for c in counts])
        order = wanted
    x = _reorder(x, order, natural).unflatten(0, (n, tokens))
    return x if stage.downsample is None else stage.downsample(x, sides)


def _reorder(x: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """Rows of ``x``, which are the tokens ``old``, as the tokens ``new``."""
    place = torch.empty_like(old)
    place[old] = torch.arange(len(old), device=old.device)
    return x[place[new]]


@lru_cache(maxsize=64)
def _windows(height: int, width: int, window: int, shift: int) -> tuple[Tensor, list[int]]:
    """Tokens of each window, int64 ``[windows, window ** 2]``, and how many have each mask.

    Shifted windows come in the order of :func:`_masks`: those inside, at the right, at the bottom,
    in the corner.
    """
    grid = torch.arange(height * width).reshape(height, width).roll((-shift, -shift), (0, 1))
    tiles = grid.unfold(0, window, window).unfold(1, window, window).flatten(2)
    if not shift:
        return tiles.flatten(0, 1), [tiles[..., 0].numel()]
    kinds = (tiles[:-1, :-1], tiles[:-1, -1:], tiles[-1:, :-1], tiles[-1:, -1:])
    parts = [kind.flatten(0, 1) for kind in kinds]
    return torch.cat(parts), [len(part) for part in parts]


@lru_cache(maxsize=16)
def _masks(window: int, shift: int) -> list[Tensor]:
    """What is added to scores in each kind of window, float32 ``[window ** 2, window ** 2]``."""
    if not shift:
        return [torch.zeros(1, 1)]
    inside = torch.zeros(window, dtype=torch.long)
    edge = (torch.arange(window) >= window - shift).long()

    def mask(rows: Tensor, columns: Tensor) -> Tensor:
        side = (2 * rows[:, None] + columns).flatten()
        return torch.where(side[:, None] == side, 0.0, _APART)

    return list(starmap(mask, ((inside, inside), (inside, edge), (edge, inside), (edge, edge))))


def _block(block: Any, x: Tensor, window: int, shift: int, counts: list[int]) -> Tensor:
    """One transformer block on tokens in the order of its windows, ``[tokens, channels]``."""
    attention = block.attention.self
    normed = block.layernorm_before(x)
    projections = (attention.query, attention.key, attention.value)
    heads = (window**2, attention.num_attention_heads, attention.attention_head_size)
    parts = [
        each(normed).unflatten(-1, heads[1:]).unflatten(0, (-1, heads[0])).transpose(1, 2)
        .split(counts) for each in projections
    ]  # fmt: skip
    bias = _position_bias(attention)
    heard = [
        F.scaled_dot_product_attention(
            query, key, value, attn_mask=(bias + mask.to(bias.device)).to(query.dtype)[None]
        ).transpose(1, 2).flatten(2).flatten(0, 1)
        for query, key, value, mask in zip(*parts, _masks(window, shift), strict=True)
    ]  # fmt: skip
    x = x + block.attention.output(torch.cat(heard), normed)
    return x + block.output(block.intermediate(block.layernorm_after(x)))


def _position_bias(attention: Any) -> Tensor:
    """What is added to scores for where two tokens of a window lie, ``[heads, tokens, tokens]``."""
    return attention.relative_position_bias_table[attention.relative_position_index].permute(
        2, 0, 1
    )


def _unfold(encoder: Any, x: Tensor, height: int) -> Tensor:
    """Tokens of the last stage ``[n, tokens, channels]``, as HTS-AT folded time into its image."""
    halved = height // 2 ** (encoder.num_layers - 1)
    rows, columns = (halved // stride for stride in encoder.patch_stride)
    bins = rows // encoder.freq_ratio
    x = x.transpose(1, 2).unflatten(2, (encoder.freq_ratio, bins, columns))
    return x.transpose(2, 3).flatten(3)
