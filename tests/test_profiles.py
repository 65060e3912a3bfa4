from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.encoders.mel import MelConfig, MelEncoder
from retrieval.encoders.profiles import WIDTH, Profiles, key_likeness, key_templates
from retrieval.encoders.spectrum import FLOOR, LOWEST_PITCH, Spectrum

RATE_HZ = 24_000
HOP = 480


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    return Spectrum(RATE_HZ, 1024, HOP, 96, 8192, 72)


def hear(spectrum: Spectrum, samples: np.ndarray) -> torch.Tensor:
    picture = spectrum(torch.from_numpy(samples.astype(np.float32))[None]).float()
    return Profiles(HOP / RATE_HZ)(picture[:, :96], spectrum.pitch(picture))[0]


def tones(pitches: list[int], seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return sum(
        np.sin(2 * np.pi * 440 * 2 ** ((p - 69) / 12) * h * time) / h
        for p in pitches
        for h in (1, 2, 3)
    ) / (4 * len(pitches))


def cadence(tonic: int, minor: bool) -> np.ndarray:
    """I IV V I, or i iv V i."""
    third = 3 if minor else 4
    chords = [(0, third), (5, third), (7, 4), (0, third)]
    return np.concatenate(
        [tones([tonic - 12 + r, tonic + r, tonic + r + t, tonic + r + 7], 2.5) for r, t in chords]
    )


@pytest.mark.parametrize("minor", [False, True])
@pytest.mark.parametrize("tonic", [0, 1, 7, 10])
def test_the_key_of_a_cadence_is_the_likeliest(spectrum: Spectrum, tonic: int, minor: bool) -> None:
    found = hear(spectrum, cadence(48 + tonic, minor))
    assert int(found[:24].argmax()) == tonic + 12 * minor
    assert int(found[24:48].argmax()) == tonic + 12 * minor
    assert float(found[24:48].sum()) == pytest.approx(6, abs=1e-4)


def test_keys_are_pearson_correlations() -> None:
    rng = np.random.default_rng(0)
    levels = rng.normal(size=(2, 5, 72)).astype(np.float32)
    found = key_likeness(torch.from_numpy(levels), key_templates())
    major = [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88]
    for i in range(2):
        faintest = np.maximum(levels[i].mean(axis=1), levels[i].max(axis=1) - 1.5)
        above = np.maximum(levels[i] - faintest[:, None], 0).mean(axis=0)
        classes = above[:48].reshape(4, 12).mean(axis=0)
        for tonic in range(12):
            slow = np.corrcoef(classes, np.roll(major, tonic))[0, 1]
            assert float(found[i, tonic]) == pytest.approx(slow, abs=1e-5)


def test_a_semitone_up_is_the_next_key() -> None:
    levels = torch.randn(1, 3, 48, generator=torch.Generator().manual_seed(0))
    levels[..., -1] = levels[..., 35] = levels.min()  # nothing leaves at the top
    here = key_likeness(levels, key_templates())[0]
    there = key_likeness(levels.roll(1, dims=-1), key_templates())[0]
    # The lowest octave's C comes from the highest B: octaves are folded, so nothing is lost.
    torch.testing.assert_close(there[:12], here[:12].roll(1))
    torch.testing.assert_close(there[12:], here[12:].roll(1))


@pytest.mark.parametrize("bpm", [72, 100, 128, 174])
def test_a_beat_repeats_after_its_period(spectrum: Spectrum, bpm: int) -> None:
    rng = np.random.default_rng(0)
    samples = np.zeros(10 * RATE_HZ)
    for beat in np.arange(0.1, 9.8, 60 / bpm):
        start = int(beat * RATE_HZ)
        samples[start : start + 1200] = rng.normal(size=1200) * np.linspace(0.5, 0, 1200)
    tempogram = hear(spectrum, samples)[48:].reshape(2, 62)
    nearest = round(24 * np.log2(bpm / 40))
    # A beat also repeats after two beats and more: only the slower half can be as high.
    assert tempogram[:, nearest].min() > 3
    faster = tempogram[:, nearest + 4 :]
    assert faster.shape[1] == 0 or faster.max() < 0.5 * tempogram[:, nearest].min()


def test_silence_and_loudness(spectrum: Spectrum) -> None:
    assert (hear(spectrum, np.zeros(10 * RATE_HZ))[:24] == 0).all()
    silent = Profiles(0.02)(torch.full((1, 96, 504), FLOOR), torch.full((1, 63, 72), FLOOR))
    assert silent.isfinite().all()
    assert (silent[:, 48:] == 0).all()
    sound = cadence(52, False)
    torch.testing.assert_close(
        hear(spectrum, sound)[:24], hear(spectrum, 0.3 * sound)[:24], atol=0.05, rtol=0
    )


def test_every_frame_has_the_profiles_of_its_clip() -> None:
    torch.manual_seed(0)
    settings = {"widths": (8, 8, 8, 8), "context_layers": 1, "d_audio": 32, "dropout": 0.0}
    plain = MelEncoder(MelConfig(**settings)).eval()
    encoder = MelEncoder(MelConfig(**settings, profiles=True)).eval()
    encoder.load_state_dict(plain.state_dict())  # profiles have no weights
    clips = torch.randn(3, 240_000, generator=torch.Generator().manual_seed(1))
    features = encoder.prepare(clips)
    frames = encoder(features)
    assert encoder.d_audio == frames.shape[-1] == 32 + WIDTH
    assert torch.equal(frames[..., :32], plain(features))
    assert torch.equal(frames[:, 0, 32:], frames[:, -1, 32:])
    alone = encoder(features[1:2])
    torch.testing.assert_close(alone[0, 0, 32:], frames[1, 0, 32:], rtol=0, atol=1e-5)


def test_profiles_are_part_of_a_frozen_encoder_s_identity() -> None:
    settings = {"widths": (8, 8, 8, 8), "context_layers": 1, "d_audio": 32, "frozen": True}
    plain = MelEncoder(MelConfig(**settings))
    encoder = MelEncoder(MelConfig(**settings, profiles=True))
    encoder.load_state_dict(plain.state_dict())
    assert plain.identity() != encoder.identity()


def test_the_lowest_band_is_a_c() -> None:
    assert LOWEST_PITCH % 12 == 0
