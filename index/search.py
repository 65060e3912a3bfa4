"""Searching with a proof: bounds of all, exact scores of those that can still win."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from index.bounds import Passages, SongBounds
from index.codes import Codes
from index.exact import check_finite, fast_scores, pair_score, rounding
from index.kernels import compiled
from index.table import Ragged
from index.text_bounds import TextBounds, fast_text_scores
from index.walk import Ranking, Walk, check_arguments, largest, rank, rescore

#: Songs that are scored where nothing is to be proven; docs/search.md has what they find.
QUICK = 1000
#: With so few clips in all, reading every one is as quick as reading codes first.
_FEW_CLIPS = 1 << 18
#: Likewise with so few similarities of passages and clips.
_FEW_SIMILARITIES = 1 << 21


def search_songs(
    passage_emb: np.ndarray,
    passage_weight: np.ndarray,
    clips: Ragged,
    tau: float,
    k: int,
    *,
    rows: np.ndarray | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
    proven: bool = True,
    pooling: str = "attention",
) -> Ranking:
    """The k songs that one query fits best; the arguments are those of :func:`search_each`."""
    query = as_passages(passage_emb, passage_weight)
    return search_each(
        [query], clips, tau, k, rows=[rows], mode=mode, codes=codes, budget=budget, proven=proven,
        pooling=pooling,
    )[0]  # fmt: skip


def search_each(
    queries: Sequence[Passages],
    clips: Ragged,
    tau: float,
    k: int,
    *,
    rows: Sequence[np.ndarray | None] | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
    proven: bool = True,
    pooling: str = "attention",
) -> list[Ranking]:
    """The k songs that each query fits best.

    Args:
        queries: see :func:`as_passages`.
        clips: clips of all songs.
        tau: temperature.
        k: how many songs; fewer come back where there are fewer.
        rows: for each query the songs to choose from, by number, or None for all.
        mode: ``exact`` scores every song; ``certified`` bounds every song by its codes and scores
            those that the bounds leave open; ``auto`` takes the quicker. All give the same answer.
        codes: gives those of each part of ``clips``; asked for when they are needed.
        budget: most songs that may be scored; the answer may then be inexact, and says so.
        proven: False to make no bounds, where that is quicker than scoring every song: the
            ``budget`` songs are scored whose clips are nearest in the mean.
        pooling: the design's ``attention``, or a baseline (always scored in full).

    Raises:
        SearchError: an argument is out of range or not finite.
    """
    check_arguments(k, mode, pooling, budget)
    chosen = [None if r is None else np.asarray(r, np.int64) for r in rows or [None] * len(queries)]
    if pooling == "attention" and codes is not None and mode != "exact":
        most = max((_rows_of(clips, own) for own in chosen), default=0)
        if not proven and (mode == "certified" or most > _FEW_CLIPS):
            return [
                _nearest(query, clips, tau, k, own, codes(), budget or QUICK)
                for query, own in zip(queries, chosen, strict=True)
            ]
        if proven and (mode == "certified" or budget is not None or _bounds_pay(most > _FEW_CLIPS)):
            return [
                _certified(query, clips, tau, k, own, codes(), budget)
                for query, own in zip(queries, chosen, strict=True)
            ]
    found = []
    for query, some in zip(queries, chosen, strict=True):
        own = np.arange(len(clips)) if some is None else some
        score = _true_score(query, clips, tau, pooling)
        if pooling == "attention":
            fast = fast_scores(query.emb, query.weight, clips, tau, own)
            slack = rounding(clips.dim, tau, clips.longest) * query.size
            found.append(rescore(score, own, fast, k, slack, len(own)))
        else:
            found.append(rank(score, own, k, len(own)))
    return found


def as_passages(passage_emb: np.ndarray, passage_weight: np.ndarray) -> Passages:
    """A query, ready for the loops; SearchError where a number is not finite."""
    check_finite("query", passage_emb, passage_weight)
    return Passages(
        np.ascontiguousarray(passage_emb, np.float32),
        np.ascontiguousarray(passage_weight, np.float32),
    )


def _certified(
    query: Passages,
    clips: Ragged,
    tau: float,
    k: int,
    rows: np.ndarray | None,
    codes: Sequence[Codes | None],
    budget: int | None,
) -> Ranking:
    slack = rounding(clips.dim, tau, clips.longest) * query.size
    fast = partial(fast_scores, query.emb, query.weight, clips, tau)
    walk = Walk(rows, k, fast, slack, budget)
    walk.run(SongBounds(query, clips, codes, tau))
    return walk.ranking(_true_score(query, clips, tau, "attention"))


def _nearest(
    query: Passages,
    clips: Ragged,
    tau: float,
    k: int,
    rows: np.ndarray | None,
    codes: Sequence[Codes | None],
    count: int,
) -> Ranking:
    """The best of the songs whose clips are nearest in the mean, and of those without codes."""
    guesses = SongBounds(query, clips, codes, tau).guesses()
    among = guesses if rows is None else guesses[rows]
    likely = np.sort(largest(among, min(len(among), count + int(np.isinf(among).sum()))))
    own = likely if rows is None else rows[likely]
    slack = rounding(clips.dim, tau, clips.longest) * query.size
    fast = fast_scores(query.emb, query.weight, clips, tau, own)
    score = _true_score(query, clips, tau, "attention")
    found = rescore(score, own, fast, k, slack, len(own))
    return found if len(own) == len(among) else replace(found, exact=False, bound_gap=np.inf)


def _bounds_pay(many: bool) -> bool:
    """Whether bounds are made sooner than all scores: never by NumPy, slow to unpack codes."""
    return many and compiled() is not None


def _rows_of(table: Ragged, owners: np.ndarray | None) -> int:
    return table.n_rows if owners is None else int(table.counts[owners].sum())


def _true_score(query: Passages, clips: Ragged, tau: float, pooling: str) -> Callable[[int], float]:
    return lambda row: pair_score(query.emb, query.weight, clips.rows(row), tau, pooling)


def search_texts(
    clip_emb: np.ndarray,
    texts: Ragged,
    tau: float,
    k: int,
    *,
    rows: np.ndarray | None = None,
    mode: str = "auto",
    codes: Callable[[], Sequence[Codes | None]] | None = None,
    budget: int | None = None,
) -> Ranking:
    """The k stored texts that fit one song best.

    Args:
        clip_emb: clips of the song, ``[clips, dim]``, unit rows.
        texts: passages of all texts, with their weights.
        tau: temperature.
        k: how many texts; fewer come back where there are fewer.
        rows: texts to choose from, by number, or None for all.
        mode: as in :func:`search_each`.
        codes: gives those of each part of ``texts``; asked for when they are needed.
        budget: as in :func:`search_each`.

    Raises:
        SearchError: an argument is out of range or not finite.
    """
    check_arguments(k, mode, "attention", budget)
    check_finite("song", clip_emb)
    clip_emb = np.ascontiguousarray(clip_emb, np.float32)
    some = None if rows is None else np.asarray(rows, np.int64)
    slack = rounding(texts.dim, tau, max(texts.longest, len(clip_emb)))
    fast = partial(fast_text_scores, clip_emb, texts, tau)

    def score(row: int) -> float:
        return pair_score(texts.rows(row), texts.weights(row), clip_emb, tau)

    work = _rows_of(texts, some) * len(clip_emb)
    certified = mode == "certified" or budget is not None or _bounds_pay(work > _FEW_SIMILARITIES)
    if codes is None or mode == "exact" or not certified:
        own = np.arange(len(texts)) if some is None else some
        return rescore(score, own, fast(own), k, slack, len(own))
    walk = Walk(some, k, fast, slack, budget)
    walk.run(TextBounds(clip_emb, texts, codes(), tau))
    return walk.ranking(score)
