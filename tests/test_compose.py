from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from retrieval.audio import load_audio
from retrieval.data.compose.__main__ import main
from retrieval.data.compose.caption import make_captions
from retrieval.data.compose.patterns import compose
from retrieval.data.compose.plan import make_plan, reorder
from retrieval.data.compose.render import _SOUND_FONTS, to_midi
from retrieval.data.compose.styles import STYLES
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.manifest import read_manifest

HAS_SYNTH = shutil.which("fluidsynth") and any(Path(p).exists() for p in _SOUND_FONTS)


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_a_piece_is_a_function_of_its_seed(style: int) -> None:
    a, b, other = (make_plan(seed, 60, 120, style) for seed in (5, 5, 6))
    assert a == b
    midi = to_midi(a, compose(a))
    assert midi == to_midi(b, compose(b))
    assert midi != to_midi(other, compose(other))
    assert make_captions(a) == make_captions(b)


@pytest.mark.parametrize("seed", range(30))
def test_captions_say_when_and_the_notes_agree(seed: int) -> None:
    plan = make_plan(seed, 60, 150)
    long = make_captions(plan)[0]
    times = plan.times()
    assert 30 < times[-1][1] < 240
    assert len(long.sections) == len(plan.sections)
    rest = long.text
    for section, (start, end) in zip(long.sections, times, strict=True):
        assert (section.start_s, section.end_s) == (round(start, 2), round(end, 2))
        assert section.text in rest  # in this order, word for word
        rest = rest.split(section.text, 1)[1]
    beat_s = 60 / plan.bpm
    notes = compose(plan)
    for section, (start, end) in zip(plan.sections, times, strict=True):
        inside = {n.role for n in notes if start - 1e-6 <= n.start * beat_s < end - 0.3}
        assert inside == set(section.roles), section.kind


def test_twins_differ_in_order_only() -> None:
    for seed in range(20):
        plan = make_plan(seed, 60, 120)
        twin = reorder(plan)
        assert twin.sections != plan.sections
        assert sorted(map(str, twin.sections)) == sorted(map(str, plan.sections))
        assert make_captions(twin)[0].text != make_captions(plan)[0].text


def test_the_shipped_pieces_are_described_as_their_files_are() -> None:
    songs = read_manifest(demo_manifest())
    assert len(songs) == 16
    assert {song.licence for song in songs} == {"CC0-1.0"}
    for song in songs:
        last = song.captions[0].sections[-1].end_s
        heard = len(load_audio(song.audio, 8000)) / 8000
        assert last <= heard < last + 2.5


def test_without_a_sound_font_the_error_says_what_to_install(tmp_path: Path, capsys) -> None:
    code = main([str(tmp_path / "out"), "--songs", "1", "--sound-font", str(tmp_path / "no.sf2")])
    assert code == 2
    assert "apt install fluidsynth" in capsys.readouterr().err


@pytest.mark.skipif(not HAS_SYNTH, reason="FluidSynth or its sound font is not installed")
def test_rendering_is_repeatable_goes_on_and_is_loud_where_it_says(tmp_path: Path) -> None:
    arguments = ["--songs", "1", "--seed", "3", "--min-s", "30", "--max-s", "40", "--jobs", "1"]
    assert main([str(tmp_path / "a"), *arguments]) == 0
    assert main([str(tmp_path / "b"), *arguments]) == 0
    song = read_manifest(tmp_path / "a" / "manifest.jsonl")[0]
    sound = load_audio(song.audio, 16_000)
    other = read_manifest(tmp_path / "b" / "manifest.jsonl")[0]
    assert np.array_equal(sound, load_audio(other.audio, 16_000))
    before = song.audio.stat().st_mtime_ns
    assert main([str(tmp_path / "a"), *arguments]) == 0  # nothing is rendered twice
    assert song.audio.stat().st_mtime_ns == before
    plan = make_plan(3, 30, 40)
    level = [
        float(np.sqrt(np.mean(sound[int(16_000 * s) : int(16_000 * e)] ** 2)))
        for s, e in plan.times()
    ]
    loudest = max(range(len(level)), key=lambda i: plan.sections[i].loudness)
    softest = min(range(len(level)), key=lambda i: plan.sections[i].loudness)
    assert level[loudest] > 1.3 * level[softest]
