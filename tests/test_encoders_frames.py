from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_audio import save_ast, save_waveform_model, save_whisper, sounds

from retrieval.encoders import build_audio_encoder
from retrieval.errors import ConfigError, EncoderError


def build(name: str, weights: Path, clip_s: float, **settings: Any):
    found = {"name": name, "weights": str(weights), "clip_s": clip_s, **settings}
    return build_audio_encoder(found).eval()


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "wav2vec2-conformer"])
@torch.no_grad()
def test_waveform_models_give_what_transformers_gives(tmp_path: Path, kind: str) -> None:
    from transformers import AutoFeatureExtractor, AutoModel

    weights = save_waveform_model(tmp_path, kind)
    encoder = build("wav2vec2", weights, 0.5)
    assert (encoder.sample_rate_hz, encoder.clip_samples, encoder.d_audio) == (8000, 4000, 16)
    clips = sounds(3, 4000)
    extractor = AutoFeatureExtractor.from_pretrained(weights)
    batch = extractor([clip.numpy() for clip in clips], sampling_rate=8000, return_tensors="pt")
    wanted = AutoModel.from_pretrained(weights).eval()(batch["input_values"])
    found = encoder(encoder.prepare(clips))
    assert torch.allclose(found, wanted.last_hidden_state, atol=1e-5)
    assert found.std(dim=0).min() > 0  # not all alike


@torch.no_grad()
def test_stable_norm_comes_behind_the_last_layer_alone(tmp_path: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

    weights = save_waveform_model(
        tmp_path, do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True
    )
    clips = sounds(2, 4000)
    extractor = Wav2Vec2FeatureExtractor.from_pretrained(weights)
    batch = extractor([clip.numpy() for clip in clips], sampling_rate=8000, return_tensors="pt")
    model = Wav2Vec2Model.from_pretrained(weights).eval()
    out = model(batch["input_values"], output_hidden_states=True)
    for layer, wanted in ((-1, out.last_hidden_state), (1, out.hidden_states[1])):
        encoder = build("wav2vec2", weights, 0.5, layers=layer)
        assert torch.allclose(encoder(encoder.prepare(clips)), wanted, atol=1e-5)
    side = build("wav2vec2", weights, 0.5, layers=[3, 0]).prepare(clips).unflatten(-1, (2, 16))
    assert torch.allclose(side[:, :, 0], out.last_hidden_state, atol=1e-5)
    assert torch.allclose(side[:, :, 1], out.hidden_states[0], atol=1e-5)


def test_mert_is_read_as_a_hubert_and_its_code_is_not_run(tmp_path: Path) -> None:
    mert = build("wav2vec2", save_waveform_model(tmp_path / "mert", "mert"), 0.5)
    hubert = build("wav2vec2", save_waveform_model(tmp_path / "hubert", "hubert"), 0.5)
    clips = sounds(2, 4000)
    assert torch.equal(mert.prepare(clips), hubert.prepare(clips))
    path = tmp_path / "mert" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "feature_extractor_cqt": True}))
    with pytest.raises(EncoderError, match="feature_extractor_cqt"):
        build("wav2vec2", tmp_path / "mert", 0.5)


def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    weights = save_waveform_model(tmp_path, "mert")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "unheard_of"}))
    with pytest.raises(EncoderError, match="cannot be loaded"):
        build("wav2vec2", weights, 0.5)
    with pytest.raises(EncoderError, match=r"type 'whisper'.*conv_kernel"):
        build("wav2vec2", save_whisper(tmp_path / "whisper"), 0.5)


