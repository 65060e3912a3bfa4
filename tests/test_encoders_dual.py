from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import MEL
from tiny_audio import save_beats, save_waveform_model, save_whisper, sounds

from retrieval.encoders import build_audio_encoder
from retrieval.encoders.dual import in_step, resample
from retrieval.errors import ConfigError


@pytest.fixture
def halves(tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A waveform model at 8 kHz with 200 frames a second, and BEATs at 16 kHz with 6.2."""
    waves = {"name": "wav2vec2", "weights": str(save_waveform_model(tmp_path / "w")), "clip_s": 1.0}
    beats = {"name": "beats", "weights": str(save_beats(tmp_path / "b.pt")), "clip_s": 1.0}
    return waves, beats


def dual(first: dict[str, Any], second: dict[str, Any], **settings: Any):
    return build_audio_encoder(
        {"name": "dual", "first": first, "second": second, **settings}
    ).eval()


@torch.no_grad()
def test_frames_of_both_lie_side_by_side(halves: tuple[dict, dict]) -> None:
    both = dual(*halves)
    assert (both.sample_rate_hz, both.clip_samples, both.d_audio) == (16_000, 16_000, 32)
    clips = sounds(2, 16_000)
    waves, beats = (build_audio_encoder(settings) for settings in halves)
    found = both(both.prepare(clips))
    assert found.shape == (2, 6, 32)  # as many as BEATs has
    assert torch.allclose(found[..., 16:], beats.prepare(clips), atol=1e-5)
    fast = waves.prepare(resample(clips, 16_000, 8000))
    for t in range(6):  # each the mean of those that it overlaps
        first, last = t * fast.shape[1] // 6, -((-t - 1) * fast.shape[1] // 6)
        assert torch.allclose(found[:, t, :16], fast[:, first:last].mean(1), atol=1e-5)


def test_a_stated_rate_interpolates_the_slower(halves: tuple[dict, dict]) -> None:
    both = dual(*halves, frame_rate_hz=12.0)
    found = both(both.prepare(sounds(1, 16_000)))
    assert found.shape == (1, 12, 32)
    slow = build_audio_encoder(halves[1]).prepare(sounds(1, 16_000))[0].numpy()
    centres, wanted = (np.arange(n) + 0.5 for n in (6, 12))
    for channel in range(16):
        line = np.interp(wanted / 12, centres / 6, slow[:, channel])
        assert np.allclose(found[0, :, 16 + channel], line, atol=1e-5)


def test_in_step_keeps_a_straight_line_straight() -> None:
    centres = ((torch.arange(30) + 0.5) / 30)[None, :, None]
    for count in (30, 10, 6):
        assert torch.allclose(in_step(centres, count)[0, :, 0], (torch.arange(count) + 0.5) / count)
    up = in_step(centres, 60)[0, :, 0]
    assert torch.allclose(up[1:-1], ((torch.arange(60) + 0.5) / 60)[1:-1], atol=1e-6)


def test_resampling_keeps_a_tone_and_the_length() -> None:
    seconds = torch.arange(24_000) / 24_000
    tone = torch.sin(2 * np.pi * 440 * seconds)[None]
    for rate in (16_000, 48_000, 8000, 22_050):
        found = resample(tone, 24_000, rate)
        wanted = torch.sin(2 * np.pi * 440 * torch.arange(rate) / rate)
        assert found.shape == (1, rate)
        assert found.dtype == torch.float32
        inside = slice(rate // 50, -rate // 50)
        assert torch.allclose(found[0, inside], wanted[inside], atol=2e-3)
    alias = torch.sin(2 * np.pi * 6000 * seconds)[None]
    assert resample(alias, 24_000, 8000)[0, 200:-200].abs().max() < 0.01
    assert resample(tone, 24_000, 24_000) is tone


@pytest.mark.parametrize("trained", [(), (0,), (1,), (0, 1)])
def test_either_half_may_be_trained(halves: tuple[dict, dict], trained: tuple[int, ...]) -> None:
    settings = [{**half, "frozen": i not in trained} for i, half in enumerate(halves)]
    settings[0]["layers"] = [1, -1]
    both = dual(*settings)
    frozen = dual({**settings[0], "frozen": True}, {**settings[1], "frozen": True})
    assert both.frozen == (not trained)
    clips = sounds(2, 16_000)
    prepared = both.prepare(clips)
    assert not prepared.requires_grad
    found = both(prepared)
    assert torch.allclose(found, frozen(frozen.prepare(clips)), atol=1e-5)
    both.train()
    assert [part.tower.training for part in both.parts] == [i in trained for i in (0, 1)]
    both(prepared).square().mean().backward()
    moved = {name.split(".")[0] for name, p in both.named_parameters() if p.grad is not None}
    assert moved == {"first"} | {("first", "second")[i] for i in trained}
    assert both.first.mix.grad.abs().max() > 0  # the mix is trained in any case


def test_frozen_holds_for_both_where_it_is_given(halves: tuple[dict, dict]) -> None:
    assert not dual(*halves, frozen=False).frozen
    part = dual({**halves[0], "frozen": False}, halves[1], frozen=True)
    assert part.frozen
    assert not any(p.requires_grad for p in part.parameters())


def test_a_front_end_in_half_precision_and_whisper(tmp_path: Path) -> None:
    """`mel` prepares float16 pictures, at a rate that Whisper's is no multiple of."""
    whisper = {"name": "whisper", "weights": str(save_whisper(tmp_path)), "clip_s": 2.0}
    both = dual(whisper, {**MEL, "sample_rate_hz": 24_000, "hop": 480})
    assert both.sample_rate_hz == 24_000
    assert not both.frozen
    clips = sounds(3, 48_000)
    found = both(both.prepare(clips))
    assert found.shape[-1] == both.d_audio == 16 + 32
    mel = both.second(both.second.prepare(clips))
    assert torch.allclose(found[..., 16:], in_step(mel, found.shape[1]), atol=1e-4)
    assert torch.equal(found, both(both.prepare(clips)))
    assert torch.allclose(both(both.prepare(clips[1:2])), found[1:2], atol=1e-4)


def test_identity_tells_both(halves: tuple[dict, dict], tmp_path: Path) -> None:
    other = {**halves[1], "weights": str(save_beats(tmp_path / "other.pt", seed=5))}
    names = [
        str(dual(*pair, **more).identity())
        for pair, more in (
            (halves, {}),
            (halves[::-1], {}),
            ((halves[0], other), {}),
            (halves, {"frame_rate_hz": 3.0}),
            (halves, {"frozen": False}),
        )
    ]
    assert len(set(names)) == 5
    assert str(dual(*halves).identity()) == names[0]


def test_clips_of_two_lengths_are_refused(halves: tuple[dict, dict]) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.second\.clip_s"):
        dual(halves[0], {**halves[1], "clip_s": 2.0})
    with pytest.raises(ConfigError, match="frame_rate_hz"):
        dual(*halves, frame_rate_hz=0)
