"""Audio files for tests: good ones, and twenty that are broken in twenty ways."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path

import av
import numpy as np
import soundfile

from retrieval import errors

RATE = 16_000


def tone(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A chord with some noise, float32 in -1..1."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitches = 110 * 2 ** (rng.integers(0, 36, 3) / 12)
    sound = sum(np.sin(2 * np.pi * f * t) for f in pitches) / 4
    return (sound + 0.02 * rng.normal(size=len(t))).astype(np.float32)


def write_good_file(path: Path, seconds: float = 3.0, seed: int = 0) -> Path:
    """Write a playable file of the kind that its suffix names."""
    sound = tone(seconds, seed)
    if path.suffix in (".wav", ".flac"):
        soundfile.write(path, sound, RATE, subtype="PCM_16")
        return path
    codec = {".mp3": "libmp3lame", ".ogg": "libopus", ".m4a": "aac", ".mkv": "aac"}[path.suffix]
    rate = 48_000 if codec == "libopus" else RATE
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if path.suffix == ".mkv":
            video = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
            for i in range(int(5 * seconds)):
                picture = np.full((32, 32, 3), i, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        fifo = av.AudioResampler(stream.format, "mono", rate, stream.codec_context.frame_size)
        for part in [*fifo.resample(frame), *fifo.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def write_broken_files(folder: Path) -> dict[str, type[errors.AudioError]]:
    """Write twenty files that cannot be used; returns the error that each must give."""
    good = {s: write_good_file(folder / f"good.{s}", 6.0).read_bytes()
            for s in ("wav", "flac", "mp3", "ogg", "m4a")}  # fmt: skip
    for suffix in good:
        (folder / f"good.{suffix}").unlink()
    noise = np.random.default_rng(0).bytes(50_000)
    flac_lie = bytearray(good["flac"])
    # STREAMINFO: the low 4 bits of byte 21 and bytes 22-25 are the number of samples (RFC 9639).
    flac_lie[21] |= 0x0F
    flac_lie[22:26] = b"\xff\xff\xff\xff"
    damaged = bytearray(good["flac"])
    for i in range(len(damaged) // 2, len(damaged) // 2 + 400):
        damaged[i] ^= 0xA5
    nan = tone(2.0)
    nan[5000] = np.nan
    inf = tone(2.0)
    inf[7000] = np.inf
    video = folder / "mute.mkv"
    _write_video(video)
    cases: dict[str, tuple[bytes, type[errors.AudioError]]] = {
        "empty.mp3": (b"", errors.EmptyAudioError),
        "text.mp3": (b"These are words, not music.\n" * 50, errors.NotAudioError),
        "noise.flac": (noise, errors.NotAudioError),
        "picture.mp3": (_png(), errors.NotAudioError),
        "archive.ogg": (b"PK\x03\x04" + noise[:2000], errors.NotAudioError),
        "page.wav": (b"<!DOCTYPE html><html>404 Not Found</html>", errors.NotAudioError),
        "playlist.mp3": (b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n", errors.NotAudioError),
        "mute.mkv": (video.read_bytes(), errors.NotAudioError),
        "no-samples.wav": (_wav(np.zeros(0, np.int16)), errors.EmptyAudioError),
        "silent.wav": (_wav(np.zeros(2 * RATE, np.int16)), errors.SilentAudioError),
        "nan.wav": (_float_wav(nan), errors.NonFiniteAudioError),
        "inf.wav": (_float_wav(inf), errors.NonFiniteAudioError),
        "cut.wav": (good["wav"][: len(good["wav"]) // 2], errors.TruncatedAudioError),
        "cut.flac": (good["flac"][: len(good["flac"]) // 2], errors.TruncatedAudioError),
        "cut.mp3": (good["mp3"][: len(good["mp3"]) // 2], errors.TruncatedAudioError),
        "cut.ogg": (good["ogg"][: len(good["ogg"]) // 2], errors.TruncatedAudioError),
        "cut.m4a": (good["m4a"][: len(good["m4a"]) // 2], errors.TruncatedAudioError),
        "lie.flac": (bytes(flac_lie), errors.AudioHeaderError),
        "damaged.flac": (bytes(damaged), errors.DamagedAudioError),
        "channels.wav": (_wav(np.ones((RATE, 64), np.int16) * 999, 64), errors.AudioLimitError),
    }
    for name, (data, _) in cases.items():
        (folder / name).write_bytes(data)
    return {name: error for name, (_, error) in cases.items()}


def _wav(samples: np.ndarray, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def _float_wav(samples: np.ndarray) -> bytes:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", len(body) + len(data)) + body + data


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0\1\2\3\4" * 4)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _write_video(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5, width=32, height=32, pix_fmt="yuv420p")
        for i in range(5):
            picture = np.full((32, 32, 3), 40 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
