"""``python -m benchmarks.embed_songs``: songs an hour, beside decoding alone and the usual script.

All in one run on the same files, each several times in turns; medians are printed. CLAP has the
size of HTSAT-base and random weights: speed does not depend on them. Where the processor has
instructions for bfloat16, the pipeline is measured in both precisions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from benchmarks.clap_peer import LaionFileLists, UsualScript, ours, save_clap
from benchmarks.limits import count_flops, matrix_rate
from benchmarks.machine import print_machine
from retrieval.audio import clip_starts, load_audio
from retrieval.checkpoint import load_model
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.scan import find_songs
from retrieval.embedder import SongEmbedding
from retrieval.inference import CHUNK_CLIPS, LongplayModel
from retrieval.pipeline.encode import SongEncoder, resolved_precision
from retrieval.pipeline.options import DecodeLimits, EmbedOptions
from retrieval.pipeline.pool import DecodePool
from retrieval.pipeline.stream import Pipeline

Times = dict[str, list[float]]
DECODE, USUAL, LAION = "decode only", "usual script", "laion_clap, a file a clip"


def cut_songs(folder: Path, count: int, seconds: float, out: Path) -> list[Path]:
    """The first seconds of some songs; compressed sound is copied as it is."""
    import av

    paths = [found.path for found in find_songs([folder])][:count]
    cut = []
    for number, path in enumerate(paths):
        target = out / f"{number:03d}-{path.name}"
        with av.open(str(path)) as source, av.open(str(target), "w") as sink:
            sound = source.streams.audio[0]
            copy = sink.add_stream_from_template(sound)
            for packet in source.demux(sound):
                if packet.dts is None or packet.pts * packet.time_base > seconds:
                    break
                packet.stream = copy
                sink.mux(packet)
        cut.append(target)
    return cut


def decode_all(paths: Sequence[Path], rate_hz: int, pool: DecodePool) -> None:
    """Decode songs in as many processes as the pipeline has."""
    for found in [pool.submit(path, rate_hz) for path in paths]:
        found.result()


def embed_all(pipeline: Pipeline, paths: Sequence[Path]) -> list[np.ndarray]:
    """Clip embeddings of every song."""
    found = []
    for path, song in pipeline.embed(paths, lambda path: path):
        if not isinstance(song, SongEmbedding):
            raise RuntimeError(f"{path}: {song}")
        found.append(song.clip_emb)
    return found


def raw_chunk_s(model: LongplayModel, options: EmbedOptions, chunks: int) -> float:
    """Median seconds of the bare network on one chunk of clips whose features are there."""
    encoder = SongEncoder(model, options)
    samples = np.random.default_rng(0).standard_normal(
        CHUNK_CLIPS * model.net.audio.clip_samples, np.float32
    )
    features = encoder.features(0.1 * samples)
    encoder.embed([features])
    times = []
    for _ in range(chunks):
        start = time.perf_counter()
        encoder.embed([features])
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(work: Callable[[], object], name: str, times: Times) -> object:
    """Run once and note how long it took."""
    start = time.perf_counter()
    found = work()
    times[name].append(time.perf_counter() - start)
    return found


def choices(model: LongplayModel, args: argparse.Namespace) -> dict[str, EmbedOptions]:
    """One for each precision that this machine computes in, and the same compiled if asked for."""
    found = {}
    for precision in dict.fromkeys(("float32", resolved_precision("auto", model.device))):
        found[precision] = EmbedOptions(args.workers, precision)
        if args.compile:
            found[f"{precision}, compiled"] = EmbedOptions(args.workers, precision, compiled=True)
    return found


def compare_clap(paths: list[Path], folder: Path, args: argparse.Namespace) -> None:
    """CLAP: decoding, the usual script, laion_clap's call, the pipeline, the bare network."""
    model, usual = ours(save_clap(folder, args.small)), UsualScript(folder)
    times: Times = defaultdict(list)
    laion = None
    if args.laion is not None:
        laion = LaionFileLists(args.laion, paths, folder / "clips")
        laion.embed_all()  # librosa compiles there too
    options = choices(model, args)
    made = {name: Pipeline(model, each) for name, each in options.items()}
    pool = DecodePool(args.workers, DecodeLimits())
    usual.embed(paths[0])  # librosa compiles on its first call
    if args.compile:
        for pipeline in made.values():
            embed_all(pipeline, paths)
    with closing(pool):
        for _ in range(args.rounds):
            measure(lambda: decode_all(paths, model.net.audio.sample_rate_hz, pool), DECODE, times)
            theirs = [measure(lambda p=path: usual.embed(p), "one", times) for path in paths]
            times[USUAL].append(sum(times.pop("one")))
            if laion is not None:
                measure(laion.embed_all, LAION, times)
            for precision, pipeline in made.items():
                found = measure(lambda p=pipeline: embed_all(p, paths), precision, times)
                cosine = min(
                    float((a * b).sum(axis=1).min()) for a, b in zip(found, theirs, strict=True)
                )
                print(f"  {precision}: lowest cosine to the usual script {cosine:.6f}")
    if laion is not None:
        laion.close()
    clips = sum(len(song) for song in theirs)
    table(times, len(paths), [DECODE, USUAL, LAION, *made])
    flops = clips * clap_flops(model)
    for name, pipeline in made.items():
        pipeline.close()
        seconds = statistics.median(times[name])
        raw = raw_chunk_s(model, options[name], args.rounds + 2) * clips / CHUNK_CLIPS
        ratio = statistics.median(times[USUAL]) / seconds
        limit = matrix_rate(model.device, getattr(torch, options[name].precision))
        print(
            f"  {name}: {ratio:.2f} times the usual script, {100 * raw / seconds:.0f} % of "
            f"the bare network's rate ({clips / raw:.2f} clips/s), which is "
            f"{100 * flops / raw / limit:.0f} % of a matrix product's {limit / 1e9:.0f} GFLOP/s; "
            f"4 times would be {100 * 4 * flops / statistics.median(times[USUAL]) / limit:.0f} %"
        )


