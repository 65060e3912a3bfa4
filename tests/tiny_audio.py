"""Tiny published audio models with random weights, saved as their makers save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "initializer_range": 0.2}  # fmt: skip
WAVES = {**SMALL, "conv_dim": [8, 8], "conv_kernel": [10, 8], "conv_stride": [5, 8],
         "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16,
         "num_conv_pos_embedding_groups": 2, "layerdrop": 0.5, "mask_time_prob": 0.5}  # fmt: skip
#: A BEATs with every part that the published ones have.
BEATS = {"input_patch_size": 16, "embed_dim": 12, "conv_bias": False, "encoder_layers": 2,
         "encoder_embed_dim": 16, "encoder_ffn_embed_dim": 24, "encoder_attention_heads": 2,
         "activation_fn": "gelu", "layer_norm_first": False, "deep_norm": True, "conv_pos": 8,
         "conv_pos_groups": 4, "relative_position_embedding": True, "num_buckets": 8,
         "max_distance": 20, "gru_rel_pos": True, "dropout": 0.0, "attention_dropout": 0.0,
         "layer_wise_gradient_decay_ratio": 0.6, "finetuned_model": False}  # fmt: skip


def shake(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight, norms and biases too, so that each takes part."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.2 * torch.randn(p.shape, generator=rng)
    return model.eval()


def save_waveform_model(folder: Path, kind: str = "wav2vec2", **changes: Any) -> Path:
    """A wav2vec2, hubert, wavlm or mert model at 8 kHz; 200 frames a second."""
    import transformers

    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM", "mert": "Hubert",
            "wav2vec2-conformer": "Wav2Vec2Conformer"}[kind]  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**{**WAVES, **changes})
    torch.manual_seed(0)
    shake(getattr(transformers, f"{name}Model")(config)).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000)
    extractor.save_pretrained(folder)
    if kind == "mert":
        settings = json.loads((folder / "config.json").read_text())
        settings |= {"model_type": "mert_model", "architectures": ["MERTModel"],
                     "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig",
                                  "AutoModel": "modeling_MERT.MERTModel"},
                     "feature_extractor_cqt": False, "deepnorm": False}  # fmt: skip
        (folder / "config.json").write_text(json.dumps(settings))
        for file in ("configuration_MERT.py", "modeling_MERT.py"):
            (folder / file).write_text("raise SystemExit('code of a model was run')\n")
    return folder


def save_ast(folder: Path) -> Path:
    """An AST of 64 frames, that is 0.64 s."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    config = ASTConfig(**SMALL, max_length=64, num_mel_bins=32, frequency_stride=8, time_stride=10)
    torch.manual_seed(0)
    shake(ASTModel(config)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    return folder


def save_whisper(folder: Path) -> Path:
    """A Whisper that reads 2 s."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    config = WhisperConfig(
        d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=50,
        num_mel_bins=20, max_source_positions=100, max_target_positions=8, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, encoder_layerdrop=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    shake(WhisperModel(config)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    return folder


def beats_state(cfg: dict[str, Any], seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of Microsoft's checkpoints."""
    rng = torch.Generator().manual_seed(seed)
    width, inner, embed = (
        cfg[n] for n in ("encoder_embed_dim", "encoder_ffn_embed_dim", "embed_dim")
    )
    heads, patch = cfg["encoder_attention_heads"], cfg["input_patch_size"]
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (embed, 1, patch, patch)}
    if cfg["conv_bias"]:
        shapes["patch_embedding.bias"] = (embed,)

    def linear(name: str, to: int, given: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (to, given), (to,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

    norm("layer_norm", embed)
    if embed != width:
        linear("post_extract_proj", width, embed)
    shapes["encoder.pos_conv.0.bias"] = (width,)
    shapes["encoder.pos_conv.0.weight_g"] = (1, 1, cfg["conv_pos"])
    shapes["encoder.pos_conv.0.weight_v"] = (
        width,
        width // cfg["conv_pos_groups"],
        cfg["conv_pos"],
    )
    norm("encoder.layer_norm", width)
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(f"{layer}.self_attn.{part}", width, width)
        if cfg["gru_rel_pos"]:
            linear(f"{layer}.self_attn.grep_linear", 8, width // heads)
            shapes[f"{layer}.self_attn.grep_a"] = (1, heads, 1, 1)
        norm(f"{layer}.self_attn_layer_norm", width)
        norm(f"{layer}.final_layer_norm", width)
        linear(f"{layer}.fc1", inner, width)
        linear(f"{layer}.fc2", width, inner)
    state = {n: 0.4 * torch.randn(s, generator=rng) + 0.2 for n, s in shapes.items()}
    if cfg["relative_position_embedding"]:
        table = torch.randn(cfg["num_buckets"], heads, generator=rng)
        for i in range(cfg["encoder_layers"]):  # tied, and stored once a layer
            state[f"encoder.layers.{i}.self_attn.relative_attention_bias.weight"] = table
    return state


def save_beats(path: Path, seed: int = 0, **changes: Any) -> Path:
    """A BEATs checkpoint ``{"cfg", "model"}``."""
    cfg = {**BEATS, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"cfg": cfg, "model": beats_state(cfg, seed)}, path)
    return path


STAT = {"melspec_2048_cnt": 9, "melspec_2048_mean": 6.77, "melspec_2048_std": 18.4}


def save_muq(folder: Path) -> tuple[Path, Any]:
    """A folder like MuQ's, its conformer that of a transformers model, which comes back too."""
    from transformers import Wav2Vec2ConformerConfig, Wav2Vec2ConformerModel

    waves = {**WAVES, "position_embeddings_type": "rotary", "layerdrop": 0.0, "mask_time_prob": 0.0}
    torch.manual_seed(0)
    model = shake(Wav2Vec2ConformerModel(Wav2Vec2ConformerConfig(**waves)))
    state = {f"model.conformer.{n}": t for n, t in model.encoder.state_dict().items()}
    rng = torch.Generator().manual_seed(3)

    def draw(name: str, *shape: int) -> None:
        state[f"model.{name}"] = 0.3 * torch.randn(shape, generator=rng)

    for step, given in ((0, 1), (1, 4)):
        for i, channels in ((1, given), (2, 4), (3, given)):
            draw(f"conv.conv.{step}.conv{i}.weight", 4, channels, 3, 3)
            draw(f"conv.conv.{step}.conv{i}.bias", 4)
            for part in ("weight", "bias", "running_mean", "running_var"):
                draw(f"conv.conv.{step}.bn{i}.{part}", 4)
            state[f"model.conv.conv.{step}.bn{i}.running_var"].abs_().add_(0.1)
            state[f"model.conv.conv.{step}.bn{i}.num_batches_tracked"] = torch.tensor(1.0)
    draw("conv.linear.weight", 16, 4 * 32)
    draw("conv.linear.bias", 16)
    for unused in ("linear.weight", "cls_token", "preprocessor_melspec_2048.mel_stft.mel_scale.fb"):
        draw(unused, 3)
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    plain = {n: t.contiguous().clone() for n, t in state.items()}
    save_file(plain, folder / "model.safetensors")
    settings = {"label_rate": 25, "conv_dim": 4, "encoder_dim": 16, "encoder_depth": 3,
                "stat": STAT,
                "w2v2_config": {**waves, "hidden_size": 99, "architectures": ["W"]}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    return folder, model


def sounds(count: int, samples: int, seed: int = 1) -> Tensor:
    """Noise at different levels, ``[count, samples]``."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, samples, generator=rng) * torch.linspace(0.05, 0.3, count)[:, None]


def tiny_settings(root: Path) -> dict[str, dict[str, Any]]:
    """Settings of every encoder of this kind, on weights saved under ``root``."""
    makers: dict[str, tuple[Callable[[Path], Path], float]] = {
        "whisper": (save_whisper, 1.0),
        "beats": (lambda folder: save_beats(folder / "beats.pt"), 1.0),
        "ast": (save_ast, 0.6),
        "wav2vec2": (save_waveform_model, 1.0),
        "muq": (lambda folder: save_muq(folder)[0], 1.0),
    }
    found: dict[str, dict[str, Any]] = {}
    for name, (make, clip_s) in makers.items():
        folder = root / name
        folder.mkdir(parents=True)
        found[name] = {"name": name, "weights": str(make(folder)), "clip_s": clip_s}
    found["dual"] = {"name": "dual", "first": found["whisper"], "second": found["beats"]}
    return found
