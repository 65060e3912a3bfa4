"""Hubs are lowered inside the embeddings: the score of design 2.5 stays the only one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_net, write_songs
from torch.nn import functional as F

from index.exact import attention_weights, pair_score
from retrieval import fitting
from retrieval.build import build_net
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.cache import CachedSong, FeatureCache
from retrieval.data.manifest import Caption, read_manifest
from retrieval.errors import ConfigError
from retrieval.finish import finished, with_querybank
from retrieval.fusion import fused_score
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP, SongState, song_places
from retrieval.querybank import RESERVED, Querybank, QuerybankConfig

WANTED = QuerybankConfig(texts=4, full_passages=3, sharpness=10.0)
TOLD = ["A piano. Then drums come in. A flute ends it.", "It opens loud. Strings. It is soft now."]


def songs_of(tmp_path: Path, net: CoLLAP, count: int = 6) -> list[CachedSong]:
    cache = FeatureCache(tmp_path / "cache", net)
    return [
        cache.get(replace(song, captions=(Caption("Short."), Caption(TOLD[i % 2] + f" Part {i}."))))
        for i, song in enumerate(read_manifest(write_songs(tmp_path, count)))
    ]


def state_of(model: LongplayModel, song: CachedSong) -> SongState:
    place = song_places(song.times, song.duration_s)
    return model.encode_prepared(song.prepared(), song.filled, place)


@pytest.fixture
def pair(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LongplayModel, LongplayModel, list[CachedSong]]:
    """A network as trained, the same with a bank, and songs."""
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, querybank=WANTED)
    songs = songs_of(tmp_path, net)
    return LongplayModel(net, ""), LongplayModel(with_querybank(net, songs), ""), songs


def test_scores_are_lowered_by_what_the_bank_gives(
    pair: tuple[LongplayModel, LongplayModel, list[CachedSong]],
) -> None:
    plain, lowered, songs = pair
    bank = lowered.net.querybank
    assert bank is not None
    told = [TOLD[0] + " Part 0.", TOLD[1] + " Part 2.", "Part 4. Drums.", "A flute."]
    before, after = [state_of(plain, s) for s in songs], [state_of(lowered, s) for s in songs]
    priors = []
    for state in before:
        clips = state.clip_emb[0].numpy()
        given = [
            pair_score(emb.numpy(), weight.numpy(), clips, plain.tau)
            for emb, weight in zip(bank.passage_emb, bank.passage_weight, strict=True)
        ]
        priors.append(math.log(np.mean(np.exp(10.0 * np.array(given)))) / 10.0)
    assert max(priors) - min(priors) > 1e-3
    assert lowered.tau == pytest.approx(0.8 * plain.tau)
    for text in told:
        a, b = plain.embed_text(text), lowered.embed_text(text)
        assert np.array_equal(a.passage_weight, b.passage_weight)
        long = min(len(a.passages) / 3, 1)
        for song, state, prior in zip(before, after, priors, strict=True):
            number = -(prior - float(bank.level)) * 0.8 / 0.6
            length = math.sqrt(1 - number**2)
            clips = song.clip_emb[0].numpy()
            # One length for all clips of a song: attention is as sharp as before times it.
            score = pair_score(a.passage_emb, a.passage_weight, clips, plain.tau / length)
            expected = 0.8 * length * score + 0.6 * long * number
            found = pair_score(
                b.passage_emb, b.passage_weight, state.clip_emb[0].numpy(), lowered.tau
            )
            assert found == pytest.approx(expected, abs=2e-6)
            assert np.allclose(
                attention_weights(a.passage_emb, clips, plain.tau / length),
                attention_weights(b.passage_emb, state.clip_emb[0].numpy(), lowered.tau),
                atol=1e-5,
            )


def test_what_was_lowered_can_be_raised(
    pair: tuple[LongplayModel, LongplayModel, list[CachedSong]],
) -> None:
    plain, lowered, songs = pair
    bank = lowered.net.querybank
    assert bank is not None
    for song in songs:
        raised = bank.raise_songs(state_of(lowered, song).clip_emb)
        assert torch.allclose(raised, state_of(plain, song).clip_emb, atol=1e-6)
    for text in (TOLD[0], "A flute."):
        raised = bank.raise_texts(torch.from_numpy(lowered.embed_text(text).passage_emb))
        assert np.allclose(raised.numpy(), plain.embed_text(text).passage_emb, atol=1e-6)


def test_rows_stay_unit_vectors(
    pair: tuple[LongplayModel, LongplayModel, list[CachedSong]],
) -> None:
    plain, lowered, songs = pair
    for model, free in ((plain, True), (lowered, False)):
        for song in songs[:3]:
            emb = model.embed_song(song.song.audio).clip_emb
            assert np.allclose(np.linalg.norm(emb, axis=1), 1, atol=1e-6)
            assert (emb[:, -RESERVED:] == 0).all() == free
            assert (emb[:, -1] == 0).all()
            assert len(np.unique(emb[:, -RESERVED])) == 1
        emb = model.embed_text(TOLD[0]).passage_emb
        assert np.allclose(np.linalg.norm(emb, axis=1), 1, atol=1e-6)
        assert (emb[:, -RESERVED:] == 0).all() == free


def test_hubs_are_found_less_often() -> None:
    rng = torch.Generator().manual_seed(0)
    dim, songs = 16, 40
    texts = F.normalize(torch.randn(300, 1, dim, generator=rng), dim=-1)
    clips = F.normalize(torch.randn(songs, 3, dim, generator=rng), dim=-1)
    clips = torch.cat([clips, F.normalize(torch.randn(songs, 60, dim, generator=rng), dim=-1)], 1)
    mask = torch.zeros(songs, 63, dtype=torch.bool)
    mask[:, :3] = True
    mask[0] = True  # a song with something for everyone
    clips = F.pad(F.normalize(clips * mask[..., None], dim=-1), (0, RESERVED))
    texts = F.pad(texts, (0, RESERVED))
    weight, tau = torch.ones(300, 1), torch.tensor(0.05)
    bank = Querybank(QuerybankConfig(texts=100, passages=1, full_passages=1), dim + RESERVED)
    bank.passage_emb.copy_(texts[:100])
    bank.passage_weight.fill_(1.0)
    bank.level.copy_(bank.prior(clips, mask, tau).mean())
    asked = texts[100:]
    before = fused_score(asked, weight[100:], clips, mask, tau).argmax(dim=1)
    after = fused_score(
        bank.mark_texts(asked, weight[100:] > 0, torch.ones(len(asked))),
        weight[100:],
        bank.lower_songs(clips, mask, bank.prior(clips, mask, tau)),
        mask,
        tau * bank.config.rest,
    ).argmax(dim=1)
    assert (before == 0).float().mean() > 0.25  # of 40 songs
    assert (after == 0).float().mean() < 0.1


def test_padding_stays_empty_and_changes_nothing() -> None:
    rng = torch.Generator().manual_seed(1)
    bank = Querybank(QuerybankConfig(texts=5, passages=2), 10)
    bank.passage_emb.copy_(F.normalize(torch.randn(5, 2, 10, generator=rng), dim=-1))
    bank.passage_weight.fill_(0.5)
    clips = F.pad(F.normalize(torch.randn(1, 4, 8, generator=rng), dim=-1), (0, RESERVED))
    mask, tau = torch.ones(1, 4, dtype=torch.bool), torch.tensor(0.1)
    alone = bank.lower_songs(clips, mask, bank.prior(clips, mask, tau))
    more, some = F.pad(clips, (0, 0, 0, 3)), F.pad(mask, (0, 3))
    padded = bank.lower_songs(more, some, bank.prior(more, some, tau))
    assert torch.allclose(padded[:, :4], alone, atol=1e-6)
    assert (padded[:, 4:] == 0).all()
    half = bank.lower_songs(clips.bfloat16(), mask, bank.prior(clips.bfloat16(), mask, tau))
    assert half.dtype == torch.float32
    assert (half - alone).abs().max() < 0.01


def test_a_checkpoint_keeps_its_bank_and_training_begins_without(
    pair: tuple[LongplayModel, LongplayModel, list[CachedSong]], tmp_path: Path
) -> None:
    plain, lowered, songs = pair
    folder = save_checkpoint(lowered.net, tmp_path / "c", {}, "# card")
    again = load_model(folder)
    for song in songs[:2]:
        a, b = (m.embed_song(song.song.audio).clip_emb for m in (again, lowered))
        assert np.array_equal(a, b)
    assert np.array_equal(
        again.embed_text(TOLD[0]).passage_emb, lowered.embed_text(TOLD[0]).passage_emb
    )
    bank = {"texts": 3, "share": 0.5, "sharpness": 5.0, "full_passages": 2}
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0, "querybank": bank}
    settings = {"init": str(folder), "fusion": fusion, "captioner": None, "freeze": None}
    net = build_net(settings, lambda text: (1, 2, 3))
    assert net.querybank is None
    assert net.config.querybank == QuerybankConfig(**bank)
    assert torch.equal(net.tau, plain.net.tau)
    for name, value in plain.net.state_dict().items():
        if not name.startswith("captioner."):
            assert torch.equal(net.state_dict()[name], value), name


def test_the_bank_is_of_long_captions_alone(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower, querybank=WANTED)
    songs = songs_of(tmp_path, net)
    assert with_querybank(net, songs) is net  # too few of them
    assert net.querybank is None
    bare = make_net(tower)
    assert with_querybank(bare, songs) is bare
    many = [songs[i % 6] for i in range(fitting.LEAST_SONGS)]
    net.train()
    filled = finished(net, many)
    assert net.training
    assert filled.querybank is not None
    assert len(filled.querybank.passage_emb) == 4
    assert (filled.querybank.passage_weight > 0).sum(dim=1).min() >= 3
    short = replace(songs[0], song=replace(songs[0].song, captions=(Caption("Short."),)))
    assert with_querybank(net, [short] * 30) is net


@pytest.mark.parametrize(
    "wrong",
    [{"texts": 0}, {"passages": -1}, {"full_passages": 0}, {"share": 1.0}, {"sharpness": 0}],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="querybank"):
        QuerybankConfig(**wrong)  # type: ignore[arg-type]
