"""What a file says about its own length, container by container; and why one does not open."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from retrieval.errors import AudioError, NotAudioError, TruncatedAudioError

# An OGG page is at most 65,307 bytes, so the last one starts within this tail.
_OGG_TAIL_BYTES = 1 << 17
_OGG_LAST_PAGE = 0x04


def describe_open_error(path: Path, error: Exception) -> AudioError:
    """The error to raise for a file that FFmpeg refuses."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return TruncatedAudioError(
            f"{path}: an MP4 file without its index; was the download or copy broken off?"
        )
    return NotAudioError(f"{path}: is no audio file that can be read ({error})")


def claimed_seconds(path: Path, container: Any, stream: Any) -> float | None:
    """How long the file says that it is; None where it says nothing that can be relied on.

    Raises:
        TruncatedAudioError: an OGG file lacks its last page.
    """
    name = container.format.name
    if name == "wav":
        return _wav_seconds(path)
    if name == "ogg":
        _check_ogg_end(path)
        return None
    if name == "mp3" and not _has_frame_count(path):
        return None  # estimated from the bit rate, wrong for files of varying bit rate
    if name in ("aac", "mpegts", "mpeg", "avi", "asf"):
        return None  # estimated from the file's size
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None


def _wav_seconds(path: Path) -> float | None:
    """Length by the size of the ``data`` chunk, which FFmpeg replaces by what is there."""
    byte_rate = 0
    with path.open("rb") as file:
        if file.read(4) not in (b"RIFF", b"RIFX"):
            return None
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                # 0 and the largest number are what streaming programs write.
                open_ended = size in (0, 0xFFFFFFFF)
                return None if open_ended or not byte_rate else size / byte_rate
            if name == b"fmt ":
                byte_rate = struct.unpack("<8xI4x", file.read(16))[0] if size >= 16 else 0
                file.seek(max(size - 16, 0) + size % 2, 1)
            else:
                file.seek(size + size % 2, 1)
    return None


def _has_frame_count(path: Path) -> bool:
    """Whether an MP3 file states its number of frames (a Xing or Info header)."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            size = 0
            for byte in head[6:10]:
                size = size << 7 | byte & 0x7F
            file.seek(size, 1)
        start = file.read(1 << 12)
    return b"Xing" in start or b"Info" in start


def _check_ogg_end(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _OGG_TAIL_BYTES, 0))
        tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0 or len(tail) < page + 27 or not tail[page + 5] & _OGG_LAST_PAGE:
        raise TruncatedAudioError(
            f"{path}: lacks the last page of an OGG file; was the download or copy broken off?"
        )
    segments = tail[page + 26]
    body = sum(tail[page + 27 : page + 27 + segments])
    if len(tail) < page + 27 + segments + body:
        raise TruncatedAudioError(f"{path}: its last OGG page is cut")
