from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beats_oracle import beats, bucket, kaldi_log_mel
from tiny_audio import BEATS, beats_state, save_beats, sounds

from retrieval.encoders import build_audio_encoder
from retrieval.encoders.beats import load_beats
from retrieval.encoders.beats_net import BeatsSettings, GatedAttention, distance_buckets
from retrieval.encoders.kaldi import frame_count, log_mel
from retrieval.errors import ConfigError, EncoderError

RATE = 16_000


def build(path: Path, **settings: Any):
    return build_audio_encoder({"name": "beats", "weights": str(path), "clip_s": 0.8, **settings})


@pytest.mark.parametrize("samples", [400, 559, 560, 1511])
def test_log_mel_is_kaldis(samples: int) -> None:
    clips = sounds(2, samples) * 2**15
    found = log_mel(clips, RATE, 128)
    wanted = np.stack([kaldi_log_mel(clip.double().numpy()) for clip in clips])
    assert found.shape == wanted.shape == (2, frame_count(samples, RATE), 128)
    assert np.abs(found.numpy() - wanted).max() < 2e-3
    assert np.abs(found.numpy() - wanted).mean() < 1e-4


def test_log_mel_is_transformers_own() -> None:
    """The same filter bank as transformers computes, with the window that both know as Povey's."""
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    wave = sounds(1, 8000)[0] * 2**15
    bank = mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=80, min_frequency=20, max_frequency=8000,
        sampling_rate=RATE, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    wanted = spectrogram(
        wave.numpy(), window_function(400, "povey", periodic=False), frame_length=400,
        hop_length=160, fft_length=512, power=2.0, center=False, preemphasis=0.97,
        mel_filters=bank, log_mel="log", mel_floor=1.192092955078125e-07, remove_dc_offset=True,
    ).T  # fmt: skip
    assert np.abs(log_mel(wave[None], RATE, 80)[0].numpy() - wanted).max() < 2e-3


def test_silence_has_kaldis_floor() -> None:
    found = log_mel(torch.zeros(1, 800), RATE, 128)
    assert torch.allclose(found, torch.full_like(found, float(np.log(np.finfo(np.float32).eps))))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"deep_norm": False, "gru_rel_pos": False},
        {"relative_position_embedding": False, "gru_rel_pos": False, "conv_bias": True},
        {"layer_norm_first": True, "deep_norm": False, "activation_fn": "relu"},
        {"embed_dim": 16, "conv_pos": 7, "num_buckets": 12, "max_distance": 9},
    ],
)
def test_beats_equals_its_equations(tmp_path: Path, changes: dict[str, Any]) -> None:
    cfg = {**BEATS, **changes}
    encoder = build(save_beats(tmp_path / "b.pt", **changes), clip_s=0.5, layers="all")
    clips = sounds(2, encoder.clip_samples)
    weights = {name: value.double().numpy() for name, value in beats_state(cfg).items()}
    found = encoder.prepare(clips).unflatten(-1, (3, 16))  # [clips, frames, layers, width]
    for clip, states in zip(clips, found, strict=True):
        wanted = beats(clip.double().numpy(), weights, cfg)
        assert len(wanted) == 3
        for layer, state in enumerate(wanted):
            frames = state.reshape(-1, 8, 16).mean(1)
            assert np.abs(states[:, layer].numpy() - frames).max() < 2e-4


def test_gated_attention_is_wavlms_where_the_query_is_the_input() -> None:
    from transformers.models.wavlm.modeling_wavlm import WavLMAttention

    torch.manual_seed(0)
    theirs = WavLMAttention(12, 3, num_buckets=16, max_distance=30).eval()
    settings = BeatsSettings(encoder_embed_dim=12, encoder_attention_heads=3, gru_rel_pos=True)
    ours = GatedAttention(settings).eval()
    with torch.no_grad():
        theirs.q_proj.weight.copy_(torch.eye(12))  # WavLM gates by the input, BEATs by the query
        theirs.q_proj.bias.zero_()
        theirs.gru_rel_pos_const.normal_()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            getattr(ours, name).load_state_dict(getattr(theirs, name).state_dict())
        ours.grep_linear.load_state_dict(theirs.gru_rel_pos_linear.state_dict())
        ours.grep_a.copy_(theirs.gru_rel_pos_const)
        x = torch.randn(2, 40, 12)
        wanted, _, _ = theirs(x)
        place = torch.arange(40)
        buckets = distance_buckets(place[None] - place[:, None], 16, 30)
        bias = theirs.rel_attn_embed(buckets).permute(2, 0, 1)[None]
        assert torch.allclose(theirs.compute_bias(40, 40), bias[0])
        assert torch.allclose(ours(x, bias), wanted, atol=1e-5)


