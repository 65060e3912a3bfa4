"""What LAION-CLAP's original names and shapes mean in transformers' ``ClapModel``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.clap_features import LogMelSettings, mel_filters
from retrieval.errors import EncoderError

AUDIO, TEXT = "audio_model.audio_encoder.", "text_model."
#: Parts that the embeddings do not depend on: the spectrogram (ours has none of its numbers), the
#: classifier of HTS-AT's own training, tables that are counted, and heads of the loss.
_UNUSED = re.compile(
    r"audio_branch\.(spectrogram_extractor|logmel_extractor|tscam_conv|head)\."
    r"|audio_branch\..*\.attn_mask$"
    r"|text_branch\.embeddings\.(position_ids|token_type_ids)$"
    r"|(audio|text)_transform\."
)
#: In order; each is tried on the names that begin with ``audio_branch.``.
_AUDIO_RULES = (
    (r"^audio_branch\.bn0\.", AUDIO + "batch_norm."),
    (r"^audio_branch\.", AUDIO),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.attn\.", ".attention.self."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_OTHER_RULES = (
    (r"^text_branch\.", TEXT),
    (r"^(audio|text)_projection\.0\.", r"\1_projection.linear1."),
    (r"^(audio|text)_projection\.2\.", r"\1_projection.linear2."),
)
#: All published models: 256 x 256 pictures of 64 bands and 1,024 frames, patches of 4 x 4.
_SPEC_SIZE, _PATCH, _BANDS = 256, 4, 64
#: RoBERTa's heads, whose number no shape tells.
_TEXT_HEAD = 64
#: Sizes of LAION-CLAP's HTS-AT by width and blocks.
NAMES = {
    (96, (2, 2, 6, 2)): "HTSAT-tiny",
    (128, (2, 2, 12, 2)): "HTSAT-base",
    (256, (2, 2, 12, 2)): "HTSAT-large",
}


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under transformers' names, float32 copies; parts without a use are left out."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if _UNUSED.match(name):
            continue
        for pattern, new in _AUDIO_RULES if name.startswith("audio_branch.") else _OTHER_RULES:
            name = re.sub(pattern, new, name)
        number = torch.float32 if tensor.is_floating_point() else tensor.dtype
        if ".qkv." in name and len(tensor) % 3 == 0:  # [3 d, ...]: query, key, value
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                renamed[name.replace(".qkv.", f".{part}.")] = piece.to(number, copy=True)
        else:
            renamed[name] = tensor.to(number, copy=True)
    return renamed


def audio_settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``ClapAudioConfig``, from shapes.

    Raises:
        EncoderError: the shapes are not those of an HTS-AT.
    """
    patch = _shape(weights, "audio_branch.patch_embed.proj.weight", 4)
    bands = _shape(weights, "audio_branch.bn0.weight", 1)[0]
    if patch[1:] != (1, _PATCH, _PATCH) or bands != _BANDS:
        raise EncoderError(
            f"checkpoint: audio_branch has patches {patch[1:]} and {bands} mel bands, expected "
            f"{(1, _PATCH, _PATCH)} and {_BANDS} as in HTSAT-tiny and HTSAT-base"
        )
    depths = [_count(weights, f"audio_branch.layers.{i}.blocks") for i in range(4)]
    tables = [
        _shape(weights, f"audio_branch.layers.{i}.blocks.0.attn.relative_position_bias_table", 2)
        for i in range(4)
    ]
    window = (math.isqrt(tables[0][0]) + 1) // 2  # a table has (2 window - 1)^2 rows
    fusion = any(name.startswith("audio_branch.patch_embed.fusion_model.") for name in weights)
    return {
        "patch_embeds_hidden_size": patch[0],
        "hidden_size": 8 * patch[0],
        "depths": depths,
        "num_attention_heads": [heads for _, heads in tables],
        "window_size": window,
        "num_mel_bins": bands,
        "spec_size": _SPEC_SIZE,
        "patch_size": _PATCH,
        "patch_stride": [_PATCH, _PATCH],
        "enable_fusion": fusion,
        "fusion_type": "aff_2d" if fusion else None,
    }


def text_settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``ClapTextConfig``, from shapes.

    Raises:
        EncoderError: the text branch is not a RoBERTa.
    """
    words = "text_branch.embeddings.word_embeddings.weight"
    kinds = "text_branch.embeddings.token_type_embeddings.weight"
    # BERT, the other choice of the original code with these names, has two kinds of token.
    if words not in weights or _shape(weights, kinds, 2)[0] != 1:
        raise EncoderError(
            "checkpoint: text_branch is not a RoBERTa, the text tower of all published LAION-CLAP "
            "checkpoints; other towers are not converted"
        )
    vocabulary, width = _shape(weights, words, 2)
    fc = _shape(weights, "text_branch.encoder.layer.0.intermediate.dense.weight", 2)
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": _count(weights, "text_branch.encoder.layer"),
        "num_attention_heads": max(width // _TEXT_HEAD, 1),
        "intermediate_size": fc[0],
        "max_position_embeddings": _shape(
            weights, "text_branch.embeddings.position_embeddings.weight", 2
        )[0],
        "layer_norm_eps": 1e-5,  # RoBERTa's; transformers' own default for CLAP is 1e-12
    }


def feature_settings(weights: Mapping[str, Tensor]) -> LogMelSettings:
    """The features that the weights were trained on.

    Raises:
        EncoderError: the checkpoint's own filter bank is another than the published models'.
    """
    fusion = audio_settings(weights)["enable_fusion"]
    window = _shape(weights, "audio_branch.spectrogram_extractor.stft.conv_real.weight", 3)[2]
    own = weights.get("audio_branch.logmel_extractor.melW")
    if own is not None and not fusion:
        wanted = mel_filters(LogMelSettings(n_fft=window))
        if own.shape != wanted.shape or (own - wanted).abs().max() > 1e-3 * wanted.max():
            raise EncoderError(
                "checkpoint: audio_branch.logmel_extractor.melW is another filter bank than that "
                "of 64 bands from 50 Hz to 14 kHz at 48 kHz; the model hears other features"
            )
    return LogMelSettings(n_fft=window, scale="htk" if fusion else "slaney")


def _shape(weights: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    if name not in weights:
        raise EncoderError(
            f"checkpoint: {name!r} is missing; expected the weights of a whole LAION-CLAP"
        )
    shape = tuple(weights[name].shape)
    if len(shape) != dims:
        raise EncoderError(f"checkpoint: {name!r} has shape {shape}, expected {dims} dimensions")
    return shape


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered parts there are under a prefix."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return len({m[1] for m in map(pattern.match, weights) if m})