def test_weights_that_lack_a_part_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = save_waveform_model(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["encoder.layers.1.attention.k_proj.weight"]
    save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 weights.*k_proj"):
        build("wav2vec2", weights, 0.5)
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        build("wav2vec2", weights, 0.5)


@torch.no_grad()
def test_ast_frames_are_its_patches_by_time(tmp_path: Path) -> None:
    from transformers import ASTFeatureExtractor, ASTModel

    weights = save_ast(tmp_path)
    encoder = build("ast", weights, 0.5)  # 48 of the 64 frames of 10 ms
    clips = sounds(2, 8000)
    batch = ASTFeatureExtractor.from_pretrained(weights)(
        [clip.numpy() for clip in clips], sampling_rate=16000, return_tensors="pt"
    )
    tokens = ASTModel.from_pretrained(weights).eval()(batch["input_values"]).last_hidden_state
    frequencies, times = 3, 5  # (32 - 16) / 8 + 1, (64 - 16) / 10 + 1
    for n in range(2):
        for t in range(5):
            rows = [tokens[n, 2 + f * times + t] for f in range(frequencies)]
            wanted = torch.stack(rows).mean(0)
            assert torch.allclose(encoder(encoder.prepare(clips))[n, t], wanted, atol=1e-5)
    # Patches that begin at 0, 100 and 200 ms; a clip of 0.315 s has 30 frames.
    assert build("ast", weights, 0.315).prepare(torch.zeros(1, 5040)).shape == (1, 3, 16)
    with pytest.raises(ConfigError, match=r"clip_s: got 0\.7"):
        build("ast", weights, 0.7)


@torch.no_grad()
def test_whisper_is_the_published_encoder_on_padded_clips(tmp_path: Path) -> None:
    from transformers import WhisperFeatureExtractor, WhisperModel

    weights = save_whisper(tmp_path)
    encoder = build("whisper", weights, 0.75)
    clips = sounds(3, 12000)
    extractor = WhisperFeatureExtractor.from_pretrained(weights)
    batch = extractor([clip.numpy() for clip in clips], sampling_rate=16000, return_tensors="pt")
    assert batch["input_features"].shape == (3, 20, 200)
    model = WhisperModel.from_pretrained(weights).eval()
    wanted = model.get_encoder()(batch["input_features"]).last_hidden_state
    found = encoder(encoder.prepare(clips))
    assert found.shape == (3, 38, 16)  # 0.75 s at 50 a second, the last one half
    assert torch.allclose(found, wanted[:, :38], atol=1e-5)
    with pytest.raises(ConfigError, match=r"clip_s: got 2\.5, expected at most 2"):
        build("whisper", weights, 2.5)


def test_a_mix_of_layers_starts_equal_and_learns_behind_frozen_weights(tmp_path: Path) -> None:
    weights = save_waveform_model(tmp_path)
    encoder = build("wav2vec2", weights, 0.5, layers=[1, -1]).train()
    clips = sounds(2, 4000)
    prepared = encoder.prepare(clips)
    assert not prepared.requires_grad
    assert prepared.shape[-1] == encoder.d_encoded == 32
    one, last = (build("wav2vec2", weights, 0.5, layers=n).prepare(clips) for n in (1, 3))
    assert torch.allclose(encoder(prepared), (one + last) / 2, atol=1e-6)
    trained = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert trained == ["mix"]
    encoder(prepared)[..., 0].sum().backward()
    assert encoder.mix.grad.abs().min() > 0
    with torch.no_grad():
        encoder.mix.copy_(torch.tensor([0.0, 1.0]).log().clamp(min=-60))
    assert torch.allclose(encoder(prepared), last, atol=1e-6)
    assert build("wav2vec2", weights, 0.5, layers="all").layers == [0, 1, 2, 3]


@pytest.mark.parametrize("layers", [4, -5, [], [1, 1], [3, -1], "last", [0.5]])
def test_layers_that_are_not_there_are_named(tmp_path: Path, layers: Any) -> None:
    with pytest.raises(ConfigError, match="layers: got"):
        build("wav2vec2", save_waveform_model(tmp_path), 0.5, layers=layers)


def test_training_leaves_out_no_layer_and_masks_nothing(tmp_path: Path) -> None:
    """Layer drop and masks of speech training draw from NumPy, and would break a mix."""
    weights = save_waveform_model(tmp_path, hidden_dropout=0.0, attention_dropout=0.0,
                                  activation_dropout=0.0, feat_proj_dropout=0.0)  # fmt: skip
    for name, folder in (("wav2vec2", weights), ("whisper", save_whisper(tmp_path / "w"))):
        encoder = build(name, folder, 0.5, frozen=False, layers="all")
        prepared = encoder.prepare(sounds(2, encoder.clip_samples))
        calm = encoder(prepared)
        for _ in range(5):
            assert torch.allclose(encoder.train()(prepared), calm, atol=1e-6)


def test_a_clip_shorter_than_the_first_frame_is_refused(tmp_path: Path) -> None:
    weights = save_waveform_model(tmp_path)
    assert build("wav2vec2", weights, 0.1).prepare(torch.zeros(1, 800)).shape[1] == 19
    long = save_waveform_model(tmp_path / "long", conv_kernel=[900, 8], conv_stride=[5, 8])
    with pytest.raises(ConfigError, match=r"clip_s: got 0\.1, expected at least 0\.117"):
        build("wav2vec2", long, 0.1)
