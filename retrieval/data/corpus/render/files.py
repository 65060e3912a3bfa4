"""Sound -> MP3, Ogg Opus or FLAC, written whole or not at all."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np

from retrieval.errors import ComposeError

#: File suffix -> container, encoder, sample format.
FORMATS = {
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "ogg": ("ogg", "libopus", "flt"),
    "flac": ("flac", "flac", "s16"),
}
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
_BLOCK_S = 1.0


def write_sound(sound: np.ndarray, path: Path, rate_hz: int, kbps: int) -> None:
    """Write mono float32 samples under a temporary name, then rename.

    Args:
        sound: ``[samples]`` within -1..1.
        path: its suffix is one of :data:`FORMATS`.
        rate_hz: sample rate; Opus takes 8, 12, 16, 24 or 48 kHz.
        kbps: bit rate of MP3 and Opus.

    Raises:
        ComposeError: an unknown suffix or a rate that the codec does not take.
    """
    import av

    suffix = path.suffix[1:]
    if suffix not in FORMATS:
        raise ComposeError(f"format: {suffix!r}, expected one of {', '.join(FORMATS)}")
    if suffix == "ogg" and rate_hz not in _OPUS_RATES_HZ:
        raise ComposeError(f"rate_hz: {rate_hz}, expected one of {_OPUS_RATES_HZ} for Opus")
    container_name, codec, sample_format = FORMATS[suffix]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with av.open(str(temporary), "w", format=container_name) as container:
        stream = cast(Any, container.add_stream(codec, rate=rate_hz, layout="mono"))
        stream.codec_context.format = sample_format
        if suffix != "flac":
            stream.bit_rate = kbps * 1000
        if suffix == "mp3":
            stream.codec_context.options = {"compression_level": "7"}
        samples = _as_format(sound, sample_format)
        # Opus takes whole frames of 20 ms.
        block = rate_hz // 50 if suffix == "ogg" else round(rate_hz * _BLOCK_S)
        for start in range(0, samples.shape[1], block):
            part = samples[:, start : start + block]
            if suffix == "ogg" and part.shape[1] < block:
                part = np.pad(part, ((0, 0), (0, block - part.shape[1])))
            part = np.ascontiguousarray(part)
            frame = av.AudioFrame.from_ndarray(part, format=sample_format, layout="mono")
            frame.sample_rate, frame.pts = rate_hz, start
            frame.time_base = Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    temporary.replace(path)


def _as_format(sound: np.ndarray, sample_format: str) -> np.ndarray:
    if sample_format == "s16":
        return np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
    return sound.astype(np.float32)[None]
