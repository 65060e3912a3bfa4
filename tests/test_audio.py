from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from broken_audio import RATE, tone, write_broken_files, write_good_file
from hypothesis import given
from hypothesis import strategies as st

from retrieval.audio import (
    AudioLimits,
    clip_starts,
    clip_times,
    iter_audio,
    load_audio,
    split_clips,
)
from retrieval.errors import AudioError, AudioLimitError, EmptyAudioError, NotAudioError


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a", "mkv"])
def test_formats_decode_to_the_same_sound(tmp_path: Path, suffix: str) -> None:
    path = write_good_file(tmp_path / f"song.{suffix}", 3.0, seed=1)
    sound = load_audio(path, RATE)
    assert sound.dtype == np.float32
    assert abs(len(sound) - 3 * RATE) < 0.15 * RATE  # codecs pad
    wanted = tone(3.0, seed=1)
    spectra = [np.abs(np.fft.rfft(x[RATE : 2 * RATE])) for x in (sound, wanted)]
    assert np.corrcoef(*spectra)[0, 1] > 0.97
    assert np.array_equal(sound, load_audio(path, RATE))


def test_every_broken_file_gives_its_own_error(tmp_path: Path) -> None:
    expected = write_broken_files(tmp_path)
    assert len(expected) == 20
    found = {}
    for name in expected:
        with pytest.raises(AudioError, match=re.escape(name)) as caught:
            load_audio(tmp_path / name, RATE)
        found[name] = caught.type
    assert found == expected


def test_missing_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.mp3", tmp_path):
        with pytest.raises(NotAudioError, match="expected"):
            load_audio(path, RATE)


def test_limits_hold_while_decoding(tmp_path: Path) -> None:
    path = write_good_file(tmp_path / "a.wav", 4.0)
    with pytest.raises(AudioLimitError, match="longer than 2 s"):
        load_audio(path, RATE, AudioLimits(max_duration_s=2))
    with pytest.raises(AudioLimitError, match="Hz"):
        load_audio(path, RATE, AudioLimits(max_rate_hz=8000))
    assert max(len(block) for block in iter_audio(path, RATE)) < RATE


def test_channels_are_averaged(tmp_path: Path) -> None:
    import soundfile

    left, right = tone(1.0, 1), tone(1.0, 2)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    assert np.allclose(load_audio(tmp_path / "s.wav", RATE), (left + right) / 2, atol=1e-6)


@given(st.integers(1, 500), st.integers(1, 60))
def test_clips_cover_a_song(n_samples: int, clip_samples: int) -> None:
    samples = np.arange(1, n_samples + 1, dtype=np.float32)
    clips, valid = split_clips(samples, clip_samples)
    starts = clip_starts(n_samples, clip_samples)
    times = clip_times(n_samples, clip_samples, 1)
    assert len(clips) == len(starts) == len(times) == max(1, -(-n_samples // clip_samples))
    assert set(clips.ravel()) - {0.0} == set(samples)
    assert (np.diff(starts)[:-1] == clip_samples).all()
    assert times[-1, 1] == n_samples
    assert valid == min(n_samples, clip_samples)
    if n_samples >= clip_samples:
        assert (clips > 0).all()


def test_no_samples_no_clips() -> None:
    with pytest.raises(EmptyAudioError, match="n_samples"):
        clip_starts(0, 10)


@pytest.mark.slow
def test_all_real_recordings_decode(shared_data: Path) -> None:
    files = [
        *(shared_data / "real" / "audio").iterdir(),
        *(shared_data / "freepd" / "audio").iterdir(),
    ]
    assert len(files) == 379
    for file in files:
        assert len(load_audio(file, 11_025)) > 11_025
