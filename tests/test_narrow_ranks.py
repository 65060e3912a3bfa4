"""The narrow space ranks as the wide one does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval import narrow_ranks
from retrieval.narrow import Matrices, fit_narrow
from retrieval.narrow_ranks import keep_ranks
from retrieval.scoring import Texts, score_matrix

TAU = 0.05


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def drawn(songs: int = 60, wide: int = 24) -> tuple[list[np.ndarray], Texts, list[int]]:
    """Songs that share loud directions and differ in soft ones; two texts about each.

    Clips differ most in what is the same in all songs, so what products leave out the least by is
    not what tells songs apart.
    """
    rng = np.random.default_rng(0)
    loud = rng.standard_normal((8, wide // 2)) * 2
    soft = rng.standard_normal((songs, wide // 2)) * 0.5
    clips, passages, owner = [], [], []
    for own in soft:
        rows = [np.concatenate([loud[rng.integers(8)], own]) for _ in range(rng.integers(3, 9))]
        clips.append(unit(np.array(rows)).astype(np.float32))
    for i in range(2 * songs):
        told = clips[i % songs]
        passages.append(told[rng.integers(len(told), size=3)] + 0.05 * rng.standard_normal(wide))
        owner.append(i % songs)
    emb = torch.from_numpy(unit(np.array(passages))).float()
    weight = torch.tensor([[0.5, 0.3, 0.2]]).expand(2 * songs, -1).clone()
    weight[::3] = torch.tensor([0.6, 0.4, 0.0])
    emb[::3, 2] = 0
    return clips, Texts(emb, weight), owner


def start_of(clips: list[np.ndarray], texts: Texts, directions: int) -> Matrices:
    real = (texts.passage_weight > 0).numpy()
    passages, weights = texts.passage_emb.numpy()[real], texts.passage_weight.numpy()[real]
    return fit_narrow(np.concatenate(clips), passages, weights, directions)


def scores_by(
    matrices: Matrices, clips: list[np.ndarray], texts: Texts, tau: float = TAU
) -> np.ndarray:
    songs, reads, scale = matrices
    thin = [(c @ songs.T).astype(np.float32) for c in clips]
    emb = texts.passage_emb @ torch.from_numpy(reads.T).float()
    return score_matrix(Texts(emb, texts.passage_weight), thin, tau * scale) / scale


def found(scores: np.ndarray, owner: list[int]) -> float:
    return float((scores.argmax(axis=1) == np.array(owner)).mean())


def test_ranks_are_nearer_to_those_of_the_wide_space() -> None:
    """Of the other half of the songs too, which it was not fitted to."""
    clips, texts, owner = drawn()
    half = [i for i, own in enumerate(owner) if own < 30]
    told = Texts(texts.passage_emb[half], texts.passage_weight[half])
    start = start_of(clips[:30], told, 10)
    made = keep_ranks(start, clips[:30], told, [owner[i] for i in half], TAU)
    others = [i for i, own in enumerate(owner) if own >= 30]
    for rows, first, gain in ((half, 0, 0.1), (others, 30, 0.05)):
        asked = Texts(texts.passage_emb[rows], texts.passage_weight[rows])
        pool, own = clips[first : first + 30], [owner[i] - first for i in rows]
        wide = score_matrix(asked, pool, TAU)
        before, after = (scores_by(m, pool, asked) for m in (start, made))
        assert found(wide, own) > 0.9
        assert found(after, own) > found(before, own) + gain


def test_rows_fit_and_the_same_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_ranks, "_STEPS", 20)
    clips, texts, owner = drawn(30)
    start = start_of(clips, texts, 8)
    kept = [m.copy() for m in start[:2]]
    one, two = (keep_ranks(start, clips, texts, owner, TAU) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a, b)
    for given, before in zip(start[:2], kept, strict=True):
        assert np.array_equal(given, before)  # the start stays
    assert not np.allclose(one[0], start[0])
    passages = texts.passage_emb[texts.passage_weight > 0].numpy()
    for rows, matrix in ((np.concatenate(clips), one[0]), (passages, one[1])):
        length = np.linalg.norm(rows @ matrix.T, axis=1)
        assert np.quantile(length, 0.999) == pytest.approx(1, rel=1e-6)


def test_with_all_directions_nothing_is_to_be_gained() -> None:
    clips, texts, owner = drawn(30)
    start = start_of(clips, texts, 24)
    made = keep_ranks(start, clips, texts, owner, TAU)
    wide = score_matrix(texts, clips, TAU)
    assert np.allclose(scores_by(start, clips, texts), wide, atol=1e-5)
    assert np.abs(scores_by(made, clips, texts) - wide).max() < 0.02
