"""Suite ``retrieval``: recall, ranks and precision in both directions, for each score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.evaluation import Pool, evaluate_pools
from retrieval.report import draw_recall, recall_tables
from retrieval.scoring import embed_texts, encode_songs, score_matrix
from retrieval.suites.common import Outcome, Settings, Task, relevance_of, texts_of


def measure_retrieval(tasks: Sequence[Task], settings: Settings) -> Outcome:
    """Rank the songs of each pool for its texts, and its texts for its songs."""
    pools: dict[str, list[Pool]] = {pooling: [] for pooling in settings.poolings}
    for task in tasks:
        texts = texts_of(task.songs, settings.captions)
        relevant = relevance_of(texts, task.songs, settings.captions)
        embedded = embed_texts(task.model, [t.caption.text for t in texts], settings.on_song)
        clips = list(encode_songs(task.model, task.songs, settings.on_song))
        for pooling in settings.poolings:
            scores = score_matrix(embedded, clips, task.model.tau, pooling)
            pools[pooling].append(Pool(scores, np.array([t.song for t in texts]), relevant))
    results = {
        pooling: evaluate_pools(of_pooling, n_bootstrap=settings.bootstrap, seed=settings.seed)
        for pooling, of_pooling in pools.items()
    }
    return Outcome(recall_tables(results), results, lambda figure: draw_recall(results, figure))
