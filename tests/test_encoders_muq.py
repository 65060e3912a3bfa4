from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_audio import save_muq, sounds
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders import build_audio_encoder
from retrieval.errors import EncoderError


def build(folder: Path, **settings: Any):
    return build_audio_encoder(
        {"name": "muq", "weights": str(folder), "clip_s": 0.5, **settings}
    ).eval()


def mel_oracle(wave: np.ndarray) -> np.ndarray:
    """MelSpectrogram and AmplitudeToDB as torchaudio documents them: HTK mels, peaks of 1."""
    padded = np.pad(wave, 1024, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    bins = np.arange(1025) * 24_000 / 2048
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 12_000 / 700), 130) / 2595) - 1)
    columns = []
    for start in range(0, len(wave), 240):
        power = np.abs(np.fft.rfft(padded[start : start + 2048] * window)) ** 2
        row = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            up, down = (bins - left) / (centre - left), (right - bins) / (right - centre)
            row.append(np.maximum(np.minimum(up, down), 0) @ power)
        columns.append(10 * np.log10(np.maximum(row, 1e-10)))
    return np.array(columns).T


def front_oracle(mel: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The two residual steps and the projection, from the published names."""

    def step(x: Tensor, name: str) -> Tensor:
        def one(y: Tensor, i: int, stride: int) -> Tensor:
            y = F.conv2d(y, w[f"{name}.conv{i}.weight"], w[f"{name}.conv{i}.bias"], stride, 1)
            mean, var, scale, shift = (
                w[f"{name}.bn{i}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            return (y - mean) / (var + 1e-5).sqrt() * scale + shift

        return (one(x, 3, 2) + one(one(x, 1, 2).relu(), 2, 1)).relu()

    x = step(step(mel[:, None], "model.conv.conv.0"), "model.conv.conv.1")
    rows = torch.stack([x[..., t].flatten(1) for t in range(x.shape[-1])], dim=1)
    return F.linear(rows, w["model.conv.linear.weight"], w["model.conv.linear.bias"])


@torch.no_grad()
def test_muq_equals_its_parts(tmp_path: Path) -> None:
    folder, model = save_muq(tmp_path / "muq")
    encoder = build(folder, layers="all")
    clips = sounds(2, encoder.clip_samples)
    mel = encoder.front_end(clips)
    wanted = np.stack([mel_oracle(clip.double().numpy()) for clip in clips])
    assert np.abs(mel.numpy() - (wanted - 6.77) / 18.4).max() < 1e-3
    entering = front_oracle(mel, load_file(folder / "model.safetensors"))
    inputs: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for layer in model.encoder.layers
    ]
    last = model.encoder(entering).last_hidden_state
    for hook in hooks:
        hook.remove()
    found = encoder.prepare(clips).unflatten(-1, (4, 16))
    assert found.shape[1] == 13  # 50 frames of 10 ms, every fourth
    for layer, state in enumerate([*inputs, last]):
        assert torch.allclose(found[:, :, layer], state, atol=1e-4)
    assert torch.allclose(encoder.prepare(clips[1:]), encoder.prepare(clips)[1:], atol=1e-5)


def test_muq_from_a_pickle_free_bin_is_the_same(tmp_path: Path) -> None:
    folder, _ = save_muq(tmp_path / "muq")
    clips = sounds(1, 12_000)
    wanted, name = build(folder).prepare(clips), build(folder).identity()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert torch.equal(build(folder).prepare(clips), wanted)
    assert build(folder).identity() == name


def test_a_folder_that_is_no_muq_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"MuQ's config\.json"):
        build(tmp_path)
    folder, _ = save_muq(tmp_path / "muq")
    settings = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"hop_length": 300}, "hop_length is 300"),
        ({"encoder_depth": 2}, r"does not hold.*conformer\.layers\.2"),
        ({"encoder_dim": 32}, "cannot be read as MuQ"),
        ({"w2v2_config": None}, "cannot be read as MuQ"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(EncoderError, match=message):
            build(folder)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "model.safetensors").write_bytes(b"\0" * 99)
    with pytest.raises(EncoderError, match="cannot be read as MuQ"):
        build(folder)
