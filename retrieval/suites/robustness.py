"""Suite ``robustness``: the same songs as poorer recordings."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retrieval.audio import load_audio
from retrieval.data.cache import CachedSong
from retrieval.evaluation import share
from retrieval.inference import LongplayModel
from retrieval.scoring import embed_texts, encode_songs, score_matrix
from retrieval.suites.common import (
    Outcome,
    Settings,
    Table,
    Task,
    clusters,
    percent,
    ranks,
    relevance_of,
    spread,
    texts_of,
)

Change = Callable[[np.ndarray, int], np.ndarray]
_NOISE_DB = -20.0  # white noise against the song's own power


def as_mp3(samples: np.ndarray, rate_hz: int, kbps: int = 64) -> np.ndarray:
    """Samples after an MP3 encoder and decoder; mono float32 ``[n]``."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp3") as out:
        stream = out.add_stream("mp3", rate=rate_hz, layout="mono")
        stream.bit_rate = kbps * 1000
        for start in range(0, len(samples), 1 << 16):
            block = np.ascontiguousarray(samples[None, start : start + (1 << 16)], np.float32)
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.rate, frame.pts = rate_hz, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        parts = [frame.to_ndarray().mean(axis=0) for frame in source.decode(audio=0)]
    return np.concatenate(parts).astype(np.float32)


def low_passed(samples: np.ndarray, rate_hz: int, cut_hz: float = 4000.0) -> np.ndarray:
    """Nothing above ``cut_hz`` (Butterworth, 48 dB an octave)."""
    from scipy.signal import butter, sosfilt

    below = min(cut_hz, 0.45 * rate_hz)
    return sosfilt(butter(8, below, fs=rate_hz, output="sos"), samples).astype(np.float32)


def faster(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """2 % faster and higher."""
    from scipy.signal import resample_poly

    return resample_poly(samples, 50, 51).astype(np.float32)


def noisy(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """With white noise, 20 dB below the song."""
    level = np.sqrt(np.mean(samples**2)) * 10 ** (_NOISE_DB / 20)
    noise = np.random.default_rng(0).standard_normal(len(samples), np.float32)
    return samples + np.float32(level) * noise


CHANGES: dict[str, Change] = {
    "as it is": lambda samples, rate_hz: samples,
    "MP3 at 64 kbit/s": as_mp3,
    "4 kHz low-pass": low_passed,
    "-12 dB": lambda samples, rate_hz: samples * np.float32(10 ** (-12 / 20)),
    "2 % faster": faster,
    "noise at -20 dB": noisy,
}


def measure_robustness(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """Recall@10 of texts for the changed songs, and the drop against the songs as they are."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in CHANGES}
    owners: list[list[int]] = []
    for task in tasks:
        songs = spread(task.songs, settings.songs)
        texts = texts_of(songs, settings.captions)
        relevant = relevance_of(texts, songs, settings.captions)
        owners.append([t.song for t in texts])
        embedded = embed_texts(task.model, [t.caption.text for t in texts], settings.on_song)
        clips: dict[str, list[np.ndarray]] = {name: [] for name in CHANGES}
        for song in songs:
            for name, heard in changed_clips(task.model, song).items():
                clips[name].append(heard)
            settings.on_song()
        for name in CHANGES:
            scores = score_matrix(embedded, clips[name], task.model.tau)
            found[name].append(ranks(scores, relevant))
    cluster = clusters(owners)
    plain = np.concatenate(found["as it is"]) <= 10
    figures: dict[str, Any] = {}
    for name, parts in found.items():
        reached = np.concatenate(parts) <= 10
        drop = plain.astype(float) - reached
        figures[name] = {
            "recall@10": share(reached, cluster, settings.bootstrap, settings.seed),
            "drop": share(drop, cluster, settings.bootstrap, settings.seed),
        }
    table = Table(
        f"Changed songs: {len(cluster)} texts, pool of {len(clips['as it is'])}",
        ("songs", "R@10", "drop"),
        [[name, *map(percent, figures[name].values())] for name in CHANGES],
        "percent [95 % interval], text to music",
    )
    return Outcome([table], figures)


def changed_clips(model: LongplayModel, song: CachedSong) -> dict[str, np.ndarray]:
    """Clips of a song after each of :data:`CHANGES`: unit rows ``[clips, dim]``."""
    rate_hz = model.net.audio.sample_rate_hz
    samples = load_audio(song.song.audio, rate_hz)
    return {
        name: model.embed_samples(change(samples, rate_hz)).clip_emb
        if name != "as it is"
        else next(iter(encode_songs(model, [song])))
        for name, change in CHANGES.items()
    }
