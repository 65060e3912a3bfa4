"""Vectors for measurements of search, drawn from a model that was fitted to real embeddings.

``python -m benchmarks.embeddings AUDIO_FOLDER ... --captions musiccaps.csv`` fits it with the
shipped checkpoint and writes ``benchmarks/embeddings.npz``: means and covariances, no songs. The
model:

- a clip of song j at place c is ``trajectory(c / clips) + between_j + within_jc``, of unit length;
- ``between`` is Gaussian with the covariance of songs, ``within`` with that of a song's clips;
- ``within`` changes along the song as the sum of a part that drifts (AR(1), ``drift``) and one that
  jumps (sections; a clip stays in its section with the chance ``stay``), the latter with ``share``
  of the variance; the three numbers are those that match the autocorrelation of real songs best;
- a text's passages are ``mean + text_i + passage_ip``, made unit length, both Gaussian; once for
  people's captions (MusicCaps) and once for the long captions of composed songs.

The covariances are free of the bias that comes from subtracting a song's own mean. Quantiles of
real similarities are kept beside it, so that each use can print how well the drawn ones fit.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_name("embeddings.npz")
QUANTILES = (0.1, 1, 25, 50, 75, 99, 99.9)
KINDS = ("short", "long")
_DIRECTIONS = (8, 23, 46, 78, 126)  # 8, and 78 or 126, have bytes in codes (index/codes.py)
_KNOTS, _LAGS = 9, 5
_DRIFTS, _STAYS, _SHARES = (0, 0.2, 0.4, 0.6, 0.8), (0.5, 0.7, 0.85, 0.95), (0, 0.25, 0.5, 0.75, 1)


class EmbeddingModel:
    """Draws songs and queries.

    Args:
        path: of the fitted numbers.
    """

    def __init__(self, path: Path = FILE):
        with np.load(path, allow_pickle=False) as file:
            self._of = {name: file[name].astype(np.float32) for name in file.files}
        self.tau = float(self._of["tau"])
        self.dim = self._of["trajectory"].shape[1]

    def songs(
        self, rng: np.random.Generator, songs: int, clips: int, dtype: str = "float32"
    ) -> np.ndarray:
        """Unit rows ``[songs, clips, dim]``."""
        drift, stay, share = self._of["course"].tolist()
        out = np.empty((songs, clips, self.dim), dtype)
        course = at_places(self._of["trajectory"], clips)
        for start in range(0, songs, 1000):
            n = min(1000, songs - start)
            between = rng.standard_normal((n, 1, self.dim), np.float32) @ self._of["between"].T
            noise = rng.standard_normal((n, clips, self.dim), np.float32)
            section = np.zeros((n, clips), np.int64)
            for c in range(1, clips):
                stays = rng.random(n) < stay
                section[:, c] = np.where(stays, section[:, c - 1], c)
            jumps = np.take_along_axis(noise, section[:, :, None], axis=1) if share else noise
            if share < 1:
                fresh = rng.standard_normal((n, clips, self.dim), np.float32) if share else noise
                for c in range(1, clips):
                    fresh[:, c] = drift * fresh[:, c - 1] + (1 - drift**2) ** 0.5 * fresh[:, c]
                jumps = share**0.5 * jumps + (1 - share) ** 0.5 * fresh
            x = (jumps.reshape(-1, self.dim) @ self._of["within"].T).reshape(n, clips, -1)
            x += course + between
            out[start : start + n] = x / np.linalg.norm(x, axis=2, keepdims=True)
        return out

    def passages(
        self, rng: np.random.Generator, texts: int, passages: int, kind: str, rarity: float = 1.0
    ) -> np.ndarray:
        """Unit rows ``[texts, passages, dim]``.

        Args:
            rng: what draws.
            texts: how many.
            passages: of each.
            kind: one of :data:`KINDS`.
            rarity: factor on how far a text lies from the mean text; 1 as texts are.
        """
        own = rng.standard_normal((texts, 1, self.dim), np.float32) @ self._of[f"{kind}_text"].T
        noise = rng.standard_normal((texts, passages, self.dim), np.float32)
        x = self._of[f"{kind}_mean"] + rarity * (own + noise @ self._of[f"{kind}_passage"].T)
        return x / np.linalg.norm(x, axis=2, keepdims=True)

    def print_fit(self, songs: np.ndarray) -> None:
        """How many directions the clips need, and quantiles of similarities, real and drawn."""
        rng = np.random.default_rng(5)
        flat = songs[:2000].astype(np.float32).reshape(-1, self.dim)
        shares = np.linalg.eigvalsh(np.cov(flat.T))[::-1].cumsum()
        shown = [n for n in _DIRECTIONS if n <= len(shares)]
        parts = ", ".join(f"{n}: {100 * shares[n - 1] / shares[-1]:.0f} %" for n in shown)
        print(f"variance of clips in the first directions: {parts}")
        print("similarity of passage and clip at quantiles " + " ".join(map(str, QUANTILES)))
        for kind in KINDS:
            drawn = np.percentile(self.passages(rng, 300, 1, kind)[:, 0] @ flat.T, QUANTILES)
            real = self._of[f"{kind}_quantiles"]
            for name, values in (("real", real), ("drawn", drawn)):
                print(f"  {kind:5} {name:5} " + " ".join(f"{v:6.3f}" for v in values))


def at_places(trajectory: np.ndarray, clips: int) -> np.ndarray:
    """A course of means over a song, at the middles of its clips: ``[clips, dim]``."""
    place = (np.arange(clips) + 0.5) / clips * _KNOTS - 0.5
    low = np.clip(np.floor(place).astype(int), 0, _KNOTS - 1)
    high, part = np.clip(low + 1, 0, _KNOTS - 1), np.clip(place - low, 0, 1)[:, None]
    return trajectory[low] * (1 - part) + trajectory[high] * part


def fit(
    songs: Sequence[np.ndarray], texts: dict[str, list[np.ndarray]], tau: float
) -> dict[str, Any]:
    """The model's numbers from clips ``[clips, dim]`` of songs and passages of texts, by kind."""
    songs = [song.astype(np.float64) for song in songs if len(song) > _LAGS]
    pooled: list[list[np.ndarray]] = [[] for _ in range(_KNOTS)]
    for song in songs:
        for c, x in enumerate(song):
            pooled[int((c + 0.5) / len(song) * _KNOTS)].append(x)
    trajectory = np.stack([np.mean(part, axis=0) for part in pooled])
    rest = [song - at_places(trajectory, len(song)) for song in songs]
    means = np.stack([r.mean(axis=0) for r in rest])
    inner = [r - r.mean(axis=0) for r in rest]
    course = _fit_course(inner)
    kept, of_mean = np.mean([_shrinkage(len(r), course) for r in rest], axis=0)
    within = np.cov(np.concatenate(inner).T) / kept
    found: dict[str, Any] = {
        "tau": np.float32(tau),
        "trajectory": trajectory,
        "between": _factor(np.cov(means.T) - of_mean * within),
        "within": _factor(within),
        "course": np.array(course, np.float32),
    }
    flat = np.concatenate(songs)
    for kind, passages in texts.items():
        every = np.concatenate(passages).astype(np.float64)
        several = [p - p.mean(axis=0) for p in passages if len(p) > 1]
        inside = sum(p.T @ p for p in several) / sum(len(p) - 1 for p in several)
        found[f"{kind}_mean"] = every.mean(axis=0)
        found[f"{kind}_text"] = _factor(np.cov(every.T) - inside)
        found[f"{kind}_passage"] = _factor(inside)
        found[f"{kind}_quantiles"] = np.percentile(every[::3] @ flat.T, QUANTILES).astype(
            np.float32
        )
    return {
        name: array.astype(np.float16) if array.ndim == 2 or array.size > 100 else array
        for name, array in found.items()
    }


