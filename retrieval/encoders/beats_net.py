"""The network of BEATs (arXiv 2212.09058): spectrogram patches and a transformer over them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class BeatsSettings:
    """The architecture, under the names that BEATs' checkpoints use in ``cfg``.

    Attributes:
        input_patch_size: side of a square patch, in mel bands and in frames of 10 ms.
        embed_dim: width of a patch.
        conv_bias: whether the patch embedding has a bias.
        encoder_layers: layers of the transformer.
        encoder_embed_dim: width of the transformer.
        encoder_ffn_embed_dim: width inside its feed-forward parts.
        encoder_attention_heads: heads.
        activation_fn: ``gelu`` or ``relu``.
        layer_norm_first: norm before each part instead of behind it.
        deep_norm: residuals are scaled as in DeepNet (arXiv 2203.00555).
        conv_pos: patches that the positional convolution spans.
        conv_pos_groups: its groups.
        relative_position_embedding: whether attention has a bias by distance.
        num_buckets: of distances.
        max_distance: from where on distances are alike.
        gru_rel_pos: whether that bias is gated by the query.
        dropout: of the transformer, in training.
        attention_dropout: of attention weights.
        activation_dropout: inside the feed-forward parts.
        dropout_input: of the patches.
    """

    input_patch_size: int = 16
    embed_dim: int = 512
    conv_bias: bool = False
    encoder_layers: int = 12
    encoder_embed_dim: int = 768
    encoder_ffn_embed_dim: int = 3072
    encoder_attention_heads: int = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = False
    conv_pos: int = 128
    conv_pos_groups: int = 16
    relative_position_embedding: bool = False
    num_buckets: int = 320
    max_distance: int = 1280
    gru_rel_pos: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    dropout_input: float = 0.0


class PositionConv(nn.Module):
    """A grouped convolution over the row of patches, its weight normalised along the kernel."""

    def __init__(self, width: int, kernel: int, groups: int):
        super().__init__()
        self.groups = groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, kernel))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """``[n, tokens, width]`` -> the same shape."""
        kernel = self.weight_v.shape[-1]
        length = self.weight_v.norm(dim=(0, 1), keepdim=True)
        weight = self.weight_v * (self.weight_g / length)
        out = F.conv1d(
            x.transpose(1, 2), weight, self.bias, padding=kernel // 2, groups=self.groups
        )
        # An even kernel gives one token too many, at the end.
        return F.gelu(out[..., : x.shape[1]]).transpose(1, 2)


class GatedAttention(nn.Module):
    """Attention with a bias by distance that each query turns up or down (arXiv 2110.13900, 3.1).

    WavLM gates by the layer's input; BEATs by the projected query.
    """

    def __init__(self, settings: BeatsSettings):
        super().__init__()
        width, self.heads = settings.encoder_embed_dim, settings.encoder_attention_heads
        self.dropout = settings.attention_dropout
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.gated = settings.gru_rel_pos
        if self.gated:
            self.grep_linear = nn.Linear(width // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``[n, tokens, width]`` and a bias ``[1, heads, tokens, tokens]`` -> like the first."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )  # [n, heads, tokens, width of a head]
        if bias is not None:
            bias = (self.gate(q) * bias if self.gated else bias.expand(len(x), -1, -1, -1)).to(q)
        dropout = self.dropout if self.training else 0.0
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(heard.transpose(1, 2).flatten(2))

    def gate(self, q: Tensor) -> Tensor:
        """Factor of the bias for each query: ``[n, heads, tokens, 1]``."""
        two = self.grep_linear(q).unflatten(-1, (2, 4)).sum(dim=-1).sigmoid()
        update, reset = two[..., :1], two[..., 1:]
        return update * (reset * self.grep_a - 1) + 2


class BeatsLayer(nn.Module):
    """Attention and a feed-forward part, each with a residual and a norm."""

    def __init__(self, settings: BeatsSettings):
        super().__init__()
        width, inner = settings.encoder_embed_dim, settings.encoder_ffn_embed_dim
        self.self_attn = GatedAttention(settings)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.norm_first = settings.layer_norm_first
        self.activation = F.gelu if settings.activation_fn == "gelu" else F.relu
        self.dropout = nn.Dropout(settings.dropout)
        self.inner_dropout = nn.Dropout(settings.activation_dropout)
        deep = (2 * settings.encoder_layers) ** 0.25  # DeepNet, table 1: an encoder alone
        self.residual = deep if settings.deep_norm else 1.0

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """``[n, tokens, width]`` -> the same shape."""
        if self.norm_first:
            x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), bias))
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x * self.residual + self.dropout(self.self_attn(x, bias)))
        return self.final_layer_norm(x * self.residual + self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second part, without residual and norm."""
        return self.dropout(self.fc2(self.inner_dropout(self.activation(self.fc1(x)))))


