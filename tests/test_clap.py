from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_clap import clap_config, save_clap, scatter, sounds

from retrieval.encoders import build_audio_encoder, build_text_encoder
from retrieval.encoders.clap_features import ClapLogMel, LogMelSettings, mel_filters
from retrieval.errors import ConfigError, EncoderError

SCALES = {"rand_trunc": "slaney", "fusion": "htk"}


def extract(clips: torch.Tensor, truncation: str, low_hz: float = 50.0) -> torch.Tensor:
    """What transformers computes clip by clip: ``[n, 1 or 4, 1001, 64]``."""
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(frequency_min=low_hz)
    return torch.stack([
        extractor(clip.numpy(), sampling_rate=48_000, truncation=truncation, padding="pad",
                  return_tensors="pt")["input_features"][0]
        for clip in clips
    ])  # fmt: skip


@pytest.mark.parametrize("truncation", ["rand_trunc", "fusion"])
@pytest.mark.parametrize("low_hz", [0.0, 50.0])
def test_features_are_those_of_the_extractor(truncation: str, low_hz: float) -> None:
    clips = sounds()
    wanted = extract(clips, truncation, low_hz)
    found = ClapLogMel(LogMelSettings(low_hz=low_hz, scale=SCALES[truncation]))(clips)
    assert found.shape == (len(clips), 1, 1001, 64)
    assert wanted.shape[1] == (4 if truncation == "fusion" else 1)
    error = (found - wanted).abs()  # one channel against each
    heard = wanted > wanted.amax(dim=-1, keepdim=True) - 80
    assert error[heard].max() < 5e-3
    assert error.max() < 1.0
    assert error[0].max() < 1e-3  # noise: all bands are about equally loud


def test_both_filter_banks_are_those_of_the_extractor() -> None:
    from transformers import ClapFeatureExtractor

    extractor = ClapFeatureExtractor(feature_size=80, sampling_rate=32_000, frequency_max=15_000)
    for scale, wanted in (
        ("htk", extractor.mel_filters), ("slaney", extractor.mel_filters_slaney),
    ):  # fmt: skip
        found = mel_filters(LogMelSettings.of_extractor(extractor, scale))
        torch.testing.assert_close(found, torch.from_numpy(wanted).float(), atol=1e-7, rtol=1e-5)
    with pytest.raises(ConfigError, match="scale"):
        LogMelSettings(scale="bark")


def test_features_of_a_clip_are_the_same_bits_in_any_batch() -> None:
    clips, front = sounds(), ClapLogMel(LogMelSettings())
    together = front(clips)
    for i in range(len(clips)):
        assert torch.equal(front(clips[i : i + 1])[0], together[i])
    assert torch.equal(front(clips.flip(0)).flip(0), together)
    assert torch.equal(front(torch.cat([clips[:1], clips * 999]))[0], together[0])


@pytest.mark.parametrize(("fusion", "width"), [(False, 16), (False, 24), (True, 16)])
def test_frames_are_those_of_clap_on_the_extractors_features(
    tmp_path: Path, fusion: bool, width: int
) -> None:
    clap = save_clap(tmp_path, fusion, width)
    encoder = build_audio_encoder({"name": "clap", "weights": str(tmp_path)})
    assert encoder.clip_samples == 480_000
    assert encoder.d_audio == 8 * width
    clips = sounds()[[0, 1, 5]]
    frames = encoder(encoder.prepare(clips))
    features = extract(clips, "fusion" if fusion else "rand_trunc")
    with torch.no_grad():
        wanted = clap.audio_model(features, is_longer=torch.zeros(3, 1, dtype=torch.bool))
    assert frames.shape == (3, 32, 8 * width)
    torch.testing.assert_close(frames.mean(dim=1), wanted.pooler_output, atol=1e-3, rtol=1e-3)
    cosine = torch.cosine_similarity(frames.mean(dim=1), wanted.pooler_output)
    assert (cosine > 1 - 1e-6).all()


def test_a_clip_is_the_same_alone_in_a_batch_and_twice(tmp_path: Path) -> None:
    save_clap(tmp_path)
    encoder = build_audio_encoder({"name": "clap", "weights": str(tmp_path)})
    clips = sounds()
    frames = encoder.prepare(clips)
    assert torch.equal(frames, encoder.prepare(clips))
    other = torch.cat([clips[:1], clips[1:] * -3])
    assert torch.equal(encoder.prepare(other)[0], frames[0])
    torch.testing.assert_close(encoder.prepare(clips[1:2])[0], frames[1], atol=1e-5, rtol=1e-5)


def test_training_an_unfrozen_tower_leaves_batch_statistics_alone(tmp_path: Path) -> None:
    save_clap(tmp_path)
    encoder = build_audio_encoder({"name": "clap", "weights": str(tmp_path), "frozen": False})
    encoder.train()
    clips = sounds()[:2]
    features = encoder.prepare(clips)
    assert features.shape == (2, 1, 1001, 64)
    before = encoder.tower.audio_encoder.batch_norm.running_mean.clone()
    encoder(features).sum().backward()
    assert encoder.tower.audio_encoder.patch_embed.proj.weight.grad.abs().sum() > 0
    assert torch.equal(encoder.tower.audio_encoder.batch_norm.running_mean, before)


def test_weights_of_something_else_are_refused(tmp_path: Path, tower: Path) -> None:
    from transformers import ClapFeatureExtractor, ClapModel, ClapTextModelWithProjection

    with pytest.raises(EncoderError, match=r"encoder\.weights"):
        build_audio_encoder({"name": "clap", "weights": str(tower)})
    config = clap_config()
    text = scatter(ClapTextModelWithProjection(config.text_config))
    text.save_pretrained(tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text(config.to_json_string())
    ClapFeatureExtractor().save_pretrained(tmp_path / "text")
    with pytest.raises(EncoderError, match=r"lacks \d+ of the weights of a ClapAudioModel"):
        build_audio_encoder({"name": "clap", "weights": str(tmp_path / "text")})
    save_clap(tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="cannot be loaded"):
        build_audio_encoder({"name": "clap", "weights": str(tmp_path / "cut")})
    save_clap(tmp_path / "fused", fusion=True)
    with pytest.raises(EncoderError, match="with feature fusion"):
        build_audio_encoder(
            {"name": "clap", "weights": str(tmp_path / "fused"), "extractor": "rand_trunc"}
        )
    assert isinstance(ClapModel.from_pretrained(tmp_path / "fused"), ClapModel)


def test_the_text_tower_of_clap_is_its_own(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    clap = save_clap(tmp_path)
    text = build_text_encoder({
        "name": "transformer", "weights": str(tmp_path), "pooling": "projection", "max_tokens": 40,
    })  # fmt: skip
    passages = ["a bare piano", "loud drums and a choir"]
    batch = AutoTokenizer.from_pretrained(tmp_path)(passages, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = clap.get_text_features(**batch).pooler_output
    found = torch.nn.functional.normalize(text(passages), dim=-1)
    assert text.d_text == 24
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_collapsed_text_tower_of_clap_is_refused(tmp_path: Path) -> None:
    """As laion/larger_clap_music was published: any text, the same vector."""
    clap = save_clap(tmp_path)
    with torch.no_grad():
        clap.text_projection.linear2.weight.mul_(1e-3)
        clap.text_projection.linear2.bias.fill_(1.0)
    clap.save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="alike"):
        build_text_encoder({
            "name": "transformer", "weights": str(tmp_path), "pooling": "projection",
            "max_tokens": 40,
        })  # fmt: skip
