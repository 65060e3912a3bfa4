"""BEATs in NumPy, equation by equation and slowly, from a checkpoint's own names."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

Array = NDArray[np.float64]


def kaldi_log_mel(wave: Array, rate: int = 16_000, bands: int = 128) -> Array:
    """Kaldi's fbank of one waveform on the 16-bit scale: frame by frame, filter by filter."""
    window, hop, size = rate // 40, rate // 100, 512
    n = np.arange(window)
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * n / (window - 1))) ** 0.85
    transform = np.exp(-2j * np.pi * np.outer(np.arange(size // 2), n) / size)

    bank = _bank(rate, size, bands)
    rows = []
    for start in range(0, len(wave) - window + 1, hop):
        frame = wave[start : start + window] - wave[start : start + window].mean()
        sharp = frame.copy()
        for i in range(1, window):
            sharp[i] -= 0.97 * frame[i - 1]
        sharp[0] -= 0.97 * frame[0]
        power = np.abs(transform @ (sharp * povey)) ** 2
        rows.append(np.log(np.maximum(bank @ power, 1.1920928955078125e-07)))
    return np.array(rows)


@cache
def _bank(rate: int, size: int, bands: int) -> Array:
    def mel(hz: float) -> float:
        return 1127.0 * math.log(1.0 + hz / 700.0)

    low, high = mel(20.0), mel(rate / 2)
    step = (high - low) / (bands + 1)
    bank = np.zeros((bands, size // 2))
    for band in range(bands):
        left, centre, right = (low + (band + i) * step for i in range(3))
        for k in range(size // 2):
            at = mel(k * rate / size)
            if left < at <= centre:
                bank[band, k] = (at - left) / (centre - left)
            elif centre < at < right:
                bank[band, k] = (right - at) / (right - centre)
    return bank


def bucket(distance: int, buckets: int, farthest: int) -> int:
    """T5's bucket of key position minus query position."""
    half = buckets // 2
    offset = half if distance > 0 else 0
    steps, exact = abs(distance), half // 2
    if steps < exact:
        return offset + steps
    wide = exact + int(math.log(steps / exact) / math.log(farthest / exact) * (half - exact))
    return offset + min(wide, half - 1)


def _norm(x: Array, w: dict[str, Array], name: str) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(x: Array, w: dict[str, Array], name: str) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _positions(x: Array, w: dict[str, Array], groups: int) -> Array:
    v, g = w["encoder.pos_conv.0.weight_v"], w["encoder.pos_conv.0.weight_g"]
    out_width, per_group, kernel = v.shape
    made = np.zeros_like(x)
    for k in range(kernel):
        weight = v[:, :, k] * g[0, 0, k] / math.sqrt((v[:, :, k] ** 2).sum())
        for t in range(len(x)):
            source = t + k - kernel // 2
            if 0 <= source < len(x):
                for channel in range(out_width):
                    group = channel // (out_width // groups)
                    heard = x[source, group * per_group : (group + 1) * per_group]
                    made[t, channel] += weight[channel] @ heard
    return _gelu(made + w["encoder.pos_conv.0.bias"])


def _attention(x: Array, w: dict[str, Array], layer: str, cfg: dict[str, Any]) -> Array:
    heads, tokens = cfg["encoder_attention_heads"], len(x)
    size = x.shape[1] // heads
    q, k, v = (_linear(x, w, f"{layer}.self_attn.{n}_proj") for n in "qkv")
    heard = np.zeros_like(x)
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        logits = q[:, part] @ k[:, part].T / math.sqrt(size)
        if cfg["relative_position_embedding"]:
            table = w["encoder.layers.0.self_attn.relative_attention_bias.weight"]
            for i in range(tokens):
                factor = 1.0
                if cfg["gru_rel_pos"]:
                    eight = _linear(q[i, part], w, f"{layer}.self_attn.grep_linear")
                    update, reset = expit(eight[:4].sum()), expit(eight[4:].sum())
                    a = w[f"{layer}.self_attn.grep_a"][0, h, 0, 0]
                    factor = update * (reset * a - 1) + 2
                for j in range(tokens):
                    row = bucket(j - i, cfg["num_buckets"], cfg["max_distance"])
                    logits[i, j] += factor * table[row, h]
        weight = np.exp(logits - logits.max(1, keepdims=True))
        heard[:, part] = weight / weight.sum(1, keepdims=True) @ v[:, part]
    return _linear(heard, w, f"{layer}.self_attn.out_proj")


def beats(wave: Array, w: dict[str, Array], cfg: dict[str, Any]) -> list[Array]:
    """States ``[tokens, width]`` of one waveform: the first layer's input, then each output."""
    mel = (kaldi_log_mel(wave * 2**15) - 15.41663) / (2 * 6.55582)
    side = cfg["input_patch_size"]
    patches = []
    for t in range(len(mel) // side):
        for f in range(mel.shape[1] // side):
            square = mel[t * side : (t + 1) * side, f * side : (f + 1) * side]
            patch = (w["patch_embedding.weight"][:, 0] * square).sum((1, 2))
            patches.append(patch + w.get("patch_embedding.bias", 0.0))
    x = _norm(np.array(patches), w, "layer_norm")
    if "post_extract_proj.weight" in w:
        x = _linear(x, w, "post_extract_proj")
    x = x + _positions(x, w, cfg["conv_pos_groups"])
    first = cfg["layer_norm_first"]
    if not first:
        x = _norm(x, w, "encoder.layer_norm")
    scale = (2 * cfg["encoder_layers"]) ** 0.25 if cfg["deep_norm"] else 1.0
    act = _gelu if cfg["activation_fn"] == "gelu" else lambda y: np.maximum(y, 0)
    states = [x]
    for i in range(cfg["encoder_layers"]):
        layer = f"encoder.layers.{i}"
        attended = _norm(x, w, f"{layer}.self_attn_layer_norm") if first else x
        x = scale * x + _attention(attended, w, layer, cfg)
        if not first:
            x = _norm(x, w, f"{layer}.self_attn_layer_norm")
        inner = _norm(x, w, f"{layer}.final_layer_norm") if first else x
        inner = act(_linear(inner, w, f"{layer}.fc1"))
        x = scale * x + _linear(inner, w, f"{layer}.fc2")
        if not first:
            x = _norm(x, w, f"{layer}.final_layer_norm")
        states.append(x)
    if first:
        states[-1] = _norm(states[-1], w, "encoder.layer_norm")
    return states
