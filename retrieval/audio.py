"""Audio files -> mono samples -> clips, with limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.audio_checks import claimed_seconds, describe_open_error
from retrieval.errors import (
    AudioHeaderError,
    AudioLimitError,
    DamagedAudioError,
    EmptyAudioError,
    NonFiniteAudioError,
    NotAudioError,
    SilentAudioError,
    TruncatedAudioError,
)

#: Files that a folder scan picks up; any other file can still be named by itself.
AUDIO_SUFFIXES = frozenset(
    ".mp3 .flac .wav .ogg .oga .opus .m4a .aac .mp4 .mkv .webm .mov .aiff .aif .wma".split()
)
#: A song whose loudest sample is below -80 dBFS (about three steps of 16-bit sound) is silent.
SILENCE_PEAK = 1e-4
# FFmpeg's demuxers that may open a file: media containers only, no playlists, which name others.
_DEMUXERS = (
    "mp3,flac,wav,w64,ogg,aac,aiff,caf,asf,avi,mpegts,mpeg,"
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,png_pipe,jpeg_pipe"
)
# Undecodable packets that are passed over: tags that look like sound at the ends of MP3 files.
_TOLERATED_ERRORS = 3
# A decoded length this much below the claimed one is a missing piece, not an encoder's padding.
_MISSING_S, _MISSING_SHARE = 0.5, 0.02
_EXACT_S = 0.02
# Decoders give a thousand samples at a time, for which every call from Python costs too much.
_BLOCK_SAMPLES = 1 << 13
# A header that claims ten times what is there was never true; a cut file has most of its sound.
_LIE_FACTOR = 10


@dataclass(frozen=True)
class AudioLimits:
    """What a file may ask for.

    Attributes:
        max_duration_s: decoded sound, in seconds.
        max_channels: channels.
        max_rate_hz: sample rate.
    """

    max_duration_s: float = 1800.0
    max_channels: int = 32
    max_rate_hz: int = 384_000


def load_audio(
    path: str | Path, sample_rate_hz: int, limits: AudioLimits = AudioLimits()
) -> np.ndarray:
    """Decode a whole file.

    Args:
        path: any of MP3, FLAC, WAV, OGG/Opus, M4A/AAC, or a video file with sound.
        sample_rate_hz: rate to resample to.
        limits: what the file may ask for.

    Returns:
        float32 ``[n_samples]``, the plain mean of the channels.

    Raises:
        AudioError: one of its subclasses, each for one kind of unusable file.
    """
    return np.concatenate(list(iter_audio(path, sample_rate_hz, limits)))


def iter_audio(
    path: str | Path, sample_rate_hz: int, limits: AudioLimits = AudioLimits()
) -> Iterator[np.ndarray]:
    """Decode a file in blocks, in bounded memory; see :func:`load_audio`.

    Blocks are float32 ``[n]`` of at most ``_BLOCK_SAMPLES``. Errors that only the end of the
    file can show are raised after the last block.
    """
    import av

    path = Path(path).expanduser()
    if not path.is_file():
        kind = "is a folder or device" if path.exists() else "does not exist"
        raise NotAudioError(f"{path}: {kind}, expected an audio file")
    if path.stat().st_size == 0:
        raise EmptyAudioError(f"{path}: has 0 bytes; was the download or copy broken off?")
    with path.open("rb") as file:
        try:
            container = av.open(file, options={"format_whitelist": _DEMUXERS})
        except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
            raise describe_open_error(path, error) from error
        with container:
            if not container.streams.audio:
                raise NotAudioError(f"{path}: has no sound track, expected an audio file")
            stream = container.streams.audio[0]
            _check_limits(path, stream, limits)
            yield from _checked(path, container, stream, sample_rate_hz, limits)


def _checked(
    path: Path, container: Any, stream: Any, sample_rate_hz: int, limits: AudioLimits
) -> Iterator[np.ndarray]:
    """Decoded blocks, and the checks that need them."""
    claimed_s = claimed_seconds(path, container, stream)
    total, peak = 0, 0.0
    for block in _decode(path, container, stream, sample_rate_hz):
        block_peak = float(np.abs(block).max(initial=0.0))
        if not np.isfinite(block_peak):
            raise NonFiniteAudioError(
                f"{path}: holds NaN or infinity near {total / sample_rate_hz:.1f} s, expected "
                "finite samples; the program that wrote it went wrong"
            )
        total, peak = total + len(block), max(peak, block_peak)
        if total > limits.max_duration_s * sample_rate_hz:
            raise AudioLimitError(
                f"{path}: is longer than {limits.max_duration_s:.0f} s; cut it, or raise the limit"
            )
        yield block
    decoded_s = total / sample_rate_hz
    _check_length(path, decoded_s, claimed_s, exact=container.format.name == "flac")
    if total == 0:
        raise EmptyAudioError(f"{path}: decodes to no samples")
    if peak < SILENCE_PEAK:
        raise SilentAudioError(
            f"{path}: {decoded_s:.1f} s of silence (peak {peak:.1e}, expected at least "
            f"{SILENCE_PEAK:.0e})"
        )


def _check_limits(path: Path, stream: Any, limits: AudioLimits) -> None:
    channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
    if channels > limits.max_channels:
        raise AudioLimitError(
            f"{path}: {channels} channels, expected at most {limits.max_channels}"
        )
    if rate > limits.max_rate_hz:
        raise AudioLimitError(f"{path}: {rate} Hz, expected at most {limits.max_rate_hz} Hz")
    if channels < 1 or rate < 1:
        raise NotAudioError(
            f"{path}: {channels} channels at {rate} Hz are in its header, expected sound"
        )


def _check_length(path: Path, decoded_s: float, claimed_s: float | None, exact: bool) -> None:
    if claimed_s is None:
        return
    facts = f"{path}: header claims {claimed_s:.2f} s, {decoded_s:.2f} s are there"
    if claimed_s - decoded_s <= max(_MISSING_S, _MISSING_SHARE * claimed_s):
        # FLAC counts its samples, and its decoder leaves out frames with a wrong checksum.
        if exact and claimed_s - decoded_s > _EXACT_S:
            raise DamagedAudioError(f"{facts}; some frames are damaged")
        return
    if claimed_s > _LIE_FACTOR * max(decoded_s, 0.1):
        raise AudioHeaderError(f"{facts}; the header is wrong or forged")
    raise TruncatedAudioError(f"{facts}; was the download or copy broken off?")


def _decode(path: Path, container: Any, stream: Any, sample_rate_hz: int) -> Iterator[np.ndarray]:
    """Mono float32 blocks at ``sample_rate_hz``."""
    import av

    if stream.codec_context.name == "flac":
        # Off by default in FFmpeg: without it a flipped byte is played as noise.
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
        tolerated = 0
    else:
        tolerated = _TOLERATED_ERRORS
    resampler = av.AudioResampler(format="fltp", rate=sample_rate_hz, frame_size=_BLOCK_SAMPLES)
    errors, last_error = 0, None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            frames = packet.decode() if packet is not None else []
        except (av.FFmpegError, ValueError) as error:
            errors, last_error = errors + 1, error
            continue
        if packet is None:
            break
        # Damage at the very end is a cut, which the length shows; sound after it is not.
        if frames and errors > tolerated:
            raise DamagedAudioError(
                f"{path}: the decoder met damaged data ({last_error})"
            ) from last_error
        for frame in frames:
            yield from _blocks(path, resampler, frame)
    yield from _blocks(path, resampler, None)


def _blocks(path: Path, resampler: Any, frame: Any) -> Iterator[np.ndarray]:
    import av

    try:
        for part in resampler.resample(frame):
            # The plain mean: FFmpeg's own downmix leaves out channels and weighs the others.
            yield part.to_ndarray().mean(axis=0, dtype=np.float32)
    except (av.FFmpegError, ValueError) as error:
        raise DamagedAudioError(
            f"{path}: channels or rate change within the file ({error})"
        ) from error


def clip_starts(n_samples: int, clip_samples: int) -> np.ndarray:
    """First sample of every clip: no overlap, the last clip shifted left so that it is full.

    Args:
        n_samples: length of the song, at least 1.
        clip_samples: length of a clip, at least 1.

    Returns:
        int64 ``[clips]``, rising; ``[0]`` for a song shorter than one clip.
    """
    if n_samples < 1 or clip_samples < 1:
        raise EmptyAudioError(
            f"n_samples, clip_samples: got {n_samples}, {clip_samples}, expected at least 1"
        )
    last = max(n_samples - clip_samples, 0)
    starts = np.arange(0, last + 1, clip_samples, dtype=np.int64)
    return starts if starts[-1] == last else np.append(starts, last)


def clip_times(n_samples: int, clip_samples: int, sample_rate_hz: int) -> np.ndarray:
    """Start and end of every clip in seconds, float64 ``[clips, 2]``, ends within the song."""
    starts = clip_starts(n_samples, clip_samples)
    ends = np.minimum(starts + clip_samples, n_samples)
    return np.stack([starts, ends], axis=1) / sample_rate_hz


def split_clips(samples: np.ndarray, clip_samples: int) -> tuple[np.ndarray, int]:
    """Cut a song into clips.

    Args:
        samples: float32 ``[n_samples]``.
        clip_samples: length of a clip.

    Returns:
        ``[clips, clip_samples]``, zero-padded only where the song is shorter than one clip, and
        the number of real samples in each clip (the same for all).
    """
    starts = clip_starts(len(samples), clip_samples)
    if len(samples) < clip_samples:
        return np.pad(samples, (0, clip_samples - len(samples)))[None], len(samples)
    return np.stack([samples[start : start + clip_samples] for start in starts]), clip_samples


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex; ``NotAudioError`` where it cannot be read."""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise NotAudioError(f"{path}: cannot be read ({error.strerror})") from error
