"""Every published audio encoder inside a whole network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny import make_net
from tiny_audio import save_beats, sounds, tiny_settings

from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.cache import FeatureCache
from retrieval.data.manifest import Song
from retrieval.encoders import build_audio_encoder
from retrieval.errors import CheckpointError
from retrieval.inference import LongplayModel

CONF = Path(__file__).resolve().parent.parent / "conf"
NAMES = ("whisper", "beats", "ast", "wav2vec2", "muq", "dual")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return tiny_settings(tmp_path_factory.mktemp("towers"))


def with_all(given: Mapping[str, Any], **change: Any) -> dict[str, Any]:
    """Settings with a change to the encoder, or to both encoders of a dual one."""
    if given["name"] != "dual":
        return {**given, **change}
    return {**given, **{n: {**given[n], **change} for n in ("first", "second")}}


@pytest.mark.parametrize("name", NAMES)
def test_songs_are_encoded_alike_again_and_after_a_checkpoint(
    name: str, settings: dict[str, dict[str, Any]], tower: Path, tmp_path: Path
) -> None:
    net = make_net(tower, encoder=with_all(settings[name], layers=[1, -1]))
    model = LongplayModel(net, digest="0" * 64)
    song = sounds(1, int(3.5 * net.audio.clip_samples))[0].numpy()
    found = model.embed_samples(song).clip_emb
    assert found.shape == (4, 32)
    assert np.array_equal(found, model.embed_samples(song).clip_emb)
    clips = torch.from_numpy(song[: 3 * net.audio.clip_samples]).reshape(3, -1)
    frames = net.audio(net.audio.prepare(clips))
    assert torch.equal(frames, net.audio(net.audio.prepare(clips)))
    assert torch.allclose(net.audio(net.audio.prepare(clips[1:2])), frames[1:2], atol=1e-5)
    assert torch.allclose(net.audio(net.audio.prepare(clips.flip(0))).flip(0), frames, atol=1e-5)
    folder = save_checkpoint(net, tmp_path / "c", {}, "")
    held = load_file(folder / "model.safetensors")
    assert not [weight for weight in held if "audio" in weight and "tower." in weight]
    assert [weight for weight in held if weight.startswith("audio.") and weight.endswith("mix")]
    loaded = load_model(folder)
    assert np.allclose(loaded.embed_samples(song).clip_emb, found, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_frames_of_padding_never_count(
    name: str, settings: dict[str, dict[str, Any]], tower: Path
) -> None:
    net = make_net(tower, encoder=settings[name])
    clips = sounds(1, net.audio.clip_samples)
    clips[:, int(0.4 * net.audio.clip_samples) :] = 0
    prepared, filled = net.audio.prepare(clips), torch.tensor([0.4])
    corrupt = prepared.clone()
    corrupt[:, -(-2 * prepared.shape[1] // 5) :] = 999.0
    assert not torch.equal(corrupt, prepared)
    assert torch.equal(net.encode_clips(corrupt, filled), net.encode_clips(prepared, filled))


@pytest.mark.parametrize("name", NAMES)
def test_trained_weights_move_and_lie_in_the_checkpoint(
    name: str, settings: dict[str, dict[str, Any]], tower: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = make_net(tower, captioner=False, encoder=with_all(settings[name], frozen=False))
    frozen = make_net(tower, captioner=False, encoder=settings[name])
    clips = sounds(2, net.audio.clip_samples)
    prepared = net.audio.prepare(clips)
    names = {n for n, p in net.audio.named_parameters() if p.requires_grad}
    assert names
    assert not [n for n, p in frozen.audio.named_parameters() if p.requires_grad]
    net.train()
    net.encode_clips(prepared, torch.ones(2)).square().mean().backward()
    still = {n for n, p in net.audio.named_parameters() if p.requires_grad and p.grad is None}
    assert not still
    with torch.no_grad():
        for p in net.audio.parameters():
            if p.grad is not None:
                p -= 0.1 * p.grad.sign()
    net.eval()
    found = net.audio(prepared)
    loaded = load_model(save_checkpoint(net, tmp_path / "c", {}, "")).net
    assert torch.allclose(loaded.audio(loaded.audio.prepare(clips)), found, atol=1e-6)


def test_a_checkpoint_knows_both_frozen_halves(
    settings: dict[str, dict[str, Any]], tower: Path, tmp_path: Path
) -> None:
    weights = save_beats(tmp_path / "b.pt")
    second = {**settings["beats"], "weights": str(weights)}
    given = {**settings["dual"], "second": second}
    folder = save_checkpoint(make_net(tower, encoder=given), tmp_path / "c", {}, "")
    load_model(folder)
    save_beats(weights, seed=9)
    with pytest.raises(CheckpointError, match="published towers"):
        load_model(folder)


def test_half_of_a_dual_encoder_is_stored_where_it_is_trained(
    settings: dict[str, dict[str, Any]], tower: Path, tmp_path: Path
) -> None:
    given = dict(settings["dual"])
    given["first"] = {**given["first"], "frozen": False}
    folder = save_checkpoint(make_net(tower, encoder=given), tmp_path / "c", {}, "")
    held = load_file(folder / "model.safetensors")
    assert [n for n in held if n.startswith("audio.first.tower.")]
    assert not [n for n in held if n.startswith("audio.second.")]
    load_model(folder)


@pytest.mark.parametrize("trained", [False, True])
def test_a_cached_song_is_the_song(
    trained: bool, settings: dict[str, dict[str, Any]], tower: Path, tmp_path: Path
) -> None:
    from broken_audio import write_good_file

    given = with_all(settings["dual"], layers=[1, -1])
    given["first"] = {**given["first"], "frozen": not trained}
    net = make_net(tower, encoder=given).eval()
    path = write_good_file(tmp_path / "a.wav", 3.3)
    song = FeatureCache(tmp_path / "cache", net).get(Song("a", path, ()))
    again = FeatureCache(tmp_path / "cache", net).get(Song("a", path, ()))
    assert torch.equal(song.prepared(), again.prepared())
    vectors = net.encode_clips(song.prepared(), song.filled)
    assert torch.allclose(
        net.encode_clips(song.prepared([1]), song.filled[:1]), vectors[1:2], atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_config_file_builds_it(name: str, settings: dict[str, dict[str, Any]]) -> None:
    given = settings[name]
    parts = {"": given} if name != "dual" else {f"{n}.": given[n] for n in ("first", "second")}
    overrides = [f"encoder={name}", "data.manifest=none"]
    for part, values in parts.items():
        overrides += [f"encoder.{part}{n}={values[n]}" for n in ("weights", "clip_s")]
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose("train", overrides=overrides)
    encoder = build_audio_encoder(OmegaConf.to_container(cfg.encoder, resolve=True))
    assert encoder.frozen
    assert encoder.identity() == build_audio_encoder(given).identity()


def test_a_half_of_dual_is_exchanged_on_the_command_line() -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose(
            "train",
            overrides=["encoder=dual", "encoder@encoder.second=ast", "encoder.second.clip_s=5.0"],
        )
    assert (cfg.encoder.first.name, cfg.encoder.second.name) == ("whisper", "ast")
    assert cfg.encoder.second.clip_s == 5.0
