"""Suite ``order``: the true caption of a song against the same with one fact made false."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from retrieval.data.cache import CachedSong
from retrieval.data.manifest import TWIN
from retrieval.errors import ManifestError
from retrieval.evaluation import share
from retrieval.inference import LongplayModel
from retrieval.scoring import embed_texts, encode_songs, score_own
from retrieval.suites.common import Outcome, Settings, Table, Task, percent, spread, texts_of

#: Changes of the order alone; the others change one fact.
ORDER = ("swap", "twin")
_ROWS = {
    "attention": "attention by passage (ours)",
    "unplaced": "ours, clips without their places",
    "mean": "mean of clips",
    "other": "ours, beside another song",
}


def measure_order(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """How often the true caption scores higher, by what was changed; equal scores count half.

    Beside another song nothing can be heard of the difference: what is then above one half is told
    by the false captions themselves, such as an introduction in the middle.
    """
    wins: dict[str, list[np.ndarray]] = {row: [] for row in _ROWS}
    changes: list[str] = []
    owners: list[int] = []
    for task in tasks:
        songs, told = _choices(task, settings)
        texts = embed_texts(
            task.model, [t for c in told for t in (c.true, c.false)], settings.on_song
        )
        own = [c.song for c in told for _ in range(2)]
        clips = list(encode_songs(task.model, songs, settings.on_song))
        unplaced = [_without_places(task.model, song) for song in songs]
        # No neighbour, which may be a twin.
        other = [(j + len(songs) // 2) % len(songs) for j in own]
        for row, pooling, whose, heard in (
            ("attention", "attention", own, clips),
            ("unplaced", "attention", own, unplaced),
            ("mean", "mean", own, clips),
            ("other", "attention", other, clips),
        ):
            scores = score_own(texts, whose, heard, task.model.tau, pooling).reshape(-1, 2)
            wins[row].append(np.sign(scores[:, 0] - scores[:, 1]) / 2 + 0.5)
        changes += [c.change for c in told]
        owners += [1_000_000 * tasks.index(task) + c.song for c in told]
    return _outcome(wins, np.array(changes), np.array(owners), settings)


@dataclass(frozen=True)
class _Choice:
    """Two texts, of which the first is true of the song of that number."""

    true: str
    false: str
    song: int
    change: str


def _choices(task: Task, settings: Settings) -> tuple[list[CachedSong], list[_Choice]]:
    songs = spread(task.songs, settings.songs)
    told = [
        _Choice(t.caption.text, negative.text, t.song, negative.change)
        for t in texts_of(songs, settings.captions)
        for negative in t.caption.negatives
    ]
    if not told:
        raise ManifestError(
            f"captions={settings.captions}: none has negatives, so nothing to choose"
        )
    most = None if settings.songs is None else settings.songs // 2
    for pair, texts in spread(_twins(task.songs, settings.captions), most):
        told.append(_Choice(*texts, len(songs), "twin"))
        told.append(_Choice(*texts[::-1], len(songs) + 1, "twin"))
        songs = [*songs, *pair]
    return songs, told


_Twins = tuple[tuple[CachedSong, CachedSong], tuple[str, str]]


def _twins(songs: Sequence[CachedSong], captions: str) -> list[_Twins]:
    """Songs that a corpus has twice, with their sections in another order, and a text of each."""
    text: dict[str, str] = {}
    for t in texts_of(songs, captions):
        text.setdefault(songs[t.song].song.id, t.caption.text)
    by_id = {song.song.id: song for song in songs if song.song.id in text}
    return [
        ((by_id[name], by_id[name + TWIN]), (text[name], text[name + TWIN]))
        for name in by_id
        if name + TWIN in by_id
    ]


@torch.inference_mode()
def _without_places(model: LongplayModel, song: CachedSong) -> np.ndarray:
    """Clips that know neither where in the song they are nor what comes before them."""
    place = torch.zeros(len(song.times), 2)
    state = model.encode_prepared(song.prepared(), song.filled, place, ordered=False)
    return state.clip_emb[0].float().cpu().numpy()


def _outcome(
    wins: dict[str, list[np.ndarray]], changes: np.ndarray, owners: np.ndarray, settings: Settings
) -> Outcome:
    kinds = sorted(set(changes.tolist()), key=lambda c: (c not in ORDER, c))
    figures: dict[str, Any] = {}
    rows = []
    for row, parts in wins.items():
        won = np.concatenate(parts)
        figures[row] = {
            kind: share(won[changes == kind], owners[changes == kind], settings.bootstrap)
            for kind in kinds
        }
        others = [figures[row][kind]["value"] for kind in kinds if kind not in ORDER]
        figures[row]["others"] = {"value": float(np.mean(others)) if others else None}
        mean = f"{100 * np.mean(others):.1f}" if others else ""
        rows.append([_ROWS[row], *(percent(figures[row][kind]) for kind in kinds), mean])
    counts = ", ".join(f"{kind} {int((changes == kind).sum())}" for kind in kinds)
    table = Table(
        "The true caption chosen over the false one",
        ("score", *kinds, "mean but swap"),
        rows,
        f"percent [95 % interval], chance 50; pairs: {counts}",
    )
    return Outcome([table], figures)
