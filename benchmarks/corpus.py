"""``python -m benchmarks.corpus``: speed, memory and truth of composed corpora."""

from __future__ import annotations

import argparse
import csv
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.machine import print_machine
from retrieval.audio import load_audio
from retrieval.data.corpus.captions.make import make_texts
from retrieval.data.corpus.compose.plan import make_plan
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.piece import Piece
from retrieval.data.corpus.pipeline import Recipe, make_corpus
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.corpus.render.midi import to_midi
from retrieval.data.corpus.render.produce import draw_production, produce
from retrieval.data.corpus.render.settings import make_rendering
from retrieval.data.corpus.render.synth import synthesize
from retrieval.data.corpus.source import ComposeSource
from retrieval.data.manifest import read_manifest

_RATE_HZ = 24_000
_SEED = 500_000  # far from the seeds of corpora
_TOLERANCE = 0.04  # of a tempo, as in the MIREX task
_WITHIN_S = 0.05
_WORD = re.compile(r"[a-z']+")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the corpus builder.")
    parser.add_argument("--songs", type=int, default=100, help="songs for tempo and speed (100)")
    parser.add_argument("--texts", type=int, default=1000, help="songs for the texts (1000)")
    parser.add_argument("--musiccaps", type=Path, help="musiccaps.csv, to compare words with")
    args = parser.parse_args()
    print_machine("numpy", "av", "librosa")
    measure_texts(args.texts, args.musiccaps)
    measure_rendering(min(args.songs, 20))
    measure_boundaries(min(args.songs, 12))
    with tempfile.TemporaryDirectory() as folder:
        manifest = measure_corpus(args.songs, Path(folder))
        measure_tempo(manifest)


def measure_texts(songs: int, musiccaps: Path | None) -> None:
    """Equal captions, instruments named, and how rich the words are."""
    long, short = [], []
    wrong = sections = 0
    for i in range(songs):
        piece = compose(make_plan(_SEED + i), f"song-{i}")
        facts = read_facts(piece)
        texts = make_texts(facts, piece.name)
        long.append(texts.fixed[0].text)
        short.append(texts.shorts[0].text)
        for fact, section in zip(facts.sections, texts.fixed[0].sections, strict=True):
            sections += 1
            wrong += named(section.text, facts.instruments) - set(fact.leaves) != set(
                fact.instruments
            )
    print(f"\ntexts of {songs} composed songs")
    print(f"  equal long captions {songs - len(set(long))}, equal short ones "
          f"{songs - len(set(short))} (before the manifest takes others)")  # fmt: skip
    print(f"  sections whose text names other instruments than their notes: {wrong} of {sections}")
    lengths = [len(text.split()) for text in long]
    print(f"  words of a long caption: median {statistics.median(lengths):.0f}, "
          f"{min(lengths)} to {max(lengths)}")  # fmt: skip
    print_words("long captions", long)
    print_words("short captions", short)
    if musiccaps:
        with musiccaps.open(encoding="utf-8", newline="") as file:
            print_words("MusicCaps", [row["caption"] for row in csv.DictReader(file)])


def named(text: str, instruments: tuple[str, ...]) -> set[str]:
    """Instruments that a text names."""
    found = set()
    for name in sorted(instruments, key=len, reverse=True):
        pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
        if pattern.search(text):
            found.add(name)
            text = pattern.sub(" ", text)
    return found


def print_words(name: str, texts: list[str]) -> None:
    """Type-token ratio over 10,000 words, types in them, and distinct openings of five words."""
    shuffled = random.Random(0).sample(texts, len(texts))
    words = [word for text in shuffled for word in _WORD.findall(text.lower())][:10_000]
    openings = Counter(" ".join(text.lower().split()[:5]) for text in texts)
    print(f"  {name}: {len(set(words))} different words in {len(words)} "
          f"(type-token ratio {len(set(words)) / len(words):.3f}), "
          f"{100 * len(openings) / len(texts):.0f} % of first five words unique")  # fmt: skip


def measure_rendering(songs: int) -> None:
    """Seconds of music a second of one core, by step."""
    rendering = make_rendering()
    steps: Counter[str] = Counter()
    music_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for i in range(songs):
            marks = [("", time.perf_counter())]
            piece = compose(make_plan(_SEED + i), "x")
            make_texts(read_facts(piece), "x")
            marks.append(("composing, captions", time.perf_counter()))
            chain = draw_production(str(i), len(rendering.sound_fonts))
            midi = to_midi(piece, i, chain.looseness)
            font = rendering.sound_fonts[chain.font]
            stereo = synthesize(midi, piece.duration_s, font, _RATE_HZ)
            marks.append(("FluidSynth", time.perf_counter()))
            sound = produce(stereo, _RATE_HZ, chain, 0.0, str(i))
            marks.append(("production", time.perf_counter()))
            write_sound(sound, Path(folder) / "x.mp3", _RATE_HZ, chain.kbps)
            marks.append(("MP3", time.perf_counter()))
            for (_, start), (name, end) in pairwise(marks):
                steps[name] += end - start
            music_s += piece.duration_s
    rate = music_s / sum(steps.values())
    parts = ", ".join(f"{name} {music_s / seconds:.0f}" for name, seconds in steps.items())
    print(f"\nrendering {songs} songs, {music_s / 60:.0f} min, times real time on one core")
    print(f"  all steps {rate:.0f} ({parts})")


