from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny import make_net

from retrieval.encoders.keys import KeyHearing
from retrieval.encoders.mel import MelConfig, MelEncoder, degrade, take_stretch
from retrieval.encoders.spectrum import FLOOR, GROUP, LOWEST_PITCH, Spectrum
from retrieval.errors import ConfigError
from retrieval.words import NUMBER_WIDTH, WordEncoder, number_features

RATE_HZ = 24_000


def tone(pitch: float, seconds: float = 10.0) -> torch.Tensor:
    frequency_hz = 440 * 2 ** ((pitch - 69) / 12)
    time = torch.arange(int(seconds * RATE_HZ)) / RATE_HZ
    return torch.sin(2 * math.pi * frequency_hz * time)[None] * 0.5


@pytest.fixture(scope="module")
def spectrum() -> Spectrum:
    return Spectrum(RATE_HZ, 1024, 480, 96, 8192, 72)


@pytest.mark.parametrize("pitch", [38, 57, 69, 70, 100])
def test_every_semitone_has_its_band(spectrum: Spectrum, pitch: int) -> None:
    picture = spectrum(tone(pitch))
    assert picture.shape == (1, 96 + 9, 504)
    levels = spectrum.pitch(picture.float())
    assert levels.shape == (1, 63, 72)
    inner = levels[0, 4:-4]
    assert (inner.argmax(dim=1) == pitch - LOWEST_PITCH).all()


def test_a_tone_is_as_loud_in_both_windows(spectrum: Spectrum) -> None:
    picture = spectrum(tone(81)).float()
    mel = picture[0, :96, 100:400].max()
    pitch = spectrum.pitch(picture)[0, 20:40].max()
    assert abs(float(mel - pitch)) < 0.15  # 3 dB: the two filters are not equally wide


def test_pitch_stands_beside_its_own_time(spectrum: Spectrum) -> None:
    sound = torch.cat([torch.zeros(1, 5 * RATE_HZ), tone(69, 5.0)], dim=1)
    level = spectrum.pitch(spectrum(sound).float())[0, :, 69 - LOWEST_PITCH]
    half = level.max() - 0.3
    first = int((level > half).nonzero()[0])
    assert abs(first - 5.0 / (GROUP * 480 / RATE_HZ)) <= 1.5


def test_silence_is_the_floor(spectrum: Spectrum) -> None:
    picture = spectrum(torch.zeros(1, 10 * RATE_HZ))
    assert (picture == FLOOR).all()


def test_key_hearing_learns_one_key_for_all(spectrum: Spectrum) -> None:
    torch.manual_seed(0)
    key = KeyHearing(24)
    classes = torch.randn(1, 32, 12)
    here, there = key.hear(classes), key.hear(classes.roll(3, dims=2))
    torch.testing.assert_close(here.roll(3, dims=2), there, atol=1e-5, rtol=1e-5)


def test_key_hearing_does_not_depend_on_loudness(spectrum: Spectrum) -> None:
    key = KeyHearing(24)
    chord = spectrum.pitch(spectrum(tone(60) + tone(64) + tone(67)).float())
    torch.testing.assert_close(key(chord + 0.3), key(chord), atol=1e-5, rtol=1e-5)


def test_louder_only_shifts_the_levels(spectrum: Spectrum) -> None:
    sound = tone(64) + 0.1 * torch.randn(1, 240_000, generator=torch.Generator().manual_seed(0))
    loud, soft = (spectrum.pitch(spectrum(sound * g).float())[0, 5:-5] for g in (1.0, 0.25))
    shift = math.log10(0.25) / 2 * 2  # 12 dB, in units of 20 dB
    assert torch.allclose(soft, loud + shift, atol=0.01)


