"""Suite ``length``: recall against how much of the song is heard and of the text is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.data.cache import CachedSong
from retrieval.evaluation import share
from retrieval.scoring import Texts, embed_texts, encode_songs, score_matrix
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AUDIO_S = (10, 30, 60, 120, 300)
WORDS = (10, 25, 50, 100, 200, 400)


def measure_length(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """Whole texts with the first seconds of songs, and the first words with whole songs."""
    by: dict[str, dict[int, list[np.ndarray]]] = {
        "audio_s": {s: [] for s in AUDIO_S},
        "words": {n: [] for n in WORDS},
    }
    owners: list[list[int]] = []
    tasks = [Task(task.model, spread(task.songs, settings.songs)) for task in tasks]
    for task in tasks:
        texts = texts_of(task.songs, settings.captions)
        relevant = relevance_of(texts, task.songs, settings.captions)
        owners.append([t.song for t in texts])
        written = [t.caption.text for t in texts]
        whole = embed_texts(task.model, written, settings.on_song)
        for seconds in AUDIO_S:
            heard = _Beginnings(task, settings, seconds)
            by["audio_s"][seconds].append(ranks(heard.scores(whole), relevant))
        clips = list(encode_songs(task.model, task.songs, settings.on_song))
        for count in WORDS:
            read = embed_texts(
                task.model, [first_words(t, count) for t in written], settings.on_song
            )
            scores = score_matrix(read, clips, task.model.tau)
            by["words"][count].append(ranks(scores, relevant))
    return _outcome(by, clusters(owners), tasks, settings)


def first_words(text: str, count: int) -> str:
    """The first words of a text, its spacing made plain."""
    return " ".join(text.split()[:count])


class _Beginnings:
    """The songs of a task as if they ended after so many seconds."""

    def __init__(self, task: Task, settings: Settings, seconds: float):
        self.tau = task.model.tau
        kept = [_Beginning(song, seconds) for song in task.songs]
        self.clips = list(encode_songs(task.model, kept, settings.on_song))  # type: ignore[arg-type]

    def scores(self, texts: Texts) -> np.ndarray:
        return score_matrix(texts, self.clips, self.tau)


class _Beginning:
    """A prepared song without the clips that begin too late."""

    def __init__(self, cached: CachedSong, seconds: float):
        self._cached = cached
        rows = np.flatnonzero(cached.times[:, 1].numpy() <= seconds + 1e-6)
        self._rows = rows if len(rows) else np.array([0])
        self.times, self.filled = cached.times[self._rows], cached.filled[self._rows]
        self.duration_s = min(cached.duration_s, seconds)

    def prepared(self) -> Any:
        return self._cached.prepared(self._rows.tolist())


def _outcome(
    by: dict[str, dict[int, list[np.ndarray]]],
    cluster: np.ndarray,
    tasks: Sequence[Task],
    settings: Settings,
) -> Outcome:
    titles = {"audio_s": "seconds of audio", "words": "words of text"}
    figures: dict[str, Any] = {}
    tables = []
    for name, parts in by.items():
        figures[name] = {}
        rows = []
        for size, found in parts.items():
            rank = np.concatenate(found)
            cells = {
                f"recall@{k}": share(rank <= k, cluster, settings.bootstrap, settings.seed)
                for k in (1, 10)
            }
            figures[name][size] = cells
            rows.append([str(size), *map(percent, cells.values()), f"{np.median(rank):.0f}"])
        pool = f"{len(cluster)} texts, pool of {len(tasks[0].songs)}"
        columns = (titles[name], "R@1", "R@10", "median rank")
        tables.append(Table(f"By {titles[name]}: {pool}", columns, rows))
    tables[-1] = replace(tables[-1], note="percent [95 % interval]; the first seconds, first words")
    return Outcome(tables, figures, lambda figure: _draw(figures, titles, figure))


def _draw(figures: dict[str, Any], titles: dict[str, str], figure: Figure) -> None:
    figure.set_size_inches(9, 3.6)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (name, of) in zip(axes, figures.items(), strict=True):
        for k in (1, 10):
            cells = [cell[f"recall@{k}"] for cell in of.values()]
            middle = [100 * c["value"] for c in cells]
            axis.plot(list(of), middle, marker="o", label=f"recall@{k}")
            if cells[0]["low"] is not None:
                low, high = ([100 * c[end] for c in cells] for end in ("low", "high"))
                axis.fill_between(list(of), low, high, alpha=0.15)
        axis.set_xscale("log")
        axis.set_xticks(list(of), [str(size) for size in of])
        axis.minorticks_off()
        axis.set_xlabel(titles[name])
        axis.set_ylim(0, 102)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("recall, text to music (%)")
    axes[1].legend(frameon=False, loc="lower right")
