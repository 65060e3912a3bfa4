"""Splicing: songs from captioned clips."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from retrieval.data.corpus.pipeline import Recipe, make_corpus
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.splice.features import read_features, tempo_distance
from retrieval.data.corpus.splice.join import join_clips
from retrieval.data.corpus.splice.source import SpliceSource
from retrieval.data.manifest import Caption, Song, read_manifest, write_manifest
from retrieval.errors import ConfigError

RATE = 16_000


def clips(folder: Path, count: int = 24) -> Path:
    """Clips that click at 120 a minute over a tone."""
    songs = []
    for i in range(count):
        time_s = np.arange(6 * RATE) / RATE
        tone = 0.2 * np.sin(2 * np.pi * (220 + 20 * i) * time_s)
        tone[(time_s % 0.5) < 0.02] += 0.5
        path = folder / f"clip{i}.flac"
        write_sound(tone.astype(np.float32), path, RATE, 0)
        caption = Caption(
            f"A click with tone number {i}, steady and plain, sounding again and again."
        )
        group = {"group": f"artist{i // 3}"}
        songs.append(Song(f"clip{i}", path, (caption,), (f"tone {i}", "click"), meta=group))
    write_manifest(songs, folder / "clips.jsonl")
    return folder / "clips.jsonl"


def test_spliced_songs_have_clips_of_one_split_and_say_where_they_are(tmp_path: Path) -> None:
    manifest = clips(tmp_path)
    source = SpliceSource(str(manifest), Rendering((), RATE, "flac"), 12, (2, 4), 0.3, 0.3)
    report = make_corpus(source, Recipe(tmp_path / "out", format="flac"))
    songs = read_manifest(report.manifest)
    splits: dict[str, set[str]] = {}
    for song in songs:
        names = str(song.meta["clips"]).split()
        assert len(names) == len(set(names)) >= 2
        for name in names:
            splits.setdefault(f"artist{int(name[4:]) // 3}", set()).add(str(song.split))
        long, timed = song.captions[:2]
        assert (long.form, timed.form) == ("long", "timed")
        assert {n.change for n in timed.negatives} == {"swap", "boundary"}
        for section in long.sections:
            assert section.text in long.text
        numbers = [int(name[4:]) for name in names]
        assert [f"tone number {i}," in s.text for i, s in zip(numbers, timed.sections, strict=True)]
    assert all(len(found) == 1 for found in splits.values())
    assert len({s for found in splits.values() for s in found}) == 3


def test_joined_clips_keep_their_pulse_and_level() -> None:
    time_s = np.arange(8 * RATE) / RATE
    click = np.where(time_s % 0.5 < 0.02, 0.6, 0.0)
    sounds = [click * gain for gain in (1.0, 0.2, 0.5)]
    features = [read_features(sound.astype(np.float32)) for sound in sounds]
    assert all(f.bpm == pytest.approx(120, rel=0.03) for f in features)
    song, starts = join_clips(sounds, [f.beats_s for f in features], RATE)
    assert starts[0] == 0
    assert all(b > a + 4 for a, b in pairwise(starts))
    onsets = np.flatnonzero((song[1:] > 0.1) & (song[:-1] <= 0.1)) / RATE
    gaps = np.diff(onsets[np.append(True, np.diff(onsets) > 0.1)])
    assert np.abs(gaps / 0.5 - np.round(gaps / 0.5)).max() < 0.1
    assert np.abs(song).max() <= 1


def test_tempo_distance_knows_octaves() -> None:
    assert tempo_distance(60, 120) == pytest.approx(0)
    assert tempo_distance(100, 141.42) == pytest.approx(0.5, abs=0.01)
    assert tempo_distance(0, 90) == 0


def test_too_few_clips_are_one_clear_error(tmp_path: Path) -> None:
    source = SpliceSource(str(clips(tmp_path, 2)), Rendering((), RATE, "flac"), 12, (3, 4))
    with pytest.raises(ConfigError, match=r"2 clips with captions.*expected at least 3"):
        source.entries(1)
