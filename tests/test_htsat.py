from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tiny_clap import clap_config, save_clap, scatter, sounds
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from retrieval.encoders import build_audio_encoder
from retrieval.encoders.clap import HtsatEncoder
from retrieval.encoders.clap_features import LogMelSettings
from retrieval.encoders.htsat import divides, hidden_states
from retrieval.precision import lowered


def tower_of(fusion: bool = False, **changes: Any) -> Any:
    from transformers import ClapAudioModel

    config = clap_config(fusion=fusion).audio_config
    for name, value in {"depths": [2, 3, 2, 2], **changes}.items():
        setattr(config, name, value)
    return scatter(ClapAudioModel(config))


def as_published(tower: Any, features: torch.Tensor) -> torch.Tensor:
    is_longer = torch.zeros(len(features), 1, dtype=torch.bool)
    return tower(input_features=features, is_longer=is_longer).last_hidden_state


@pytest.mark.parametrize("fusion", [False, True])
@pytest.mark.parametrize("window", [4, 8])
def test_hidden_states_are_those_of_transformers(fusion: bool, window: int) -> None:
    tower = tower_of(fusion, window_size=window)
    features = 20 * torch.randn(3, 1, 1001, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = as_published(tower, features)
        assert divides(tower.audio_encoder)
        found = hidden_states(tower.audio_encoder, features)
        alone = hidden_states(tower.audio_encoder, features[1:2])
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(alone[0], wanted[1], atol=1e-4, rtol=1e-4)
    assert (wanted[0] - wanted[1]).abs().max() > 0.1  # so that the comparison says something


def test_weights_get_the_gradients_of_transformers() -> None:
    ours, theirs = tower_of().double(), tower_of().double()
    generator = torch.Generator().manual_seed(1)
    features = 20 * torch.randn(2, 1, 1001, 64, generator=generator, dtype=torch.float64)
    hidden_states(ours.audio_encoder, features).square().sum().backward()
    as_published(theirs, features).square().sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if b.grad is None:
            assert a.grad is None, name
            continue
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, atol=1e-8, rtol=1e-6)


def test_windows_that_do_not_divide_the_image_are_left_to_transformers() -> None:
    tower = tower_of(window_size=7)
    assert not divides(tower.audio_encoder)
    encoder = HtsatEncoder(tower, 128, LogMelSettings(), frozen=True)
    features = encoder.front_end(sounds()[:2])
    with torch.no_grad():
        wanted = as_published(tower, features).mean(dim=2).transpose(1, 2)
        assert torch.equal(encoder.encode(features), wanted)


@pytest.mark.parametrize("where", ["hidden_dropout_prob", "drop_path_rate"])
def test_an_unfrozen_tower_in_training_keeps_its_dropout(where: str) -> None:
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    tower = tower_of(**{**off, where: 0.5})
    encoder = HtsatEncoder(tower, 128, LogMelSettings(), frozen=False)
    features = encoder.front_end(sounds()[:1])
    encoder.train()
    with torch.no_grad():
        assert not torch.equal(encoder.encode(features), encoder.encode(features))
        encoder.eval()
        assert torch.equal(encoder.encode(features), encoder.encode(features))


@pytest.mark.parametrize("kind", ["clap", "mel"])
def test_lowered_weights_are_what_autocast_makes_of_them(kind: str, tmp_path: Any) -> None:
    if kind == "clap":
        save_clap(tmp_path)
        encoder = build_audio_encoder({"name": "clap", "weights": str(tmp_path)})
    else:
        settings = {"widths": [8, 16, 16, 24], "d_audio": 32, "key": True, "profiles": True}
        encoder = build_audio_encoder({"name": "mel", **settings})
    encoder.eval()
    before = copy.deepcopy(encoder.state_dict())
    features = encoder.front_end(0.1 * torch.randn(2, encoder.clip_samples))
    low = lowered(encoder)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low.encode(features), encoder.encode(features))
    kept = {name: tensor.dtype for name, tensor in low.state_dict().items()}
    assert torch.bfloat16 in kept.values()
    assert all(torch.equal(before[name], each) for name, each in encoder.state_dict().items())
    assert not any("norm" in name for name, dtype in kept.items() if dtype == torch.bfloat16)


def test_parametrised_weights_stay_in_float32() -> None:
    net = nn.Sequential(weight_norm(nn.Conv1d(4, 4, 3)), nn.Conv1d(4, 4, 3))
    low = lowered(net)
    assert low[0].weight.dtype == torch.float32
    assert low[1].weight.dtype == torch.bfloat16