def test_stretches_of_clips_are_whole_groups() -> None:
    prepared = torch.arange(504.0).expand(4, 105, 504)
    filled = torch.tensor([1.0, 1.0, 0.25, 0.9])
    part, now = take_stretch(prepared, filled, 0.5)
    kept = 504 // GROUP // 2 * GROUP
    assert part.shape[:2] == (4, 105)
    assert part.shape[2] in (kept, kept + GROUP)
    start = part[:, 0, 0]
    assert (start % GROUP == 0).all()
    assert start[2] == start[3] == 0
    assert torch.equal(part[:, 0], start[:, None] + torch.arange(part.shape[2]))
    assert now.tolist() == pytest.approx([1, 1, 0.25 * 504 / part.shape[2], 1])
    assert torch.equal(take_stretch(prepared, filled, 1.0)[0], prepared)
    with pytest.raises(ConfigError, match="crop"):
        MelConfig(crop=0)


def test_degraded_clips_are_drawn_from_the_seed_alone() -> None:
    prepared, song = torch.randn(3, 105, 504).half(), torch.tensor([0, 0, 1])
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(degrade(prepared, song, 96))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert (drawn[0] >= FLOOR).all()
    assert drawn[0].dtype == torch.float16


def test_clips_of_a_song_are_degraded_alike() -> None:
    prepared, song = torch.zeros(60, 105, 504).half(), torch.arange(30).repeat_interleave(2)
    torch.manual_seed(0)
    levels = degrade(prepared, song, 96)[:, 96:].float().mean(dim=(1, 2)).reshape(30, 2)
    torch.testing.assert_close(levels[:, 0], levels[:, 1])
    assert levels[:, 0].std() > 0.1
    assert levels.abs().max() <= 0.6 + 1e-3  # 12 dB, in units of 20 dB


def test_a_frozen_encoder_varies_nothing() -> None:
    prepared, filled = torch.randn(2, 63, 8), torch.ones(2)
    encoder = MelEncoder(MelConfig(crop=0.5, frozen=True))
    assert encoder.vary(prepared, filled, torch.tensor([0, 1])) == (prepared, filled)


def test_an_untrained_word_branch_changes_nothing_and_sees_no_padding() -> None:
    torch.manual_seed(0)
    branch = WordEncoder(torch.zeros(30, NUMBER_WIDTH), 16, 8, width=16).eval()
    table = torch.randn(30, 16)
    assert (branch([[1, 2, 3], [4]], table) == 0).all()
    torch.nn.init.normal_(branch.leave.weight)
    together = branch([[1, 2, 3], [4]], table)
    assert torch.allclose(branch([[4]], table)[0], together[1], atol=1e-6)
    assert not torch.allclose(branch([[3, 2, 1]], table)[0], together[0], atol=1e-4)
    branch.train()
    branch.left_out = 1.0
    assert (branch([[1, 2, 3]], table) == 0).all()


def test_a_passage_in_two_texts_is_the_same_passage(tower: Path) -> None:
    net = make_net(tower).eval()
    state = net.encode_texts([["a piano", "drums"], ["a piano", "drums"], ["drums"]])
    assert torch.equal(state.passage_emb[0], state.passage_emb[1])
    assert not torch.allclose(state.passage_emb[2, 0], state.passage_emb[0, 1])


def test_numbers_near_one_another_read_alike() -> None:
    words = ["120", "\u0120120", "\u2581120", "123", "240", "piano", "", "\u00b2", "1234567", "0"]
    found = number_features(words)
    assert found.shape == (len(words), NUMBER_WIDTH)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert (found[5:] == 0).all()
    near, far = (torch.nn.functional.cosine_similarity(found[0], found[i], dim=0) for i in (3, 4))
    assert 0.7 < near < 0.9  # 2.5 % apart
    assert far < near - 0.2
    assert torch.allclose(found[0].square().sum(), torch.tensor(NUMBER_WIDTH / 2))


def test_a_passage_reads_its_numbers(tower: Path) -> None:
    net = make_net(tower).eval()
    assert net.words is not None
    assert net.words.numbers.shape == (len(net.text.word_table()), NUMBER_WIDTH)
    torch.nn.init.normal_(net.words.leave.weight)
    ids = net.text.token_ids("tempo 120")
    before = net.words([ids], net.text.word_table())
    net.words.numbers[ids[-1]] += 1
    assert not torch.allclose(before, net.words([ids], net.text.word_table()))
