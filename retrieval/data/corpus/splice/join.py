"""Clips -> one song: levelled, cut on beats, cross-faded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FADE_S = (0.3, 1.2)
_LEVEL = 0.08  # RMS to which every clip is brought
_PEAK = 0.97


def join_clips(
    clips: Sequence[np.ndarray], beats_s: Sequence[np.ndarray], rate_hz: int
) -> tuple[np.ndarray, list[float]]:
    """Join clips with cross-fades of equal power.

    Where beats are known, a clip ends with a beat on which the next one has its first, so that the
    pulse goes on; the fade is a beat long, within 0.3 to 1.2 s.

    Args:
        clips: mono samples.
        beats_s: of each clip; may be empty.
        rate_hz: sample rate of the clips.

    Returns:
        The samples, and when each clip takes over, in seconds: the middle of its fade; the first
        at 0.
    """
    song = _level(clips[0])
    starts = [0.0]
    last_beats = np.asarray(beats_s[0])
    offset = 0  # where the clip that ends begins in the song
    for clip, beats in zip(clips[1:], beats_s[1:], strict=True):
        clip = _level(clip)
        fade = _fade_samples(last_beats, rate_hz)
        enter = _first_beat(beats, rate_hz)
        at = _last_beat(last_beats, offset, len(song), fade, rate_hz)
        song, offset = _cross(song, clip[enter:], at, fade), at - enter
        starts.append((at + fade / 2) / rate_hz)
        last_beats = np.asarray(beats)
    peak = float(np.abs(song).max(initial=1e-9))
    return (song * min(1.0, _PEAK / peak)).astype(np.float32), starts


def _level(clip: np.ndarray) -> np.ndarray:
    rms = float(np.sqrt(np.mean(np.square(clip, dtype=np.float64))))
    return clip * (_LEVEL / max(rms, 1e-6))


def _fade_samples(beats: np.ndarray, rate_hz: int) -> int:
    beat = float(np.median(np.diff(beats))) if len(beats) > 2 else _FADE_S[1] / 2
    return round(min(max(beat, _FADE_S[0]), _FADE_S[1]) * rate_hz)


def _first_beat(beats: np.ndarray, rate_hz: int) -> int:
    """Where the next clip enters: its first beat, if that comes within a second."""
    return round(float(beats[0]) * rate_hz) if len(beats) and beats[0] < 1.0 else 0


def _last_beat(beats: np.ndarray, offset: int, length: int, fade: int, rate_hz: int) -> int:
    """The last beat that leaves room for the fade; without beats, as late as possible."""
    places = [offset + round(float(b) * rate_hz) for b in beats]
    fitting = [p for p in places if p + fade <= length and p > offset]
    return fitting[-1] if fitting else length - fade


def _cross(song: np.ndarray, clip: np.ndarray, at: int, fade: int) -> np.ndarray:
    angle = np.linspace(0, np.pi / 2, fade)
    joined = np.concatenate([song[:at], clip.astype(song.dtype)])
    joined[at : at + fade] = song[at : at + fade] * np.cos(angle) + clip[:fade] * np.sin(angle)
    return joined