def _factor(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.clip(values, 0, None))


def _correlation(lags: np.ndarray, course: tuple[float, float, float]) -> np.ndarray:
    drift, stay, share = course
    return share * stay**lags + (1 - share) * np.where(lags == 0, 1.0, drift**lags)


def _centred(clips: int, course: tuple[float, float, float]) -> np.ndarray:
    """Covariance of a song's clips after their mean was taken off, ``[clips, clips]``."""
    lags = np.abs(np.subtract.outer(np.arange(clips), np.arange(clips)))
    centre = np.eye(clips) - 1 / clips
    return centre @ _correlation(lags, course) @ centre


def _shrinkage(clips: int, course: tuple[float, float, float]) -> tuple[float, float]:
    """Share of the variance that is left around a song's own mean, and that of the mean."""
    kept = float(np.trace(_centred(clips, course))) / clips
    return kept, 1 - kept


def _fit_course(inner: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Drift, stay and share whose autocorrelations, biased alike, are nearest to the songs'."""
    total = sum((x * x).sum() for x in inner)
    real = [sum((x[:-h] * x[h:]).sum() for x in inner) / total for h in range(1, _LAGS + 1)]
    counts, songs = np.unique([len(x) for x in inner], return_counts=True)

    def error(course: tuple[float, float, float]) -> float:
        sums = np.zeros(_LAGS + 1)
        for clips, weight in zip(counts, songs, strict=True):
            matrix = _centred(int(clips), course)
            sums += weight * np.array([np.trace(matrix, h) for h in range(_LAGS + 1)])
        return float(((sums[1:] / sums[0] - real) ** 2).sum())

    return min(itertools.product(_DRIFTS, _STAYS, _SHARES), key=error)


def read_texts(captions: Path, embed: Callable[[str], Any]) -> dict[str, list[np.ndarray]]:
    """Passages of 800 people's captions and of 300 long ones, by kind."""
    from retrieval.data.corpus.captions.make import make_texts
    from retrieval.data.corpus.compose.plan import make_plan
    from retrieval.data.corpus.compose.write import compose
    from retrieval.data.corpus.facts import read_facts

    with captions.open(encoding="utf-8", newline="") as file:
        short = [row["caption"] for row in csv.DictReader(file)]
    long = []
    for i in range(300):
        piece = compose(make_plan(900_000 + i), f"song-{i}")
        long.append(make_texts(read_facts(piece), piece.name).fixed[0].text)
    chosen = {"short": random.Random(0).sample(short, 800), "long": long}
    return {kind: [embed(text).passage_emb for text in some] for kind, some in chosen.items()}


def read_songs(folders: Iterable[Path], embed: Callable[[Path], Any]) -> list[np.ndarray]:
    """Clips of every song in the folders."""
    from retrieval.data.scan import find_songs
    from retrieval.errors import AudioError

    found = []
    for item in find_songs(folders):
        try:
            found.append(embed(item.path).clip_emb)
        except AudioError as error:
            print(f"left out: {error}")
    return found


def main() -> None:
    """Command line."""
    from retrieval.checkpoint import load_model

    parser = argparse.ArgumentParser(description="Fit the model of embeddings.")
    parser.add_argument("audio", nargs="+", type=Path, help="folders of songs")
    parser.add_argument("--captions", type=Path, required=True, help="musiccaps.csv")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    model = load_model()
    songs = read_songs(args.audio, model.embed_song)
    found = fit(songs, read_texts(args.captions, model.embed_text), model.tau)
    np.savez_compressed(args.out, **found)
    print(f"{len(songs)} songs, {sum(map(len, songs))} clips; course {found['course']}")
    drawn = EmbeddingModel(args.out)
    drawn.print_fit(drawn.songs(np.random.default_rng(0), 2000, 30))


if __name__ == "__main__":
    main()
