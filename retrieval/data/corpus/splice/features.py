"""What a clip sounds like, so that neighbours fit: timbre, tempo, beats, pitch classes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

RATE_HZ = 16_000
_FFT, _HOP = 1024, 256
_BANDS = 40
_BPM = (60.0, 180.0)
# Tempi around which people tap most readily; centre and width in octaves after Moelants (2002).
_PREFERRED_BPM, _WIDTH = 120.0, 0.9


@dataclass(frozen=True)
class ClipFeatures:
    """Features of a clip.

    Attributes:
        timbre: float ``[80]``, mean and deviation of log bands; distances matter, not values.
        chroma: float ``[12]``, unit norm.
        bpm: 0 where no pulse was found.
        beats_s: when the beats fall, by that tempo.
    """

    timbre: np.ndarray
    chroma: np.ndarray
    bpm: float
    beats_s: np.ndarray


def read_features(sound: np.ndarray) -> ClipFeatures:
    """Features of mono samples at :data:`RATE_HZ`, at least a second of them."""
    starts = np.arange(0, len(sound) - _FFT, _HOP)
    frames = np.lib.stride_tricks.sliding_window_view(sound, _FFT)[starts] * np.hanning(_FFT)
    power = np.abs(np.fft.rfft(frames, axis=1)).astype(np.float32) ** 2
    bands = np.log(_bands(power) + 1e-8)
    bpm, beats = _beats(bands)
    timbre = np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
    return ClipFeatures(timbre, _chroma(power), bpm, beats)


def tempo_distance(a: float, b: float) -> float:
    """Octaves between two tempi, double and half counting as the same; 0 where one is unknown."""
    if not a or not b:
        return 0.0
    octaves = abs(np.log2(a / b)) % 1
    return float(min(octaves, 1 - octaves))


def _bands(power: np.ndarray) -> np.ndarray:
    edges = np.geomspace(50, RATE_HZ / 2, _BANDS + 1)
    rows = np.clip(np.round(edges * _FFT / RATE_HZ).astype(int), 1, _FFT // 2)
    return np.stack(
        [power[:, a : max(b, a + 1)].mean(axis=1) for a, b in pairwise(rows)],
        axis=1,
    )


def _chroma(power: np.ndarray) -> np.ndarray:
    hertz = np.arange(1, _FFT // 2 + 1) * RATE_HZ / _FFT
    inside = (hertz > 100) & (hertz < 2000)
    classes = np.round(69 + 12 * np.log2(hertz / 440)).astype(int) % 12
    total = np.zeros(12)
    np.add.at(total, classes[inside], np.sqrt(power[:, 1:].mean(axis=0))[inside])
    return total / max(float(np.linalg.norm(total)), 1e-9)


def _beats(bands: np.ndarray) -> tuple[float, np.ndarray]:
    """Tempo by autocorrelation of the spectral flux, and the phase that meets most onsets."""
    flux = np.maximum(np.diff(bands, axis=0), 0).sum(axis=1)
    flux = flux - flux.mean()
    if not flux.std() > 1e-6:
        return 0.0, np.zeros(0)
    rate = RATE_HZ / _HOP
    correlation = np.correlate(flux, flux, "full")[len(flux) - 1 :]
    lags = np.arange(int(rate * 60 / _BPM[1]), min(int(rate * 60 / _BPM[0]), len(correlation) - 1))
    if not len(lags):
        return 0.0, np.zeros(0)
    bpm = rate * 60 / lags
    weight = np.exp(-0.5 * (np.log2(bpm / _PREFERRED_BPM) / _WIDTH) ** 2)
    lag = int(lags[np.argmax(correlation[lags] * weight)])
    length, phase = _comb(flux, lag)
    return float(rate * 60 / length), np.arange(phase, len(flux), length) / rate


def _comb(flux: np.ndarray, lag: int) -> tuple[float, int]:
    """The spacing near a lag and the phase, in frames, whose teeth meet most of the flux.

    A lag is a whole number of frames; over a clip the rest would add up to a good part of a beat.
    """
    best = (-np.inf, float(lag), 0)
    for length in np.linspace(lag - 0.6, lag + 0.6, 25):
        teeth = np.round(np.arange(0, len(flux) - lag, length)).astype(int)
        sums = flux[teeth[:, None] + np.arange(lag)].mean(axis=0)
        phase = int(np.argmax(sums))
        best = max(best, (float(sums[phase]), float(length), phase))
    return best[1], best[2]
