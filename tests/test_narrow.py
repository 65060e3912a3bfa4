"""A narrow joint space gives the scores of the wide one, times a factor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_querybank import TOLD, songs_of, state_of
from tiny import make_net
from torch.nn import functional as F

from index.exact import attention_weights, pair_score
from index.query import Song, embed_query
from retrieval import finish, fitting
from retrieval import narrow as narrow_module
from retrieval.build import build_net
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.manifest import Caption
from retrieval.errors import ConfigError
from retrieval.finish import finished, with_narrow
from retrieval.inference import LongplayModel
from retrieval.narrow import FILLERS, Narrow, NarrowConfig, fit_narrow
from retrieval.querybank import RESERVED, QuerybankConfig


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn(wide: int = 24, rank: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Clips and passages; those lie in other directions than these, of ``rank`` in all."""
    rng = np.random.default_rng(0)
    inside = np.linalg.qr(rng.standard_normal((wide, rank)))[0]
    size = 0.7 ** np.arange(rank)
    clips = rng.standard_normal((500, rank)) * size @ inside.T + 0.3 * inside[:, 0]
    passages = rng.standard_normal((300, rank)) * rng.permutation(size) @ inside.T
    return unit(clips), unit(passages)


def narrow_of(clips: np.ndarray, passages: np.ndarray, directions: int) -> Narrow:
    narrow = Narrow(NarrowConfig(directions + FILLERS, directions), clips.shape[1])
    for buffer, value in zip(
        (narrow.songs, narrow.texts, narrow.scale),
        fit_narrow(clips, passages, np.ones(len(passages)), directions),
        strict=True,
    ):
        buffer.copy_(torch.as_tensor(value))
    return narrow


def products(narrow: Narrow, clips: np.ndarray, passages: np.ndarray) -> np.ndarray:
    x = narrow.narrow_songs(torch.from_numpy(clips).float())
    q = narrow.narrow_texts(torch.from_numpy(passages).float())
    return (q @ x.T).numpy() / float(narrow.scale)


def test_products_stay_what_they_were() -> None:
    clips, passages = drawn(rank=8)
    narrow = narrow_of(clips, passages, 8)
    longest = (torch.from_numpy(clips).float() @ narrow.songs.T).norm(dim=1)
    fits = (longest <= 1).numpy()
    assert 0.99 < fits.mean() < 1  # the longest few are shortened
    told = (torch.from_numpy(passages).float() @ narrow.texts.T).norm(dim=1) <= 1
    found = products(narrow, clips, passages)[told.numpy()][:, fits]
    assert np.allclose(found, (passages @ clips.T)[told.numpy()][:, fits], atol=1e-5)


def test_no_other_directions_leave_out_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_module, "_UNASKED", 1e-9)  # no care for other texts
    clips, passages = drawn()
    true = passages @ clips.T
    songs, texts, scale = fit_narrow(clips, passages, np.ones(300), 6)
    least = np.mean(((passages @ texts.T) @ (clips @ songs.T).T / scale - true) ** 2)
    values = np.linalg.svd(true, compute_uv=False)
    assert least < 1.02 * (values[6:] ** 2).sum() / true.size  # that of any rank (Eckart, Young)
    principal = np.linalg.svd(clips, full_matrices=False)[2][:6]
    assert least < 0.5 * np.mean(((passages @ principal.T) @ (clips @ principal.T).T - true) ** 2)


def test_rows_stay_unit_vectors_and_padding_stays_empty() -> None:
    clips, passages = drawn()
    narrow = narrow_of(clips, passages, 6)
    for rows, change, empty in (
        (clips, narrow.narrow_songs, -1),
        (passages, narrow.narrow_texts, -2),
    ):
        out = change(torch.from_numpy(np.concatenate([rows, np.zeros((1, 24))])))
        assert torch.allclose(out[:-1].norm(dim=1), torch.ones(len(rows)), atol=1e-6)
        assert (out[-1] == 0).all()
        assert (out[:, empty] == 0).all()


