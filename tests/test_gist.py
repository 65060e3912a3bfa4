"""A second expert inside the embeddings: whole texts and whole songs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experts import Pair, check_any_batch, check_kept, check_scores, check_song_asks, unit
from test_querybank import TOLD, songs_of, state_of
from tiny import make_net

from retrieval import fitting
from retrieval.beside import clip_inputs
from retrieval.data.manifest import Caption
from retrieval.encoders.transformer import TransformerEncoder
from retrieval.errors import ConfigError
from retrieval.finish import finished
from retrieval.fitting import with_gist
from retrieval.gist import Gist, GistConfig, fit_gate, fit_gist, text_inputs
from retrieval.inference import LongplayModel
from retrieval.narrow import NarrowConfig
from retrieval.querybank import QuerybankConfig

WANTED = GistConfig(dim=4, strength=1.0)
ASKED = [TOLD[0] + " Part 0.", TOLD[1] + " Part 3.", "Short.", "A flute."]


def planted(songs: int = 120, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Songs of 30 numbers, three of which tell their texts."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((songs, 30)) * rng.uniform(0.1, 10, 30) + rng.standard_normal(30)
    told = (x[:, :3] - x[:, :3].mean(0)) / x[:, :3].std(0) @ rng.standard_normal((3, 12))
    return x, unit(told + 3 * rng.standard_normal(12) + noise * rng.standard_normal((songs, 12)))


def gists(fit: object, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    songs = x @ fit.songs.T + fit.songs_bias  # type: ignore[attr-defined]
    texts = y @ fit.texts.T + fit.texts_bias  # type: ignore[attr-defined]
    return unit(songs), unit(texts)


def found(songs: np.ndarray, texts: np.ndarray) -> float:
    """How often a text's own song is the first."""
    return float(((texts @ songs.T).argmax(1) == np.arange(len(songs))).mean())


def test_it_finds_what_songs_tell_of_texts() -> None:
    x, y = planted()
    fit = fit_gist(x[:90], y[:90], np.ones(90), GistConfig(dim=3, shrink=0.1))
    songs, texts = gists(fit, x[90:], y[90:])
    assert found(songs, texts) > 0.7
    assert found(fit.held_out, gists(fit, x[:90], y[:90])[1]) > 0.4


def test_held_out_gists_know_nothing_of_their_own_text() -> None:
    """Texts that songs say nothing of are learned by heart, and held-out gists show it."""
    x, y = planted()
    y = y[np.random.default_rng(1).permutation(120)]
    fit = fit_gist(x, y, np.ones(120), GistConfig(dim=8, shrink=1e-3))
    songs, texts = gists(fit, x, y)
    own, held = (songs * texts).sum(1).mean(), (fit.held_out * texts).sum(1).mean()
    assert own > 0.4
    assert abs(held) < 0.15
    assert np.allclose(np.linalg.norm(fit.held_out, axis=1), 1)


def test_weights_are_repetitions_and_units_do_not_matter() -> None:
    x, y = planted(40)
    weights = np.where(np.arange(40) < 10, 3.0, 1.0)
    config = GistConfig(dim=3, shrink=1.0)
    heavy = gists(fit_gist(x, y, weights, config), x, y)[0]
    assert not np.allclose(heavy, gists(fit_gist(x, y, np.ones(40), config), x, y)[0], atol=1e-3)
    times = np.repeat(np.arange(40), weights.astype(int))
    repeated = fit_gist(x[times], y[times], np.ones(60), GistConfig(dim=3, shrink=1.5))
    assert np.allclose(np.abs(heavy), np.abs(gists(repeated, x, y)[0]), atol=1e-6)  # but for signs
    again = fit_gist(x, y, weights * 7, config)
    assert np.allclose(heavy, gists(again, x, y)[0], atol=1e-8)
    other_units = np.linspace(0.1, 5, 30)
    scaled = fit_gist(x * other_units, y, weights, config)
    assert np.allclose(heavy, gists(scaled, x * other_units, y)[0], atol=1e-5)