def measure_boundaries(songs: int) -> None:
    """When a player that enters is heard, against the section's start, alone and dry."""
    fonts = make_rendering().sound_fonts
    errors = []
    for i in range(songs):
        piece = compose(make_plan(_SEED + i, 60, 120), "x")
        for number, (section, fact) in enumerate(
            zip(piece.sections, read_facts(piece).sections, strict=True)
        ):
            for name in fact.enters if number else ():
                errors.append(entry_error(piece, name, section.start_s, fonts[i % len(fonts)], i))
    inside = sum(abs(e) <= _WITHIN_S for e in errors)
    print(f"\nentries of players in {songs} songs, heard alone: {len(errors)}")
    print(f"  within 50 ms of the boundary: {100 * inside / len(errors):.1f} %; median "
          f"{1000 * statistics.median(errors):+.0f} ms, median size "
          f"{1000 * statistics.median(map(abs, errors)):.0f} ms")  # fmt: skip


def entry_error(piece: Piece, name: str, start_s: float, font: Path, seed: int) -> float:
    """Seconds from a boundary to the first sound of a player, at 2 % of its first second's peak."""
    part = next(p for p in piece.parts if p.instrument == name)
    until = start_s + 2
    notes = tuple(n for n in part.notes if start_s - 0.01 <= n.start_s < until)
    alone = replace(piece, parts=(replace(part, notes=notes),))
    sound = synthesize(to_midi(alone, seed), until, font, _RATE_HZ)
    level = np.abs(sound).max(axis=0)
    from_ = max(0, round((start_s - 0.3) * _RATE_HZ))
    window = level[from_ : round((start_s + 1) * _RATE_HZ)]
    first = int(np.argmax(window > 0.02 * window.max()))
    return (from_ + first) / _RATE_HZ - start_s


def measure_corpus(songs: int, folder: Path) -> Path:
    """Hours of music an hour, with two workers, and what a worker needs."""
    source = ComposeSource(songs, make_rendering())
    began = time.perf_counter()
    report = make_corpus(source, Recipe(folder, seed=_SEED, workers=2))
    wall = time.perf_counter() - began
    music = sum(float(s.meta["duration_s"] or 0) for s in read_manifest(report.manifest))
    python_mb, synth_mb = worker_memory(folder / "long")
    font_mb = max(path.stat().st_size for path in make_rendering().sound_fonts) / 1e6
    print(f"\na corpus of {report.songs} songs, {music / 3600:.1f} h, with 2 workers: {wall:.0f} s")
    hours_min = 100 * 60 * wall / music
    print(f"  {music / wall:.0f} times real time; 100 hours take {hours_min:.0f} min")
    beyond_mb = python_mb + synth_mb - font_mb
    print(f"  memory of a worker: Python {python_mb:.0f} MB, FluidSynth {synth_mb:.0f} MB; "
          f"beyond the sound font of {font_mb:.0f} MB: {beyond_mb:.0f} MB")  # fmt: skip
    return report.manifest


def worker_memory(folder: Path) -> tuple[float, float]:
    """Peak resident memory of a worker and of its FluidSynth, in MB, over eight long songs.

    Read from /proc while the command runs, so on Linux only.
    """
    command = [
        sys.executable, "-m", "retrieval.data.corpus", f"out={folder}", "songs=8", "workers=2",
        f"seed={_SEED}", "corpus.min_s=280", "corpus.max_s=300",
    ]  # fmt: skip
    peak = {"spawn_main": 0.0, "fluidsynth": 0.0}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            for name, memory_mb in descendants(process.pid):
                for kind in peak:
                    if kind in name:
                        peak[kind] = max(peak[kind], memory_mb)
            time.sleep(0.05)
    return peak["spawn_main"], peak["fluidsynth"]


def descendants(root: int) -> list[tuple[str, float]]:
    """Command line and resident MB of every process below one."""
    parents, found = {}, []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int(
                (place / "stat").read_text().rpartition(")")[2].split()[1]
            )
        except (OSError, ValueError):
            continue
    for number in parents:
        above = number
        while above in parents and above != root:
            above = parents[above]
        if above == root and number != root:
            try:
                name = Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                pages = int(Path(f"/proc/{number}/statm").read_text().split()[1])
            except (OSError, ValueError):
                continue
            # A child that has not yet become FluidSynth still has its parent's name and pages.
            found.append((name, pages * resource.getpagesize() / 1e6))
    return found


def measure_tempo(manifest: Path) -> None:
    """How often librosa's estimate of a steady song's tempo is the stated one."""
    import librosa

    songs = [s for s in read_manifest(manifest) if s.meta["steady"]]
    plain = octave = 0
    missed: Counter[str] = Counter()
    for song in songs:
        sound = load_audio(song.audio, 22_050)
        found = float(np.atleast_1d(librosa.feature.tempo(y=sound, sr=22_050))[0])
        ratio = found / float(song.meta["bpm"] or 1)
        plain += abs(ratio - 1) <= _TOLERANCE
        fits = any(abs(ratio / k - 1) <= _TOLERANCE for k in (1, 2, 0.5, 3, 1 / 3))
        octave += fits
        if not fits:
            missed[str(song.meta["genre"])] += 1
    n = len(songs)
    print(f"\ntempo of {n} steady songs by librosa, within 4 %")
    print(f"  {100 * plain / n:.0f} % agree; {100 * octave / n:.0f} % with double, half, triple "
          f"and third allowed; missed: {dict(missed)}")  # fmt: skip


if __name__ == "__main__":
    main()