def clap_flops(model: LongplayModel) -> int:
    """Floating-point operations of the network for one clip."""
    audio = model.net.audio
    silence = np.zeros(audio.clip_samples, np.float32)
    features = SongEncoder(model, EmbedOptions()).features(silence)
    return count_flops(audio, features.chunks[0][:1])


def compare_shipped(paths: list[Path], args: argparse.Namespace) -> None:
    """The shipped model beside decoding alone."""
    model = load_model()
    times: Times = defaultdict(list)
    made = {name: Pipeline(model, each) for name, each in choices(model, args).items()}
    if args.compile:
        for pipeline in made.values():
            embed_all(pipeline, paths)
    with closing(DecodePool(args.workers, DecodeLimits())) as pool:
        for _ in range(args.rounds):
            measure(lambda: decode_all(paths, model.net.audio.sample_rate_hz, pool), DECODE, times)
            for precision, pipeline in made.items():
                measure(lambda p=pipeline: embed_all(p, paths), precision, times)
    table(times, len(paths), [DECODE, *made])
    for precision, pipeline in made.items():
        pipeline.close()
        share = statistics.median(times[DECODE]) / statistics.median(times[precision])
        print(f"  {precision}: {100 * share:.0f} % of the rate of decoding alone")


def table(times: Times, songs: int, names: Sequence[str]) -> None:
    """Median songs an hour of each."""
    for name in names:
        if name in times:
            rate = 3600 * songs / statistics.median(times[name])
            rounds = " ".join(f"{seconds:.1f}" for seconds in times[name])
            print(f"  {name:36} {rate:9,.0f} songs/h   (s: {rounds})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed_songs", description=__doc__)
    demo = demo_manifest().parent / "audio"
    parser.add_argument("--songs", type=Path, default=demo, help="folder (the demo pieces)")
    parser.add_argument("--count", type=int, default=4, help="how many songs (4)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each (60)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--workers", type=int, default=2, help="processes that decode (2)")
    told = "measure torch.compile as well, whose first call is not counted"
    parser.add_argument("--compile", action="store_true", help=told)
    told = (
        "Python of an environment with laion-clap, whose own call is measured as well "
        "(pip install laion-clap pillow 'numpy<2' 'transformers<5')"
    )
    parser.add_argument("--laion", type=Path, metavar="PYTHON", help=told)
    parser.add_argument("--small", action="store_true", help="a small CLAP, to try this out")
    args = parser.parse_args(arguments)
    print_machine("torch", "transformers", "av", "librosa", "numpy")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "songs").mkdir()
        paths = cut_songs(args.songs, args.count, args.seconds, folder / "songs")
        lengths = [len(load_audio(path, 8000)) / 8000 for path in paths]
        clips = sum(len(clip_starts(round(100 * s), 1000)) for s in lengths)
        print(f"{len(paths)} songs, {sum(lengths):.0f} s, {clips} clips of 10 s, "
              f"{torch.get_num_threads()} threads, medians of {args.rounds}")  # fmt: skip
        print("CLAP of HTSAT-base size:")
        compare_clap(paths, folder / "clap", args)
        print("the shipped model:")
        compare_shipped(paths, args)


if __name__ == "__main__":
    main()