def test_what_is_constant_but_for_rounding_is_not_read() -> None:
    x, y = planted(40)
    noise = 1 + 1e-7 * np.random.default_rng(3).standard_normal((40, 5))
    config = GistConfig(dim=3, shrink=1.0)
    fit = fit_gist(np.concatenate([x, noise], axis=1), y, np.ones(40), config)
    assert (fit.songs[:, 30:] == 0).all()
    assert (np.abs(fit.songs[:, :30]).max(axis=0) > 0).all()


def test_few_songs_have_fewer_directions() -> None:
    x, y = planted(6)
    fit = fit_gist(x, y, np.ones(6), GistConfig(dim=11))
    assert fit.songs.shape == (11, 30)
    assert (fit.texts[6:] == 0).all()
    assert np.isfinite(fit.held_out).all()


def test_the_gate_tells_texts_apart() -> None:
    rng = np.random.default_rng(0)
    ours, others = (rng.standard_normal((n, 16)) + shift for n, shift in ((30, 0.8), (300, -0.8)))
    ours, others = unit(ours), unit(others)
    gist = Gist(GistConfig(dim=2, inputs=3), 16)

    def counts(given: np.ndarray, asked: np.ndarray) -> np.ndarray:
        gate, bias = fit_gate(ours, given)
        gist.gate.copy_(torch.as_tensor(gate))
        gist.gate_bias.fill_(bias)
        return gist.of_texts(torch.from_numpy(asked))[1].numpy()

    # The few weigh as much as the many.
    assert counts(others, ours).mean() > 0.8
    assert counts(others, others).mean() < 0.2
    assert counts(np.repeat(others, 5, axis=0), ours) == pytest.approx(counts(others, ours))
    assert counts(others[:0], others) == pytest.approx(1)


def test_padding_is_not_read() -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.standard_normal((2, 5, 3)))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    vectors = torch.zeros(2, 4)
    inputs = clip_inputs(vectors, frames, mask)
    assert inputs.shape == (2, 4 + 6)
    part = frames[1, :3].float()
    assert torch.allclose(inputs[1, 4:7], part.mean(0), atol=1e-6)
    assert torch.allclose(inputs[1, 7:], part.std(0, unbiased=False), atol=1e-6)
    gist = Gist(GistConfig(dim=2, inputs=10), 4)
    gist.songs.copy_(torch.from_numpy(rng.standard_normal((2, 10))))
    gist.songs_bias.fill_(0.7)
    clips = torch.cat([inputs, torch.zeros(1, 10)])[None]
    heard = torch.tensor([[True, True, False]])
    assert torch.allclose(gist.of_songs(clips, heard), gist.of_songs(clips[:, :2], heard[:, :2]))
    passages = torch.from_numpy(rng.standard_normal((1, 3, 4)))
    real = torch.tensor([[True, True, False]])
    whole = text_inputs(passages, real)
    assert torch.allclose(whole, text_inputs(passages[:, :2], real[:, :2]))
    assert torch.allclose(whole.norm(dim=1), torch.ones(1))


