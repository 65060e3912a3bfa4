"""The shipped model in bfloat16, and the command line killed in the middle; both take a while."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from broken_audio import write_good_file
from tiny import make_net

from retrieval.audio import load_audio
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.manifest import read_manifest
from retrieval.pipeline.encode import SongEncoder
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.shards import RUN, read_clips, read_rows, verify

pytestmark = pytest.mark.slow


def test_bfloat16_finds_the_same_songs() -> None:
    model = load_model()
    rate_hz = model.net.audio.sample_rate_hz
    encoders = [SongEncoder(model, EmbedOptions(precision=p)) for p in ("float32", "bfloat16")]
    songs: list[list[np.ndarray]] = [[], []]
    demo = read_manifest(demo_manifest())
    for song in demo:
        samples = load_audio(song.audio, rate_hz)
        for start in (0, 2, 4):  # three pieces of 20 s: a pool of 48
            part = samples[10 * start * rate_hz : 10 * (start + 2) * rate_hz]
            for encoder, found in zip(encoders, songs, strict=True):
                found.append(encoder.embed([encoder.features(part)])[0].clip_emb)
    cosine = [(a * b).sum(axis=1) for a, b in zip(*songs, strict=True)]
    assert np.concatenate(cosine).min() >= 0.999
    queries = [model.embed_text(song.captions[0].text) for song in demo]
    top = []
    for found in songs:
        means = np.stack(
            [clips.mean(axis=0) / np.linalg.norm(clips.mean(axis=0)) for clips in found]
        )
        vectors = np.stack([q.passage_weight @ q.passage_emb for q in queries])
        top.append([set(row) for row in np.argsort(-(vectors @ means.T), axis=1)[:, :10].tolist()])
    shared = [len(a & b) for a, b in zip(*top, strict=True)]
    assert sum(shared) >= 0.99 * 10 * len(queries)


def test_the_command_is_killed_and_goes_on(tmp_path: Path, tower: Path) -> None:
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    for i in range(130):
        write_good_file(songs / f"{i:03d}.wav", 3.0 + i % 4, seed=i)
    checkpoint = save_checkpoint(
        make_net(tower, captioner=False), tmp_path / "model", {}, "A test."
    )
    command = [sys.executable, "-m", "retrieval.embed", str(songs), str(out)]
    command += ["--model", str(checkpoint)]
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.glob("index-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = read_rows(out) if (out / RUN).exists() else []
    assert 0 < len(kept) < 130
    assert subprocess.run(command, env=environment).returncode == 0
    rows = read_rows(out)
    assert rows[: len(kept)] == kept
    assert len({row.path for row in rows}) == len({(r.shard, r.start) for r in rows}) == 130
    verify(out)
    model = load_model(checkpoint)
    for row in rows[::13]:
        assert np.array_equal(read_clips(out, row), model.embed_song(row.path).clip_emb)
