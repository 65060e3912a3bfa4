"""Sound, files and the pipeline: rendering, resuming, splits, broken sources."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hydra import compose as compose_config
from hydra import initialize_config_dir
from hydra.utils import instantiate

from retrieval.audio import load_audio
from retrieval.data.corpus.arrange.sources import name_of
from retrieval.data.corpus.captions.make import Texts
from retrieval.data.corpus.compose.plan import make_plan
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.pipeline import Recipe, Result, draw_split, make_corpus
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.corpus.render.produce import Production, draw_production, produce
from retrieval.data.corpus.render.settings import make_rendering
from retrieval.data.corpus.render.song import render_piece
from retrieval.data.corpus.render.synth import SOUND_FONTS, find_sound_fonts, find_synth
from retrieval.data.corpus.source import ComposeSource, Entry, Made
from retrieval.data.manifest import Caption, read_manifest
from retrieval.errors import AudioError, ComposeError, ConfigError

ROOT = Path(__file__).resolve().parents[1]
HAS_SYNTH = shutil.which("fluidsynth") and any(Path(p).exists() for p in SOUND_FONTS)
needs_synth = pytest.mark.skipif(not HAS_SYNTH, reason="FluidSynth or its sound font is missing")
RATE = 24_000
DRY = Production(0, 0.0, 0.0, 0.0, 0, 0, 1.0, 0.0, -120.0, 0, 96, -1.0)


@dataclass(frozen=True)
class ToneSource:
    """Songs that are a tone; some fail, as a broken file would."""

    songs: int = 12
    broken: tuple[int, ...] = ()
    slow_s: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)
    queries: int = 0

    def entries(self, seed: int) -> list[Entry]:
        return [Entry(f"tone-{i}", f"group-{i // 2}", number=i) for i in range(self.songs)]

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        if entry.number in self.broken:
            raise AudioError(f"{entry.name}: broken on purpose")
        time.sleep(self.slow_s)
        tone = 0.3 * np.sin(np.arange(RATE) * 0.05 * (entry.number + 1)).astype(np.float32)
        write_sound(tone, audio, RATE, 64)
        same = Caption("the same words for every song", "generated", (), "short")
        own = Caption(f"words for song {entry.number}", "generated", (), "short")
        asked = tuple(
            Caption(f"query {i} for song {entry.number}", form="query") for i in range(self.queries)
        )
        return Made(Texts((), (same, own), asked, ("tone",)), entry.name, "CC0-1.0")


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_corpus_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 3)):
        make_corpus(ToneSource(), Recipe(tmp_path / name, workers=workers))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_held_out_songs_alone_are_those_of_the_whole_corpus(tmp_path: Path) -> None:
    shares = {"val": 0.2, "test": 0.4}
    whole = make_corpus(ToneSource(), Recipe(tmp_path / "whole", **shares))
    part = make_corpus(ToneSource(), Recipe(tmp_path / "part", splits=("test",), **shares))
    wanted = [song.id for song in read_manifest(whole.manifest) if song.split == "test"]
    assert [song.id for song in read_manifest(part.manifest)] == wanted
    assert 0 < len(wanted) < whole.songs
    with pytest.raises(ConfigError, match="splits"):
        Recipe(tmp_path, splits=("tests",))


def test_no_text_is_used_for_two_songs(tmp_path: Path) -> None:
    report = make_corpus(ToneSource(), Recipe(tmp_path))
    texts = [c.text for song in read_manifest(report.manifest) for c in song.captions]
    assert len(texts) == len(set(texts)) == 12
    assert texts[0] == "the same words for every song"


def test_a_song_has_as_many_queries_as_are_asked_for(tmp_path: Path) -> None:
    source = ToneSource(songs=2, queries=9)
    for wanted, expected in ((None, 6), (0, 0), (8, 8), (40, 9)):
        given = {} if wanted is None else {"queries": wanted}
        report = make_corpus(source, Recipe(tmp_path, **given))
        for song in read_manifest(report.manifest):
            own = [c.text for c in song.captions if c.form == "query"]
            assert own == [f"query {i} for song {song.id[5:]}" for i in range(expected)]


def test_a_broken_source_file_is_skipped_and_named(tmp_path: Path) -> None:
    seen: list[Result] = []
    report = make_corpus(ToneSource(broken=(3, 7)), Recipe(tmp_path), lambda r, n: seen.append(r))
    assert report.songs == 10
    assert [r.entry.name for r in report.skipped] == ["tone-3", "tone-7"]
    assert "broken on purpose" in report.skipped[0].error
    assert len(seen) == 12
    with pytest.raises(ComposeError, match=r"not one of 2 songs.*broken on purpose"):
        make_corpus(ToneSource(songs=2, broken=(0, 1)), Recipe(tmp_path / "none"))


def test_a_second_run_makes_nothing_twice_and_mends_what_is_damaged(tmp_path: Path) -> None:
    report = make_corpus(ToneSource(), Recipe(tmp_path))
    before = files(tmp_path)
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "audio").iterdir()}
    (tmp_path / "songs" / "tone-4.json").write_text("{")
    (tmp_path / "audio" / "tone-5.mp3").unlink()
    make_corpus(ToneSource(), Recipe(tmp_path))
    assert files(tmp_path) == before
    changed = {
        p.name for p in (tmp_path / "audio").iterdir() if p.stat().st_mtime_ns != times[p.name]
    }
    assert changed == {"tone-4.mp3", "tone-5.mp3"}
    more = make_corpus(ToneSource(songs=14), Recipe(tmp_path))
    assert more.songs == report.songs + 2
    # Another seed is another recipe: everything is made anew.
    make_corpus(ToneSource(), Recipe(tmp_path, seed=2))
    assert (
        json.loads((tmp_path / "songs" / "tone-0.json").read_text())["recipe"]
        != json.loads(before["tone-0.json"])["recipe"]
    )


def test_songs_that_share_a_group_share_a_split(tmp_path: Path) -> None:
    report = make_corpus(ToneSource(songs=60), Recipe(tmp_path, val=0.3, test=0.3))
    songs = read_manifest(report.manifest)
    assert {s.split for s in songs} == {"train", "val", "test"}
    for a, b in zip(songs[::2], songs[1::2], strict=True):
        assert a.split == b.split


def test_splits_have_their_shares_and_depend_on_the_group_alone() -> None:
    splits = [draw_split(f"g{i}", 1, 0.1, 0.2) for i in range(5000)]
    assert splits.count("val") == pytest.approx(500, abs=80)
    assert splits.count("test") == pytest.approx(1000, abs=110)
    assert [draw_split(f"g{i}", 1, 0.1, 0.2) for i in range(100)] == splits[:100]


def test_sigkill_loses_nothing_and_leaves_no_broken_file(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from test_corpus_render import ToneSource;"
        "from retrieval.data.corpus.pipeline import Recipe, make_corpus;"
        f"make_corpus(ToneSource(slow_s=0.05), Recipe(Path({str(tmp_path / 'killed')!r})))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.Popen([sys.executable, "-c", code], env=env)
    records = tmp_path / "killed" / "songs"
    limit = time.monotonic() + 60
    while len(list(records.glob("tone-*.json"))) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "manifest.jsonl").exists()
    for path in (tmp_path / "killed" / "audio").glob("tone-*"):
        assert len(load_audio(path, RATE)) > 0.9 * RATE
    make_corpus(ToneSource(slow_s=0.05), Recipe(tmp_path / "killed"))
    make_corpus(ToneSource(slow_s=0.05), Recipe(tmp_path / "whole"))
    whole = files(tmp_path / "whole")
    assert {n: b for n, b in files(tmp_path / "killed").items() if n in whole} == whole


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from test_corpus_render import ToneSource;"
        "from retrieval.data.corpus.pipeline import Recipe, make_corpus\n"
        "if __name__ == '__main__':\n"
        "    source = ToneSource(songs=400, slow_s=0.1)\n"
        f"    make_corpus(source, Recipe(Path({str(tmp_path)!r}), workers=2))"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    process = subprocess.Popen([sys.executable, str(script)], env=env)
    limit = time.monotonic() + 60
    while len(list((tmp_path / "songs").glob("tone-*.json"))) < 4 and time.monotonic() < limit:
        time.sleep(0.02)
    children = children_of(process.pid)
    assert len(children) >= 2
    (tmp_path / "audio" / f".left.mp3.{process.pid}.tmp").write_bytes(b"half")
    process.kill()
    process.wait()
    while any(map(is_running, children)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(is_running, children))
    make_corpus(ToneSource(songs=4), Recipe(tmp_path))
    assert not list((tmp_path / "audio").glob(".*.tmp"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_leftovers_of_a_process_that_nobody_waited_for_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    running = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    limit = time.monotonic() + 60
    while is_running(ended.pid) and time.monotonic() < limit:
        time.sleep(0.01)
    for process in (ended, running):
        (tmp_path / "audio" / f".tone-1.mp3.{process.pid}.tmp").write_bytes(b"half")
    make_corpus(ToneSource(songs=1), Recipe(tmp_path))
    left = [path.name for path in (tmp_path / "audio").glob(".*.tmp")]
    assert left == [f".tone-1.mp3.{running.pid}.tmp"]
    running.communicate()
    ended.wait()


def children_of(process: int) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process and b"spawn_main" in (place / "cmdline").read_bytes():
            found.append(int(place.name))
    return found


def is_running(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_production_keeps_length_and_level_and_is_a_function_of_its_seed() -> None:
    rng = np.random.default_rng(0)
    stereo = rng.standard_normal((2, 5 * RATE)).astype(np.float32) * 0.1
    seen = set()
    for seed in range(60):
        chain = draw_production(str(seed), 2)
        assert chain == draw_production(str(seed), 2)
        sound = produce(stereo, RATE, chain, 1.0, str(seed))
        assert sound.dtype == np.float32
        assert len(sound) == stereo.shape[1]
        assert 20 * np.log10(np.abs(sound).max()) == pytest.approx(chain.peak_db, abs=0.01)
        assert np.array_equal(sound, produce(stereo, RATE, chain, 1.0, str(seed)))
        seen |= {
            ("font", chain.font),
            ("cut", chain.low_pass_hz > 0),
            ("wet", chain.reverb_mix > 0),
        }
    assert len(seen) == 6


def test_low_pass_and_fade_do_what_they_say() -> None:
    rng = np.random.default_rng(1)
    stereo = rng.standard_normal((2, 4 * RATE)).astype(np.float32)
    cut = produce(stereo, RATE, replace(DRY, low_pass_hz=4000), 0.0, "s")
    power = np.abs(np.fft.rfft(cut)) ** 2
    hertz = np.fft.rfftfreq(len(cut), 1 / RATE)
    assert power[hertz > 6000].sum() < 1e-3 * power[hertz < 4000].sum()
    faded = produce(stereo, RATE, DRY, 2.0, "s")
    assert np.abs(faded[-RATE // 10 :]).max() < 0.02 * np.abs(faded).max()


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "flac"])
def test_files_hold_what_was_written(tmp_path: Path, suffix: str) -> None:
    time_s = np.arange(3 * RATE) / RATE
    tone = (0.4 * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)
    path = tmp_path / f"x.{suffix}"
    write_sound(tone, path, RATE, 64)
    heard = load_audio(path, RATE)
    assert len(heard) == pytest.approx(len(tone), abs=0.06 * RATE)
    power = np.abs(np.fft.rfft(heard[: 2 * RATE]))
    assert np.argmax(power) / 2 == pytest.approx(440, abs=1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bad_settings_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ComposeError, match="expected one of mp3"):
        write_sound(np.zeros(10, np.float32), tmp_path / "x.wma", RATE, 64)
    with pytest.raises(ComposeError, match=r"rate_hz: 44100.*Opus"):
        write_sound(np.zeros(10, np.float32), tmp_path / "x.ogg", 44_100, 64)
    with pytest.raises(ConfigError, match=r"render.format: 'wma'"):
        make_rendering(format="wma")
    with pytest.raises(ComposeError, match=r"sound font: .*no.sf2 not found"):
        find_sound_fonts([tmp_path / "no.sf2"])


def test_without_fluidsynth_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ComposeError, match="apt install fluidsynth"):
        find_synth()


@pytest.mark.parametrize("name", ["compose", "arrange", "pop909", "billboard", "splice"])
def test_every_corpus_config_composes(name: str) -> None:
    overrides = [f"corpus={name}"]
    if name != "compose":
        overrides.append("corpus.manifest=x" if name == "splice" else "corpus.folder=x")
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose_config("corpus", overrides)
    if HAS_SYNTH:
        assert hasattr(instantiate(cfg.corpus, _convert_="object"), "entries")


def test_names_of_files_are_safe_and_unique(tmp_path: Path) -> None:
    paths = [tmp_path / n for n in ("a b.mid", "a-b.mid", "sub/a-b.mid", "ä.mid")]
    names = [name_of(p, tmp_path) for p in paths]
    assert len(set(names)) == 4
    assert all("/" not in n and " " not in n for n in names)


@needs_synth
def test_a_section_of_few_players_is_softer_in_the_file(tmp_path: Path) -> None:
    """Render a real song and hear that the fullest section is louder than the barest."""
    piece = compose(make_plan(3, 60, 70), "x")
    rendering = make_rendering(produced=False)
    render_piece(piece, rendering, tmp_path / "x.flac", "s")
    sound = load_audio(tmp_path / "x.flac", RATE)
    level = [
        float(np.sqrt(np.mean(sound[int(s.start_s * RATE) : int(s.end_s * RATE)] ** 2)))
        for s in piece.sections
    ]
    plan = make_plan(3, 60, 70)
    energy = [s.energy for s in plan.sections]
    assert level[energy.index(max(energy))] > 1.5 * level[energy.index(min(energy))]


@needs_synth
@pytest.mark.slow
def test_a_composed_corpus_is_repeatable_and_facts_are_those_of_the_notes(tmp_path: Path) -> None:
    source = ComposeSource(4, make_rendering(), 60, 70, twins=0.5)
    for name in ("a", "b"):
        make_corpus(source, Recipe(tmp_path / name, workers=2))
    assert files(tmp_path / "a") == files(tmp_path / "b")
    songs = read_manifest(tmp_path / "a" / "manifest.jsonl")
    assert len(songs) == 6
    for song in songs:
        assert {"long", "timed", "short", "query"} <= {c.form for c in song.captions}
        end = song.captions[0].sections[-1].end_s
        heard = len(load_audio(song.audio, RATE)) / RATE
        assert end - 0.1 <= heard <= end + 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["corpus=arrange"], "corpus.folder: not given"),
        (["corpus=arrange", "corpus.folder=/nowhere"], "/nowhere is no folder"),
        (["render.format=wma"], "render.format: 'wma', expected one of mp3"),
        (["render.sound_fonts=[/no.sf2]"], "/no.sf2 not found"),
        (["corpus.min_s=500"], "min_s, max_s: 500"),
        (["queries=41"], "queries: got 41, expected 0 to 40"),
        (["corpus.styles=[polka]"], "styles: 'polka'"),
    ],
)
@needs_synth
def test_wrong_settings_are_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    command = [sys.executable, "-m", "retrieval.data.corpus", f"out={tmp_path}", "songs=1"]
    done = subprocess.run([*command, "workers=1", *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
