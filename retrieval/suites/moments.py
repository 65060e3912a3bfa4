"""Suite ``moments``: does the attention of a passage find the section that it describes?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.data.manifest import Caption
from retrieval.errors import ManifestError
from retrieval.evaluation import share
from retrieval.fusion import peak_span
from retrieval.scoring import encode_songs
from retrieval.suites.common import Outcome, Settings, Table, Task, percent, spread, texts_of
from retrieval.text import Passage

_ROWS = {"attention": "attention (ours)", "uniform": "uniform", "max": "best clip"}
# Part of a passage's characters that must be about one section for it to be a question.
_PURE = 0.8


def measure_moments(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """Attention mass inside the section, and recall@1 of one moment at an overlap of half."""
    mass: dict[str, list[float]] = {row: [] for row in _ROWS}
    hit: dict[str, list[float]] = {row: [] for row in _ROWS}
    owners: list[int] = []
    for number, task in enumerate(tasks):
        songs = spread(task.songs, settings.songs)
        clips = list(encode_songs(task.model, songs, settings.on_song))
        for text in texts_of(songs, settings.captions):
            if not text.caption.sections:
                continue
            embedded = task.model.embed_text(text.caption.text)
            settings.on_song()
            times = songs[text.song].times.numpy()
            sim = embedded.passage_emb @ clips[text.song].T
            for p, (start_s, end_s) in pure_passages(text.caption, task.model.net.split):
                for row, weight in _weights(sim[p], task.model.tau).items():
                    mass[row].append(inside(weight, times, start_s, end_s))
                    found = peak_span(weight, times)
                    hit[row].append(float(overlap(found, (start_s, end_s)) >= 0.5))
                owners.append(1_000_000 * number + text.song)
    if not owners:
        raise ManifestError(f"captions={settings.captions}: no caption says what is heard when")
    return _outcome(mass, hit, np.array(owners), settings)


def pure_passages(caption: Caption, split) -> list[tuple[int, tuple[float, float]]]:  # type: ignore[no-untyped-def]
    """Passages of which four fifths are about one section: number, and its start and end."""
    passages: list[Passage] = split(caption.text)
    found, position = [], 0
    spans = []
    for section in caption.sections:
        begin = caption.text.find(section.text, position)
        if begin >= 0:
            position = begin + len(section.text)
            spans.append((begin, position, section))
    for p, passage in enumerate(passages):
        for begin, end, section in spans:
            shared = min(end, passage.end) - max(begin, passage.start)
            if shared >= _PURE * (passage.end - passage.start):
                found.append((p, (section.start_s, section.end_s)))
    return found


def inside(weight: np.ndarray, times: np.ndarray, start_s: float, end_s: float) -> float:
    """Share of the weight of clips ``[clips]``, ``[clips, 2]`` that lies within a stretch."""
    shared = np.clip(np.minimum(times[:, 1], end_s) - np.maximum(times[:, 0], start_s), 0, None)
    return float((weight * shared / (times[:, 1] - times[:, 0])).sum())


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Intersection over union of two stretches."""
    shared = max(min(a[1], b[1]) - max(a[0], b[0]), 0.0)
    return shared / max(a[1] - a[0] + b[1] - b[0] - shared, 1e-9)


def _weights(sim: np.ndarray, tau: float) -> dict[str, np.ndarray]:
    power = np.exp((sim - sim.max()) / tau)
    best = (np.arange(len(sim)) == sim.argmax()).astype(float)
    return {
        "attention": power / power.sum(),
        "uniform": np.full(len(sim), 1 / len(sim)),
        "max": best,
    }


def _outcome(
    mass: dict[str, list[float]],
    hit: dict[str, list[float]],
    owners: np.ndarray,
    settings: Settings,
) -> Outcome:
    figures = {
        row: {
            "mass_inside": share(np.array(mass[row]), owners, settings.bootstrap, settings.seed),
            "recall@1_iou_0.5": share(
                np.array(hit[row]), owners, settings.bootstrap, settings.seed
            ),
        }
        for row in _ROWS
    }
    rows = [[_ROWS[row], *map(percent, figures[row].values())] for row in _ROWS]
    table = Table(
        f"Passages about one section: {len(owners)}, in {len(np.unique(owners))} songs",
        ("weights over clips", "mass inside the section", "R@1 at IoU 0.5"),
        rows,
        "percent [95 % interval]; uniform is the section's share of the song",
    )
    return Outcome([table], figures)