@pytest.fixture
def pair(tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A network as trained, the same with a gist, and songs; one has captions of the builder."""
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, gist=WANTED)
    songs = songs_of(tmp_path, net)
    built = Caption("This is a track. It has drums.", form="long")
    songs[5] = replace(songs[5], song=replace(songs[5].song, captions=(built,)))
    return LongplayModel(net, ""), LongplayModel(with_gist(net, songs), ""), songs


def test_scores_are_those_of_both_experts(pair: Pair) -> None:
    _, both, _ = pair
    gist = both.net.gist
    assert gist is not None

    def reads(passages: list[str]) -> tuple[torch.Tensor, float]:
        vector, gate = gist.of_texts(both.net.whole_texts([passages]).detach())
        return vector[0], float(gate)

    assert len(gist.songs) == 4
    assert max(check_scores(pair, gist, ASKED, reads)) > 0.1


def test_texts_of_the_builder_are_left_to_the_attention(
    pair: Pair,
) -> None:
    _, both, _ = pair
    gist = both.net.gist
    assert gist is not None
    told = ["This is a track. It has drums.", TOLD[0] + " Part 0."]
    texts = [[p.text for p in both.net.split(text)] for text in told]
    gate = gist.of_texts(both.net.whole_texts(texts).detach())[1]
    assert float(gate[0]) < 0.3
    assert float(gate[1]) > 0.5


def test_a_text_is_the_same_in_any_batch(pair: Pair) -> None:
    check_any_batch(pair[1], ASKED)


def test_a_song_that_asks_is_most_like_itself(pair: Pair) -> None:
    check_song_asks(pair[1], pair[2])


def test_a_checkpoint_keeps_it_and_training_begins_without(pair: Pair, tmp_path: Path) -> None:
    net = check_kept(pair, ASKED[0], tmp_path / "c", {"gist": {"dim": 3}})
    assert net.gist is None
    assert net.config.gist == GistConfig(3)


def test_with_narrow_space_and_bank_all_are_there(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    bank = QuerybankConfig(texts=4, full_passages=3, sharpness=10.0)
    net = make_net(tower, gist=WANTED, querybank=bank, narrow=NarrowConfig(dim=18))
    songs = songs_of(tmp_path, net)
    made = finished(net, songs)
    assert made.gist is not None
    assert made.narrow is not None
    assert made.querybank is not None
    assert made.config.joint_dim == 18
    assert made.narrow.songs.shape[1] == net.config.dim + 4 + Gist.FILLERS
    scale = float(made.gist.rest) * float(made.narrow.scale)
    assert float(made.tau.detach()) == pytest.approx(0.8 * scale * float(net.trained_tau.detach()))
    # Without a narrow space the bank's coordinates are still the last ones, and free.
    wide = finished(make_net(tower, gist=WANTED, querybank=bank), songs)
    model = LongplayModel(wide, "")
    assert wide.querybank is not None
    assert wide.gist is not None
    state = state_of(model, songs[0])
    bare = wide.querybank.raise_songs(state.clip_emb)[0]
    size = bare[:, : 4 + Gist.FILLERS].square().sum(1)
    assert torch.allclose(size, (1 - wide.gist.rest).expand(len(bare)), atol=1e-5)
    assert torch.allclose(bare.norm(dim=1), torch.ones(len(bare)), atol=1e-5)


def test_a_bank_is_read_by_texts_like_its_own(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    bank = QuerybankConfig(texts=4, full_passages=3, sharpness=10.0)
    net = make_net(tower, gist=WANTED, querybank=bank)
    songs = songs_of(tmp_path, net)
    built = Caption("This is a track. It has drums. It ends.", form="long")
    songs[5] = replace(songs[5], song=replace(songs[5].song, captions=(built,)))
    made = finished(net, songs)
    assert made.gist is not None
    for text in (ASKED[0], built.text):
        passages = [p.text for p in made.split(text)]
        with torch.inference_mode():
            gate = float(made.gist.of_texts(made.whole_texts([passages]))[1])
            reads = made.encode_texts([passages]).passage_emb[0, :, -2]
        expected = bank.share * min(len(passages) / 3, 1) * (1 - gate)
        assert torch.allclose(reads, torch.full_like(reads, expected), atol=1e-6)
        assert expected > 0.01


def test_no_passage_is_read_twice(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, gist=WANTED, narrow=NarrowConfig(dim=12))
    songs = songs_of(tmp_path, net)
    read: list[str] = []
    encode = TransformerEncoder._encode

    def counted(self: TransformerEncoder, passages: list[str]) -> torch.Tensor:
        read.extend(passages)
        return encode(self, passages)

    monkeypatch.setattr(TransformerEncoder, "_encode", counted)
    finished(net, songs)
    told = [p for p in read if "Part" in p]  # beside those that check a tower when it is built
    assert told
    assert len(told) == len(set(told))


def test_it_needs_songs_that_people_wrote_of(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(tower, gist=WANTED)
    songs = songs_of(tmp_path, net)
    assert with_gist(net, songs) is net  # too few
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    caption = Caption("This is a track.", form="query")
    built = [replace(s, song=replace(s.song, captions=(caption,))) for s in songs]
    assert with_gist(net, built) is net
    assert with_gist(net, songs[:3] + built[3:]) is not net
    assert with_gist(make_net(tower), songs).gist is None


@pytest.mark.parametrize(
    ("given", "named"),
    [({"dim": 0}, "dim 0"), ({"shrink": 0.0}, "shrink 0.0"), ({"strength": -1.0}, "strength -1.0")],
)
def test_a_wrong_setting_is_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GistConfig(**given)  # type: ignore[arg-type]
