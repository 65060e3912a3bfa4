"""Suite ``fusion``: six scores on the same encoders, and ours against each other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from retrieval.evaluation import share
from retrieval.fusion import POOLINGS
from retrieval.inference import LongplayModel
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
    texts_of,
)

NAMES = {
    "first": "first clip",
    "mean": "mean of clips",
    "max": "best clip",
    "softmax": "softmax, text as one vector",
    "maxsim": "MaxSim",
    "raised": "ours, hubs not lowered",
    "attention": "attention by passage (ours)",
}


def measure_fusion(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """Text to music with every score; differences are paired, text by text."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in NAMES}
    owners: list[list[int]] = []
    for task in tasks:
        texts = texts_of(task.songs, settings.captions)
        relevant = relevance_of(texts, task.songs, settings.captions)
        embedded = embed_texts(task.model, [t.caption.text for t in texts], settings.on_song)
        clips = list(encode_songs(task.model, task.songs, settings.on_song))
        owners.append([t.song for t in texts])
        for pooling in POOLINGS:
            scores = score_matrix(embedded, clips, task.model.tau, pooling)
            found[pooling].append(ranks(scores, relevant))
        found["raised"].append(ranks(_raised(task.model, embedded, clips), relevant))
    cluster = clusters(owners)
    rank = {pooling: np.concatenate(parts) for pooling, parts in found.items()}
    figures = {}
    for pooling in NAMES:
        of = {f"recall@{k}": (rank[pooling] <= k).astype(float) for k in (1, 5, 10)}
        ours = (rank["attention"] <= 1).astype(float)
        of["ours_minus_it@1"] = ours - of["recall@1"]
        figures[pooling] = {
            name: share(values, cluster, settings.bootstrap, settings.seed)
            for name, values in of.items()
        }
    rows = [[NAMES[p], *(percent(value) for value in figures[p].values())] for p in NAMES]
    table = Table(
        f"Text to music: {len(cluster)} texts, pool of {len(tasks[0].songs)}",
        ("score", "R@1", "R@5", "R@10", "ours minus it, R@1"),
        rows,
        "percent [95 % interval]; the same encoders, only the score differs",
    )
    return Outcome([table], figures)


def _raised(model: LongplayModel, texts: Texts, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Scores without the bank; the same as with it where the model has none."""
    bank = model.net.querybank
    if bank is None:
        return score_matrix(texts, clips, model.tau)
    raised = [bank.raise_songs(torch.from_numpy(song)).numpy() for song in clips]
    read = replace(texts, passage_emb=bank.raise_texts(texts.passage_emb))
    return score_matrix(read, raised, float(model.net.bare_tau.detach()))
