"""``python -m benchmarks.embed_gpu``: songs a second on a GPU, and what it waits for.

The limit beside it is a bfloat16 matrix product in the same run. Each song is embedded several
times, for a few of them do not keep a GPU busy; CLAP has the size of HTSAT-base and random
weights: speed does not depend on them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from benchmarks.clap_peer import ours, save_clap
from benchmarks.embed_songs import cut_songs, decode_all
from benchmarks.limits import count_flops, matrix_rate, median_s, wait
from benchmarks.machine import print_machine
from retrieval.checkpoint import load_model
from retrieval.data.demo_catalog import demo_manifest
from retrieval.embedder import SongEmbedding
from retrieval.inference import LongplayModel
from retrieval.pipeline.encode import SongEncoder
from retrieval.pipeline.options import DecodeLimits, EmbedOptions
from retrieval.pipeline.pool import DecodePool
from retrieval.pipeline.stream import Pipeline


def bare_network(model: LongplayModel, samples: np.ndarray) -> None:
    """Clips a second of features and network by themselves, for several sizes of batch."""
    device = model.device
    plain = SongEncoder(model, EmbedOptions())
    song = plain.features(samples)
    flops = count_flops(model.net.audio, song.chunks[0][:1])
    fastest = {kind: matrix_rate(device, getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    clips = len(song)
    front = median_s(lambda: plain.features(samples), device)
    print(f"  {flops / 1e9:.1f} GFLOP a clip; features alone {clips / front:,.0f} clips/s")
    for precision, limit in fastest.items():
        for together in (8, 64, 256):
            encoder = SongEncoder(model, EmbedOptions(precision=precision, together=together))
            songs = [encoder.features(samples)] * -(-2 * together // clips)
            seconds = median_s(lambda e=encoder, s=songs: e.embed(s), device)  # type: ignore[misc]
            rate = len(songs) * clips / seconds
            print(
                f"  {precision}, {together} clips together: {rate:,.0f} clips/s, "
                f"{100 * rate * flops / limit:.0f} % of {limit / 1e12:.1f} TFLOP/s"
            )


def closeness(model: LongplayModel, paths: Sequence[Path]) -> None:
    """bfloat16 against float32 on the same songs."""
    found = {}
    for precision in ("float32", "bfloat16"):
        with closing(Pipeline(model, EmbedOptions(2, precision))) as pipeline:
            songs = [song for _, song in pipeline.embed(paths, lambda path: path)]
        found[precision] = [s.clip_emb for s in songs if isinstance(s, SongEmbedding)]
    cosines = [(a * b).sum(axis=1) for a, b in zip(*found.values(), strict=True)]
    print(f"  bfloat16: lowest cosine to float32 {min(c.min() for c in cosines):.6f}, "
          f"mean {np.concatenate(cosines).mean():.6f}")  # fmt: skip


class Watched:
    """Adds up how long the network and the features take inside a pipeline."""

    def __init__(self, encoder: SongEncoder):
        self.seconds = {"embed": 0.0, "features": 0.0}
        for name in self.seconds:
            setattr(encoder, name, self._timed(name, getattr(encoder, name), encoder.device))

    def _timed(
        self, name: str, work: Callable[..., object], device: torch.device
    ) -> Callable[..., object]:
        def run(*args: object) -> object:
            start = time.perf_counter()
            found = work(*args)
            wait(device)
            self.seconds[name] += time.perf_counter() - start
            return found

        return run


def whole_pipeline(model: LongplayModel, paths: list[Path], workers: int) -> None:
    """Decode, features and network at once, beside decoding alone with as many processes."""
    with closing(DecodePool(workers, DecodeLimits())) as pool:
        decode_all(paths[: 2 * workers], model.net.audio.sample_rate_hz, pool)
        start = time.perf_counter()
        decode_all(paths, model.net.audio.sample_rate_hz, pool)
        floor = time.perf_counter() - start
    with closing(Pipeline(model, EmbedOptions(workers, "auto"))) as pipeline:
        list(pipeline.embed(paths[: 2 * workers], lambda path: path))
        watched = Watched(pipeline.encoder)
        start = time.perf_counter()
        clips = sum(
            len(song.clip_emb)
            for _, song in pipeline.embed(paths, lambda path: path)
            if isinstance(song, SongEmbedding)
        )
        seconds = time.perf_counter() - start
    shares = {name: 100 * spent / seconds for name, spent in watched.seconds.items()}
    print(
        f"  {workers:2} processes decode: {len(paths) / seconds:.2f} songs/s "
        f"({clips / seconds:,.0f} clips/s), {100 * floor / seconds:.0f} % of decoding alone; "
        f"the network waits {100 - shares['embed']:.0f} % of the time, "
        f"features take {shares['features']:.0f} %"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embed_gpu", description=__doc__)
    demo = demo_manifest().parent / "audio"
    parser.add_argument("--songs", type=Path, default=demo, help="folder (the demo pieces)")
    parser.add_argument("--count", type=int, default=4, help="how many songs (4)")
    parser.add_argument("--seconds", type=float, default=180.0, help="of each (180)")
    parser.add_argument("--times", type=int, default=16, help="how often each is embedded (16)")
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 16],
                        help="processes that decode (4 8 16)")  # fmt: skip
    parser.add_argument("--checkpoint", help="a checkpoint (the shipped one)")
    parser.add_argument("--device", default="cuda", help="torch device (cuda)")
    parser.add_argument("--small", action="store_true", help="a small CLAP, to try this out")
    args = parser.parse_args(arguments)
    device = torch.device(args.device)
    print_machine("torch", "transformers", "av", "numpy")
    print(torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "songs").mkdir()
        cut = cut_songs(args.songs, args.count, args.seconds, folder / "songs")
        shipped = load_model(args.checkpoint, args.device)
        clap = ours(save_clap(folder / "clap", args.small))
        clap.net.to(device)
        for title, model in (("the shipped model", shipped), ("CLAP of HTSAT-base size", clap)):
            print(f"{title}:")
            rate_hz = model.net.audio.sample_rate_hz
            noise = np.random.default_rng(0).standard_normal(160 * rate_hz, np.float32)
            bare_network(model, 0.1 * noise)
            closeness(model, cut)
            for workers in args.workers:
                whole_pipeline(model, cut * args.times, workers)


if __name__ == "__main__":
    main()