class BeatsNet(nn.Module):
    """Log-mel -> hidden states of patches, those of one moment side by side."""

    def __init__(self, settings: BeatsSettings):
        super().__init__()
        self.settings = settings
        patch, embed, width = (
            settings.input_patch_size,
            settings.embed_dim,
            settings.encoder_embed_dim,
        )
        self.patch_embedding = nn.Conv2d(1, embed, patch, stride=patch, bias=settings.conv_bias)
        self.layer_norm = nn.LayerNorm(embed)
        self.post_extract_proj = nn.Linear(embed, width) if embed != width else nn.Identity()
        self.input_dropout = nn.Dropout(settings.dropout_input)
        self.pos_conv = PositionConv(width, settings.conv_pos, settings.conv_pos_groups)
        self.encoder_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(settings.dropout)
        self.layers = nn.ModuleList(BeatsLayer(settings) for _ in range(settings.encoder_layers))
        self.distance: nn.Embedding | None = None
        if settings.relative_position_embedding:
            self.distance = nn.Embedding(settings.num_buckets, settings.encoder_attention_heads)

    def forward(self, mel: Tensor) -> list[Tensor]:
        """Normalised log-mel ``[n, frames, bands]`` -> ``layers + 1`` states.

        The first enters the first layer, the last is the output. Each is ``[n, tokens, width]``,
        tokens ordered by time, then by frequency.
        """
        patches = self.patch_embedding(mel.unsqueeze(1)).flatten(2).transpose(1, 2)
        x = self.input_dropout(self.post_extract_proj(self.layer_norm(patches)))
        x = x + self.pos_conv(x)
        if not self.settings.layer_norm_first:
            x = self.encoder_norm(x)
        x = self.dropout(x)
        bias = self.bias(x.shape[1]) if self.distance is not None else None
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], bias))
        if self.settings.layer_norm_first:
            states[-1] = self.encoder_norm(states[-1])
        return states

    def bias(self, tokens: int) -> Tensor:
        """Bias of attention by distance, alike in all layers: ``[1, heads, tokens, tokens]``."""
        assert self.distance is not None
        place = torch.arange(tokens, device=self.distance.weight.device)
        buckets = distance_buckets(
            place[None, :] - place[:, None], self.settings.num_buckets, self.settings.max_distance
        )
        return self.distance(buckets).permute(2, 0, 1).unsqueeze(0)


def distance_buckets(distance: Tensor, buckets: int, farthest: int) -> Tensor:
    """T5's buckets (arXiv 1910.10683, 2.1): half of them a side, half of those for single steps.

    The other half widens logarithmically up to ``farthest``.
    """
    side = buckets // 2
    exact = side // 2
    steps = distance.abs()
    far = torch.log(steps.clamp(min=1).float() / exact) / math.log(farthest / exact)
    far = (exact + (far * (side - exact)).long()).clamp(max=side - 1)
    return torch.where(steps < exact, steps, far) + side * (distance > 0)