def test_a_short_text_is_worth_a_long_one() -> None:
    clips, passages = drawn()
    long, short = passages[:200] @ np.diag((np.arange(24) % 2).astype(float)), passages[200:]
    told, weights = np.concatenate([long, short]), np.repeat([0.02, 1.0], [200, 100])
    left = []
    for given in (weights, np.ones(300)):
        songs, texts, scale = fit_narrow(clips, told, given, 8)
        found = (short @ texts.T) @ (clips @ songs.T).T / scale
        left.append(np.mean((found - short @ clips.T) ** 2))
    assert left[0] < 0.8 * left[1]


def test_directions_for_other_texts_are_not_lost() -> None:
    """Passages of one kind alone must not make those of another meaningless."""
    clips, passages = drawn()
    few = unit(passages @ np.diag((np.arange(24) < 8).astype(float)))
    narrow = narrow_of(clips, few, 12)
    found, true = products(narrow, clips, passages), passages @ clips.T
    assert np.corrcoef(found.ravel(), true.ravel())[0, 1] > 0.9


@pytest.fixture
def pair(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LongplayModel, LongplayModel, list]:
    """A network as trained, the same in a narrow joint space, and its songs.

    Only in what :func:`fit_narrow` finds are scores the wide ones, and not just their ranking.
    """
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    monkeypatch.setattr(finish, "keep_ranks", lambda start, *_: start)
    net = make_net(tower, narrow=NarrowConfig(dim=net_width(tower) - 2))
    songs = songs_of(tmp_path, net)
    return LongplayModel(net, ""), LongplayModel(with_narrow(net, songs), ""), songs