def test_buckets_are_t5s() -> None:
    distance = torch.arange(-400, 401)
    for buckets, farthest in ((320, 800), (320, 1280), (8, 20), (12, 9)):
        found = distance_buckets(distance, buckets, farthest)
        assert found.tolist() == [bucket(int(d), buckets, farthest) for d in distance]


def test_a_fine_tuned_checkpoint_gives_the_same_without_its_classifier(tmp_path: Path) -> None:
    path = save_beats(tmp_path / "b.pt")
    found = torch.load(path, weights_only=True)
    found["model"] |= {"predictor.weight": torch.ones(4, 16), "predictor.bias": torch.ones(4)}
    found["cfg"] |= {"finetuned_model": True, "predictor_class": 4}
    torch.save({**found, "label_dict": {0: "/m/1"}}, tmp_path / "tuned.pt")
    plain, tuned = build(path), build(tmp_path / "tuned.pt")
    clips = sounds(1, plain.clip_samples)
    assert torch.equal(plain.prepare(clips), tuned.prepare(clips))
    assert plain.identity() == tuned.identity()


def test_weights_in_half_precision_are_read(tmp_path: Path) -> None:
    found = torch.load(save_beats(tmp_path / "b.pt"), weights_only=True)
    found["model"] = {name: value.half() for name, value in found["model"].items()}
    torch.save(found, tmp_path / "half.pt")
    assert {p.dtype for p in load_beats(str(tmp_path / "half.pt")).parameters()} == {torch.float32}


def _changed(path: Path, cfg: dict[str, Any] | None = None, **model: Any) -> Path:
    found = torch.load(path, weights_only=True)
    found["cfg"] |= cfg or {}
    for name, value in model.items():
        if value is None:
            del found["model"][name]
        else:
            found["model"][name] = value
    torch.save(found, path.with_name("changed.pt"))
    return path.with_name("changed.pt")


def test_foreign_and_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    good = save_beats(tmp_path / "good.pt")
    with pytest.raises(EncoderError, match="existing file"):
        build(tmp_path / "none.pt")
    cases = [
        ({"activation_fn": "glu"}, {}, "activation_fn 'glu'"),
        ({"encoder_layers": "many"}, {}, "encoder_layers 'many'"),
        ({"encoder_layers": 10**9}, {}, "encoder_layers 1000000000"),
        ({"encoder_attention_heads": 3}, {}, "encoder_attention_heads 3"),
        ({"encoder_layers": 3}, {}, "does not hold"),
        ({}, {"layer_norm.weight": None}, "'layer_norm.weight' .1 in all"),
        ({}, {"layer_norm.weight": torch.ones(3)}, "'layer_norm.weight' .1 in all"),
        ({}, {"layer_norm.weight": torch.full((12,), torch.nan)}, "'layer_norm.weight' .1 in all"),
        ({}, {"quantize.embedding.weight": torch.ones(3)}, "quantize"),
    ]
    for cfg, model, message in cases:
        with pytest.raises(EncoderError, match=message):
            build(_changed(good, cfg, **model))
    for content, message in (
        ({"model": {}}, "no 'cfg'"),
        ([1, 2], "no 'cfg'"),
        ({"cfg": BEATS, "model": {}}, "does not hold"),
    ):
        torch.save(content, tmp_path / "foreign.pt")
        with pytest.raises(EncoderError, match=message):
            build(tmp_path / "foreign.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"cfg": BEATS, "model": {}, "extra": _Trap(tmp_path / "run")}, tmp_path / "evil.pt")
    with pytest.raises(EncoderError, match="plain tensors"):
        build(tmp_path / "evil.pt")
    assert not (tmp_path / "run").exists()


class _Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_a_damaged_file_never_gives_other_weights_silently(tmp_path: Path) -> None:
    """Bytes flipped or cut off anywhere: the same network or an error of ours."""
    good = save_beats(tmp_path / "good.pt")
    data = good.read_bytes()
    digest = build(good).identity()
    rng = np.random.default_rng(0)
    silent = 0
    for i in range(60):
        if i % 3:
            damaged = bytearray(data)
            damaged[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        else:
            damaged = bytearray(data[: int(rng.integers(len(data)))])
        (tmp_path / "bad.pt").write_bytes(damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                silent += build(tmp_path / "bad.pt").identity() != digest
        except EncoderError:
            pass
    assert silent == 0


def test_a_clip_shorter_than_a_patch_is_refused(tmp_path: Path) -> None:
    path = save_beats(tmp_path / "b.pt")
    assert build(path, clip_s=0.175).prepare(torch.zeros(1, 2800)).shape == (1, 1, 16)
    with pytest.raises(ConfigError, match=r"clip_s: got 0\.17,"):
        build(path, clip_s=0.17)
