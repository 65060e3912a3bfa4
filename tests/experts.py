"""What holds for every expert inside the embeddings (:mod:`retrieval.beside`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from test_querybank import state_of
from torch import Tensor

from index.exact import attention_weights, pair_score
from index.query import Song, embed_query
from retrieval.beside import Beside
from retrieval.build import build_net
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.cache import CachedSong
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP

#: A network as trained, the same with an expert, and songs.
Pair = tuple[LongplayModel, LongplayModel, list[CachedSong]]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def check_scores(
    pair: Pair,
    expert: Beside,
    asked: Sequence[str],
    reads: Callable[[list[str]], tuple[Tensor, float]],
) -> list[float]:
    """Scores are those of both experts, and the attention is as before.

    Args:
        pair: whose second network has the expert.
        expert: that one.
        asked: texts.
        reads: passages of a text -> the expert's vector of it ``[dim]`` and its gate.

    Returns:
        All gates.
    """
    plain, both, songs = pair
    rest, scale = float(expert.rest), float(expert.scale)
    assert both.dim == plain.dim + len(expert.songs) + Beside.FILLERS
    assert rest == pytest.approx(1 / (1 + scale))
    assert both.tau == pytest.approx(rest * plain.tau)
    gates = []
    for song in songs:
        clips, wide = (state_of(m, song).clip_emb[0] for m in (plain, both))
        assert torch.allclose(wide.norm(dim=1), torch.ones(len(wide)), atol=1e-6)
        heard = both.net.encode_clips(song.prepared(), song.filled).detach()
        of_song = expert.of_songs(heard[None], torch.ones(1, len(heard), dtype=torch.bool))[0]
        for text in asked:
            a, b = plain.embed_text(text), both.embed_text(text)
            assert np.allclose(np.linalg.norm(b.passage_emb, axis=1), 1, atol=1e-6)
            assert np.array_equal(a.passage_weight, b.passage_weight)
            of_text, gate = reads(a.passages)
            gates.append(gate)
            attention = pair_score(a.passage_emb, a.passage_weight, clips.numpy(), plain.tau)
            expected = rest * (attention + scale * gate * float(of_text @ of_song))
            score = pair_score(b.passage_emb, b.passage_weight, wide.numpy(), both.tau)
            assert score == pytest.approx(expected, abs=2e-6)
            assert np.allclose(
                attention_weights(a.passage_emb, clips.numpy(), plain.tau),
                attention_weights(b.passage_emb, wide.numpy(), both.tau),
                atol=1e-5,
            )
    return gates


def check_any_batch(model: LongplayModel, asked: Sequence[str]) -> None:
    """A text is the same alone and with others."""
    split = [[p.text for p in model.net.split(text)] for text in asked]
    with torch.inference_mode():
        together = model.net.encode_texts(split)
    for i, text in enumerate(asked):
        alone = model.embed_text(text).passage_emb
        assert np.allclose(together.passage_emb[i, : len(alone)].numpy(), alone, atol=1e-6)
        assert (together.passage_emb[i, len(alone) :] == 0).all()


def check_song_asks(model: LongplayModel, songs: Sequence[CachedSong]) -> None:
    """A song that asks is most like itself."""
    embedded = [state_of(model, song).clip_emb[0].numpy() for song in songs]
    asks = embed_query(Song(songs[2].song.audio), model)
    scores = [pair_score(asks.passage_emb, asks.passage_weight, c, model.tau) for c in embedded]
    assert int(np.argmax(scores)) == 2


def check_kept(pair: Pair, text: str, folder: Path, wanted: dict[str, object]) -> CoLLAP:
    """A checkpoint keeps the expert; returns a network whose training begins from it."""
    plain, both, songs = pair
    again = load_model(save_checkpoint(both.net, folder, {}, "# card"))
    a, b = (m.embed_song(songs[0].song.audio).clip_emb for m in (again, both))
    assert np.array_equal(a, b)
    assert np.array_equal(again.embed_text(text).passage_emb, both.embed_text(text).passage_emb)
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0, **wanted}
    settings = {"init": str(folder), "captioner": None, "freeze": None, "fusion": fusion}
    net = build_net(settings, lambda text: (1, 2))
    assert net.config.joint_dim == plain.dim
    return net
