"""Key, sections and their repetition, read from notes where no annotation says them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.data.corpus.piece import Part

# Probe-tone profiles of Krumhansl and Kessler (1982), from the tonic up.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
#: Below this correlation no key is stated: the music is chromatic, or of drums.
_SURE = 0.7
_KERNEL = 4  # blocks on either side of a boundary that are compared
_SAME = 0.9  # cosine above which two sections share their material


def find_key(parts: Sequence[Part]) -> tuple[int, str] | None:
    """The key whose profile fits the notes' lengths best, or None where none fits well."""
    weight = np.zeros(12)
    for part in parts:
        for note in part.notes if not part.drums else ():
            weight[note.pitch % 12] += min(note.end_s - note.start_s, 2.0)
    if weight.max(initial=0) <= 0 or np.ptp(weight) == 0:
        return None
    best: tuple[float, int, str] = (-1.0, 0, "major")
    for mode, profile in (("major", _MAJOR), ("minor", _MINOR)):
        for tonic in range(12):
            fit = float(np.corrcoef(np.roll(profile, tonic), weight)[0, 1])
            best = max(best, (fit, tonic, mode))
    return (best[1], best[2]) if best[0] >= _SURE else None


def block_features(parts: Sequence[Part], edges: np.ndarray) -> np.ndarray:
    """What each block sounds like: pitch classes, who plays, how much.

    Args:
        parts: of a song.
        edges: ``[blocks + 1]`` in seconds.

    Returns:
        float64 ``[blocks, 12 + parts + 1]``; each group of columns has about the same weight.
    """
    blocks = len(edges) - 1
    chroma, playing = np.zeros((blocks, 12)), np.zeros((blocks, len(parts)))
    for column, part in enumerate(parts):
        starts = np.array([note.start_s for note in part.notes])
        rows = np.searchsorted(edges, starts + 1e-6, side="right") - 1
        for row, note in zip(rows, part.notes, strict=True):
            if 0 <= row < blocks:
                playing[row, column] += 1
                if not part.drums:
                    chroma[row, note.pitch % 12] += min(note.end_s - note.start_s, 2.0)
    count = playing.sum(axis=1, keepdims=True)
    density = np.log1p(count) / max(float(np.log1p(count.max(initial=1))), 1e-9)
    chroma /= np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-9)
    here = (playing > 0) / np.sqrt(max(len(parts), 1))
    return np.hstack([chroma, 1.5 * here, 0.5 * density])


def find_boundaries(features: np.ndarray, shortest: int) -> list[int]:
    """Blocks at which sections begin, the first being 0.

    A checkerboard kernel along the diagonal of the self-similarity (Foote, ICME 2000) gives the
    novelty of each block; its peaks are taken from the highest down, at least ``shortest`` blocks
    apart.
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    similar = unit @ unit.T
    count = len(features)
    novelty = np.zeros(count)
    for i in range(1, count):
        size = min(_KERNEL, i, count - i)
        before, after = slice(i - size, i), slice(i, i + size)
        inside = similar[before, before].mean() + similar[after, after].mean()
        novelty[i] = inside / 2 - similar[before, after].mean()
    chosen: list[int] = [0]
    level = novelty.mean() + 0.5 * novelty.std()
    for i in np.argsort(-novelty, kind="stable"):
        far = all(abs(i - other) >= shortest for other in (*chosen, count))
        if novelty[i] > max(level, 0.02) and far:
            chosen.append(int(i))
    return sorted(chosen)


def letter_sections(features: np.ndarray, starts: Sequence[int]) -> list[str]:
    """A letter for each section; sections that sound alike share one."""
    ends = [*starts[1:], len(features)]
    means = [features[a:b].mean(axis=0) for a, b in zip(starts, ends, strict=True)]
    kinds: list[np.ndarray] = []
    letters = []
    for mean in means:
        unit = mean / max(float(np.linalg.norm(mean)), 1e-9)
        fits = [float(unit @ kind) for kind in kinds]
        if fits and max(fits) >= _SAME:
            letters.append(_letter(int(np.argmax(fits))))
        else:
            letters.append(_letter(len(kinds)))
            kinds.append(unit)
    return letters


def _letter(number: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[number] if number < 26 else f"Z{number - 25}"
