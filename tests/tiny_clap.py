"""A tiny CLAP with random weights, saved as transformers does, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def save_roberta_tokenizer(folder: Path) -> int:
    """A byte-level tokenizer without merges; returns the size of its vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import RobertaTokenizer

    signs = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), "<mask>"]
    vocabulary = {sign: i for i, sign in enumerate(signs)}
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)
    tokenizer.save_pretrained(folder)
    return len(vocabulary)


def clap_config(vocabulary: int = 50, fusion: bool = False, width: int = 16) -> Any:
    from transformers import ClapAudioConfig, ClapConfig, ClapTextConfig

    audio = ClapAudioConfig(
        patch_embeds_hidden_size=width, depths=[1, 2, 1, 1], num_attention_heads=[1, 2, 2, 4],
        hidden_size=8 * width, num_mel_bins=64, spec_size=256, enable_fusion=fusion,
    )  # fmt: skip
    text = ClapTextConfig(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, num_attention_heads=1,
        intermediate_size=48, max_position_embeddings=66, layer_norm_eps=1e-5,
    )  # fmt: skip
    return ClapConfig(
        text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=24
    )  # fmt: skip


def scatter(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random numbers for all weights and statistics, so that each of them counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(200 + 100 * noise.abs())
            elif name.endswith("running_mean"):
                tensor.copy_(10 * noise - 20)
            elif tensor.ndim == 1 and name.endswith("weight"):
                tensor.copy_(1 + 0.2 * noise)
            else:
                scale = tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.1
                tensor.copy_(noise * scale)
    return model.eval()


def save_clap(folder: Path, fusion: bool = False, width: int = 16, seed: int = 0) -> Any:
    """A CLAP of both towers with its extractor and tokenizer; returns the ``ClapModel``."""
    from transformers import ClapFeatureExtractor, ClapModel

    vocabulary = save_roberta_tokenizer(folder)
    model = scatter(ClapModel(clap_config(vocabulary, fusion, width)), seed)
    model.save_pretrained(folder)
    truncation = "fusion" if fusion else "rand_trunc"
    ClapFeatureExtractor(frequency_min=50, truncation=truncation).save_pretrained(folder)
    return model


def sounds(n_samples: int = 480_000) -> Tensor:
    """Seven 10 s clips at 48 kHz that strain a spectrogram: tones, silence, clicks, clipping."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(n_samples, generator=generator)
    time = torch.arange(n_samples) / 48_000
    tone = torch.sin(2 * torch.pi * 440 * time)
    clicks = torch.zeros(n_samples)
    clicks[::24_000] = 1.0
    return torch.stack([
        0.1 * noise, tone, torch.zeros(n_samples), torch.where(time < 5, tone, 0.0),
        1e-5 * noise, clicks, noise.sign(),
    ])  # fmt: skip
