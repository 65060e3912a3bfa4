"""The names and shapes of LAION-CLAP's original checkpoints, as its package 1.1.7 makes them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from retrieval.encoders.clap_features import LogMelSettings, mel_filters

Shapes = dict[str, tuple[int, ...]]
TINY, BASE = (96, (2, 2, 6, 2)), (128, (2, 2, 12, 2))
HEADS = (4, 8, 16, 32)


def affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def batch_norm(name: str, width: int) -> Shapes:
    parts = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean",
                                                    "running_var")}  # fmt: skip
    return {**parts, f"{name}.num_batches_tracked": ()}


def audio_shapes(
    width: int, depths: tuple[int, ...], heads: tuple[int, ...] = HEADS, fusion: bool = False
) -> Shapes:
    shapes: Shapes = {
        "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": (513, 1, 1024),
        "logmel_extractor.melW": (513, 64),
        **batch_norm("bn0", 64),
        **affine("patch_embed.proj", width, 1, 4, 4),
        **affine("patch_embed.norm", width),
    }
    if fusion:
        shapes |= affine("patch_embed.mel_conv2d", width, 1, 4, 12)
        model, inner = "patch_embed.fusion_model", width // 4
        for branch, first in (("local_att", 0), ("global_att", 1)):
            shapes |= affine(f"{model}.{branch}.{first}", inner, width, 1, 1)
            shapes |= batch_norm(f"{model}.{branch}.{first + 1}", inner)
            shapes |= affine(f"{model}.{branch}.{first + 3}", width, inner, 1, 1)
            shapes |= batch_norm(f"{model}.{branch}.{first + 4}", width)
    for i, depth in enumerate(depths):
        wide = width * 2**i
        for j in range(depth):
            shapes |= block_shapes(f"layers.{i}.blocks.{j}", wide, heads[i])
            if j % 2 and i < 3:  # the last stage has one window and shifts nothing
                shapes[f"layers.{i}.blocks.{j}.attn_mask"] = (64 >> (2 * i), 64, 64)
        if i < 3:
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * wide, 4 * wide)
            shapes |= affine(f"layers.{i}.downsample.norm", 4 * wide)
    shapes |= {**affine("norm", 8 * width), **affine("tscam_conv", 527, 8 * width, 2, 3)}
    shapes |= affine("head", 527, 527)
    return {f"audio_branch.{name}": shape for name, shape in shapes.items()}


def block_shapes(name: str, width: int, heads: int) -> Shapes:
    return {
        **affine(f"{name}.norm1", width),
        f"{name}.attn.relative_position_bias_table": (225, heads),
        f"{name}.attn.relative_position_index": (64, 64),
        **affine(f"{name}.attn.qkv", 3 * width, width),
        **affine(f"{name}.attn.proj", width, width),
        **affine(f"{name}.norm2", width),
        **affine(f"{name}.mlp.fc1", 4 * width, width),
        **affine(f"{name}.mlp.fc2", width, 4 * width),
    }


def text_shapes(
    vocabulary: int = 50_265, width: int = 768, layers: int = 12, positions: int = 514
) -> Shapes:
    shapes: Shapes = {
        "embeddings.position_ids": (1, positions),
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (1, width),
        **affine("embeddings.LayerNorm", width),
        **affine("pooler.dense", width, width),
    }
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= affine(f"{layer}.attention.{part}", width, width)
        shapes |= affine(f"{layer}.attention.output.LayerNorm", width)
        shapes |= affine(f"{layer}.intermediate.dense", 4 * width, width)
        shapes |= affine(f"{layer}.output.dense", width, 4 * width)
        shapes |= affine(f"{layer}.output.LayerNorm", width)
    return {f"text_branch.{name}": shape for name, shape in shapes.items()}


def head_shapes(audio_width: int, text_width: int = 768, joint: int = 512) -> Shapes:
    shapes: Shapes = {"logit_scale_a": (), "logit_scale_t": ()}
    for tower, width in (("audio", 8 * audio_width), ("text", text_width)):
        shapes |= affine(f"{tower}_projection.0", joint, width)
        shapes |= affine(f"{tower}_projection.2", joint, joint)
        for i in (0, 3, 6):
            shapes |= affine(f"{tower}_transform.sequential.{i}", joint, joint)
    return shapes


def all_shapes(size: tuple[int, tuple[int, ...]], fusion: bool = False) -> Shapes:
    """Every name of a published checkpoint."""
    return {**audio_shapes(*size, fusion=fusion), **text_shapes(), **head_shapes(size[0])}


def tiny_shapes(fusion: bool = False, vocabulary: int = 50) -> Shapes:
    """The same names at a size that runs at once."""
    audio = audio_shapes(16, (1, 2, 1, 1), (1, 2, 2, 4), fusion)
    return {**audio, **text_shapes(vocabulary, 32, 2, 66), **head_shapes(16, 32, 24)}


def fill(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random weights of those shapes; tables that are counted hold what they must."""
    return dict(_filled(shapes, torch.Generator().manual_seed(seed)))


def _filled(shapes: Shapes, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith(("num_batches_tracked", "position_ids")):
            yield name, torch.zeros(shape, dtype=torch.int64)
        elif name.endswith("relative_position_index"):
            yield name, relative_index()
        elif name.endswith("melW"):
            yield name, mel_filters(LogMelSettings())
        elif name.endswith("running_var"):
            yield name, 200 + 100 * noise.abs()
        elif name.endswith("running_mean"):
            yield name, 10 * noise - 20
        elif len(shape) == 1 and name.endswith("weight"):
            yield name, 1 + 0.2 * noise
        else:
            scale = noise[0].numel() ** -0.5 if len(shape) > 1 else 0.1
            yield name, noise * scale


def relative_index(window: int = 8) -> Tensor:
    """Row of the bias table for each pair of places in a window, as Swin counts them."""
    rows = [(h, w) for h in range(window) for w in range(window)]
    side = 2 * window - 1
    return torch.tensor([
        [(a[0] - b[0] + window - 1) * side + a[1] - b[1] + window - 1 for b in rows] for a in rows
    ])  # fmt: skip