def test_songs_that_people_wrote_of_are_not_outvoted(
    pair: tuple[LongplayModel, LongplayModel, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    song = pair[2][0]

    def songs(form: str, count: int) -> list:
        captions = (Caption("a piano", form="query"), Caption("One.", form=form))
        return [replace(song, song=replace(song.song, captions=captions)) for _ in range(count)]

    bare = replace(song, song=replace(song.song, captions=()))
    monkeypatch.setattr(finish, "_SONGS", 6)
    for people, built, kept in ((2, 20, 2), (9, 20, 3), (9, 1, 5), (9, 0, 6), (0, 4, 0)):
        told = finish._told([*songs("long", built), bare, *songs("", people)])
        assert len(told) == min(6, people + built)
        assert sum(s.song.captions[1].form == "" for s in told) == kept


def net_width(tower: Path) -> int:
    return make_net(tower).config.dim


def test_scores_are_those_of_the_wide_space(
    pair: tuple[LongplayModel, LongplayModel, list],
) -> None:
    plain, narrow, songs = pair
    assert narrow.dim == plain.dim - 2
    assert narrow.net.narrow is not None
    scale = float(narrow.net.narrow.scale)
    assert narrow.tau == pytest.approx(scale * plain.tau)
    for song in songs[:3]:
        wide, thin = (state_of(m, song).clip_emb[0].numpy() for m in (plain, narrow))
        assert thin.shape == (len(wide), narrow.dim)
        for text in (TOLD[0] + " Part 0.", "Short."):
            a, b = plain.embed_text(text), narrow.embed_text(text)
            score = pair_score(a.passage_emb, a.passage_weight, wide, plain.tau)
            found = pair_score(b.passage_emb, b.passage_weight, thin, narrow.tau)
            # One of a thousand rows is shortened, which costs a few thousandths.
            assert found / scale == pytest.approx(score, abs=0.02)
            assert np.allclose(
                attention_weights(a.passage_emb, wide, plain.tau),
                attention_weights(b.passage_emb, thin, narrow.tau),
                atol=0.05,
            )


def test_a_checkpoint_keeps_it_and_training_begins_without(
    pair: tuple[LongplayModel, LongplayModel, list], tmp_path: Path
) -> None:
    plain, narrow, songs = pair
    again = load_model(save_checkpoint(narrow.net, tmp_path / "c", {}, "# card"))
    assert again.dim == narrow.dim
    a, b = (m.embed_song(songs[0].song.audio).clip_emb for m in (again, narrow))
    assert np.array_equal(a, b)
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    settings = {"init": str(tmp_path / "c"), "captioner": None, "freeze": None}
    net = build_net({**settings, "fusion": {**fusion, "narrow": {"dim": 9}}}, lambda text: (1, 2))
    assert net.narrow is None
    assert net.config.narrow == NarrowConfig(9)
    assert torch.equal(net.tau, plain.net.tau)
    assert net.config.joint_dim == plain.dim


def test_with_a_bank_both_are_there(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    bank = QuerybankConfig(texts=4, full_passages=3, sharpness=10.0)
    net = make_net(tower, querybank=bank, narrow=NarrowConfig(dim=12))
    songs = songs_of(tmp_path, net)
    net.train()
    made = finished(net, songs)
    assert net.training
    assert made.narrow is not None
    assert made.narrow.config.directions == 12 - FILLERS - RESERVED
    assert made.querybank is not None
    assert made.querybank.passage_emb.shape[2] == 12
    assert float(made.tau.detach()) == pytest.approx(
        0.8 * float(made.narrow.scale) * float(net.trained_tau.detach())
    )
    # What the bank takes off is measured in scores, which the narrow space makes smaller.
    model = LongplayModel(made, "")
    state = state_of(model, songs[0])
    bare = made.querybank.raise_songs(state.clip_emb)
    plain = made.querybank.prior(bare, state.clip_mask, made.bare_tau, made.narrow.scale)
    given = [
        pair_score(e.numpy(), w.numpy(), bare[0].numpy(), float(made.bare_tau.detach()))
        for e, w in zip(made.querybank.passage_emb, made.querybank.passage_weight, strict=True)
    ]
    sharp = 10.0 / float(made.narrow.scale)
    assert float(plain[0].detach()) == pytest.approx(
        np.log(np.mean(np.exp(sharp * np.array(given)))) / sharp, abs=1e-6
    )


def test_a_song_asks_without_what_only_songs_have(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    bank = QuerybankConfig(texts=4, full_passages=3)
    net = make_net(tower, querybank=bank, narrow=NarrowConfig(dim=12))
    songs = songs_of(tmp_path, net)
    model = LongplayModel(finished(net, songs), "")
    clips = model.embed_song(songs[0].song.audio).clip_emb
    asked = embed_query(Song(songs[0].song.audio), model).passage_emb
    assert np.allclose(np.linalg.norm(asked, axis=1), 1, atol=1e-6)
    directions = 12 - FILLERS - RESERVED
    assert np.array_equal(asked[:, :directions], clips[:, :directions])
    # Neither what fills their length nor what the bank gave them counts between two songs.
    assert np.allclose(asked @ clips.T, clips[:, :directions] @ clips[:, :directions].T, atol=1e-6)
    wide = LongplayModel(net, "")
    rows = wide.embed_song(songs[0].song.audio).clip_emb
    assert np.array_equal(wide.song_as_query(rows), rows)


def test_where_there_is_nothing_to_gain_a_network_stays(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower, narrow=NarrowConfig(dim=net_width(tower)))
    songs = songs_of(tmp_path, net) * 5
    assert finished(net, songs) is net  # no narrower
    thin = make_net(tower, narrow=NarrowConfig(dim=8))
    assert finished(thin, songs[:6]) is thin  # too few songs
    silent = [replace(s, song=replace(s.song, captions=())) for s in songs]
    assert finished(thin, silent) is thin
    assert finished(thin, songs).config.joint_dim == 8


@pytest.mark.parametrize("wrong", [{"dim": 2}, {"directions": -1}, {"dim": 8, "directions": 7}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="narrow"):
        NarrowConfig(**wrong)


def test_half_precision_changes_little() -> None:
    clips, passages = drawn()
    narrow = narrow_of(clips, passages, 6)
    x = torch.from_numpy(clips).float()
    with torch.autocast("cpu", torch.bfloat16):
        half = narrow.narrow_songs(x.bfloat16())
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half, narrow.narrow_songs(x)).min() > 0.999
