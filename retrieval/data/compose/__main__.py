"""``python -m retrieval.data.compose``: songs with captions and times, from seeds."""

from __future__ import annotations

import argparse
import os
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from retrieval.data.compose.caption import make_captions, make_tags
from retrieval.data.compose.patterns import compose
from retrieval.data.compose.plan import Plan, make_plan, reorder
from retrieval.data.compose.render import find_sound_font, synthesize, to_midi, write_opus
from retrieval.data.compose.styles import STYLES
from retrieval.data.manifest import Song, write_manifest
from retrieval.errors import LongplayError

_DEMO_SEED = 900_000
_DEMO = Path(__file__).resolve().parents[1] / "demo"


def describe(plan: Plan, name: str, split: str, folder: Path) -> Song:
    """The manifest line of a piece."""
    key = "C,D flat,D,E flat,E,F,G flat,G,A flat,A,B flat,B".split(",")[plan.tonic]
    return Song(
        id=name,
        audio=folder / "audio" / f"{name}.ogg",
        captions=tuple(make_captions(plan)),
        tags=make_tags(plan),
        split=split,
        licence="CC0-1.0",
        title=f"{plan.style.moods[plan.seed % 3]} {plan.style.name} {plan.seed}".capitalize(),
        meta={
            "genre": plan.style.name,
            "bpm": plan.bpm,
            "key": f"{key} {'minor' if plan.minor else 'major'}",
            "group": f"composed-{plan.seed}",
        },
    )


def render(job: tuple[Plan, Path, str, int]) -> None:
    """Compose and write one piece, unless it is there."""
    plan, path, sound_font, bit_rate = job
    if path.exists():
        return
    seconds = plan.times()[-1][1]
    write_opus(synthesize(to_midi(plan, compose(plan)), seconds, sound_font), path, bit_rate)


def plan_corpus(args: argparse.Namespace) -> list[tuple[Plan, Song]]:
    """Plans and manifest lines of a whole corpus."""
    pieces = []
    for i in range(args.songs):
        seed = args.seed + i
        style = i % len(STYLES) if args.demo else None
        plan = make_plan(seed, args.min_s, args.max_s, style)
        rng = random.Random(f"split {seed}")
        split = "test" if args.demo else "val" if rng.random() < args.val else "train"
        name = f"composed-{seed}"
        pieces.append((plan, describe(plan, name, split, args.out)))
        if not args.demo and rng.random() < 0.25:
            twin = reorder(plan)
            pieces.append((twin, describe(twin, f"{name}-r", split, args.out)))
    return pieces


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    if args.demo:
        args = argparse.Namespace(**{**vars(args), "songs": 16, "seed": _DEMO_SEED, "out": _DEMO})
        args.min_s, args.max_s, args.kbps = 62.0, 92.0, 40
    elif args.out is None:
        print("error: OUT: expected a folder to write to", file=sys.stderr)
        return 2
    try:
        pieces = plan_corpus(args)
        sound_font = find_sound_font(args.sound_font)
        (args.out / "audio").mkdir(parents=True, exist_ok=True)
        jobs = [(plan, song.audio, sound_font, args.kbps * 1000) for plan, song in pieces]
        _render_all(jobs, args.jobs)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    songs = [replace(song, audio=song.audio.absolute()) for _, song in pieces]
    write_manifest(songs, args.out / "manifest.jsonl")
    print(f"{args.out / 'manifest.jsonl'}: {len(songs)} songs")
    return 0


def _render_all(jobs: list[tuple[Plan, Path, str, int]], workers: int) -> None:
    from rich.progress import track

    if workers <= 1:
        for job in track(jobs, "rendering"):
            render(job)
        return
    with ProcessPoolExecutor(workers) as pool:
        for _ in track(pool.map(render, jobs, chunksize=2), "rendering", total=len(jobs)):
            pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.data.compose",
        description="Compose songs from seeds, render them, and caption them with times.",
        epilog="example: python -m retrieval.data.compose corpus --songs 400 --seed 1 --jobs 2",
    )
    parser.add_argument("out", nargs="?", type=Path, help="folder to write to")
    parser.add_argument("--songs", type=int, default=100, help="how many seeds (100)")
    parser.add_argument("--seed", type=int, default=1, help="first seed (1); below 900000")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--min-s", type=float, default=60.0, help="shortest piece, seconds (60)")
    parser.add_argument("--max-s", type=float, default=150.0, help="longest piece, seconds (150)")
    parser.add_argument("--val", type=float, default=0.12, help="share of validation songs (0.12)")
    parser.add_argument("--kbps", type=int, default=48, help="Opus bit rate (48)")
    parser.add_argument("--sound-font", help="General MIDI sound font (.sf2)")
    parser.add_argument("--demo", action="store_true", help="the pieces that ship with the package")
    return parser


if __name__ == "__main__":
    sys.exit(main())
