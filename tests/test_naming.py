"""An expert for what short queries name, inside the embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experts import Pair, check_any_batch, check_kept, check_scores, check_song_asks, unit
from test_querybank import TOLD, songs_of, state_of
from tiny import make_net

from index.exact import pair_score
from retrieval import fitting
from retrieval.beside import Beside, held_out, ridge
from retrieval.data.cache import CachedSong
from retrieval.data.manifest import Caption
from retrieval.errors import ConfigError
from retrieval.finish import finished
from retrieval.fitting import with_gist, with_naming
from retrieval.gist import GistConfig
from retrieval.inference import LongplayModel
from retrieval.naming import (
    Naming,
    NamingConfig,
    affirmed,
    fit_naming,
    word_inputs,
)
from retrieval.narrow import NarrowConfig
from retrieval.querybank import QuerybankConfig

WANTED = NamingConfig(dim=4, strength=1.0, query_words=3, full_words=11)
ASKED = ["a piano", "Drums.", TOLD[0] + " Part 0.", "A piano. Then drums come in again."]
WORDS = ["piano", "guitar", "drums", "strings", "loud", "soft", "fast", "slow"]


def planted(songs: int = 160, noise: float = 0.3) -> tuple[np.ndarray, list[list[str]], np.ndarray]:
    """Songs whose numbers tell their tags, and those tags as a table."""
    rng = np.random.default_rng(0)
    true = rng.random((songs, len(WORDS))) < np.linspace(0.1, 0.6, len(WORDS))
    x = true @ rng.standard_normal((len(WORDS), 30)) * rng.uniform(0.1, 10, 30)
    x += noise * rng.standard_normal(x.shape) * x.std(0) + 5
    return x, [[w for w, has in zip(WORDS, own, strict=True) if has] for own in true], true


def asked_of(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words' vectors of queries of one tag each, and which song each was written of."""
    rng = np.random.default_rng(3)
    table = rng.standard_normal((len(WORDS) + 3, 24))
    rows, of = [], []
    for i in range(400):
        named = i % len(WORDS)
        filler = len(WORDS) + rng.integers(3)
        rows.append((table[named] + table[filler]) / 2**0.5)
        of.append(rng.choice(np.flatnonzero(true[:, named])))
    return np.array(rows), np.array(of)


def test_it_finds_the_songs_of_which_a_named_tag_is_true() -> None:
    x, tags, true = planted()
    words, of = asked_of(true[:120])
    fit = fit_naming(x[:120], tags[:120], words, of, NamingConfig(dim=8, shrink=0.1))
    assert fit is not None
    heard = unit(x[120:] @ fit.songs.T + fit.songs_bias)
    read = unit(words[: len(WORDS)] @ fit.texts.T + fit.texts_bias)
    for named in range(len(WORDS)):
        score = heard @ read[named]
        own = true[120:, named]
        assert score[own].mean() > score[~own].mean() + 0.2


def test_it_finds_the_songs_that_are_like_those_a_query_was_written_of() -> None:
    """A tag that no query names helps, where songs that have the named one mostly have it."""
    x, _, true = planted()
    true = true.copy()
    true[:, 1] = true[:, 0] ^ (np.random.default_rng(6).random(len(true)) < 0.05)
    x = x + 3 * x.std(0) * true[:, 1:2]  # the second is heard, the first hardly
    tags = [[w for w, has in zip(WORDS, own, strict=True) if has] for own in true]
    words = np.eye(len(WORDS))[[0, 4] * 40]
    of = np.concatenate([[i, j] for i, j in zip(np.resize(np.flatnonzero(true[:, 0]), 40),
                                                np.resize(np.flatnonzero(true[:, 4]), 40),
                                                strict=True)])  # fmt: skip
    fit = fit_naming(x, tags, words, of, NamingConfig(dim=8))
    assert fit is not None
    score = (x @ fit.songs.T + fit.songs_bias) @ (fit.texts @ words[0] + fit.texts_bias)
    other = true[:, 1] & ~true[:, 0]
    neither = ~true[:, 1] & ~true[:, 0]
    assert score[other].mean() > score[neither].mean() + score[neither].std()


def test_held_out_songs_are_heard_by_what_the_others_teach() -> None:
    x, tags, true = planted()
    order = np.random.default_rng(1).permutation(len(tags))
    known = true[order].astype(float)
    words, of = asked_of(true[order])
    shuffled = [tags[i] for i in order]
    fit = fit_naming(x, shuffled, words, of, NamingConfig(dim=8, shrink=1e-3))
    assert fit is not None
    read = unit(words[: len(WORDS)] @ fit.texts.T + fit.texts_bias)
    inside = unit(x @ fit.songs.T + fit.songs_bias) @ read.T
    outside = unit(fit.held_out) @ read.T

    def told(score: np.ndarray) -> float:
        return float(np.corrcoef(score.ravel(), (known - known.mean(0)).ravel())[0, 1])

    assert told(inside) > 0.2  # learned by heart
    assert abs(told(outside)) < 0.1


def test_both_regressions_are_one() -> None:
    """With few rows and with many, against the normal equations."""
    rng = np.random.default_rng(2)
    for rows, columns in ((12, 30), (60, 7)):
        x, y = rng.standard_normal((rows, columns)) * 3 + 1, rng.standard_normal((rows, 2))
        weights = rng.uniform(0.5, 2, rows)
        weights /= weights.mean()
        matrix, bias, mean = ridge(x, y, weights, 0.3)
        middle = weights @ x / rows
        spread = np.sqrt(weights @ (x - middle) ** 2 / rows)
        z = (x - middle) / spread
        normal = (z.T * weights) @ z + 0.3 * columns * np.eye(columns)
        expected = np.linalg.solve(normal, (z.T * weights) @ (y - mean)).T / spread
        assert np.allclose(matrix, expected)
        assert np.allclose(bias, mean - expected @ middle)
        assert np.allclose(mean, weights @ y / rows)


def test_rows_left_out_are_told_by_the_others() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((9, 4)), rng.standard_normal((9, 2)) + 5
    weights = rng.uniform(0.5, 2, 9)
    found = held_out(x, y, weights, 0.3, 3)
    for i in range(9):
        others = np.arange(9) % 3 != i % 3
        matrix, bias, mean = ridge(x[others], y[others], weights[others], 0.3)
        assert np.allclose(found[i], matrix @ x[i] + bias - mean)


def test_products_are_those_of_weighted_tags() -> None:
    """With as many directions as tags nothing is left out."""
    x, tags, true = planted()
    words, of = asked_of(true)
    fit = fit_naming(x, tags, words, of, NamingConfig(dim=8, shrink=0.5, rarity=0.1))
    assert fit is not None
    one, mean = np.ones(len(x)), true.mean(0)
    matrix, bias, _ = ridge(x, true.astype(float), one, 0.5)
    reads, reads_bias, _ = ridge(words, true[of] - mean, np.ones(len(words)), 0.01)
    predicted, named = x @ matrix.T + bias - mean, words @ reads.T + reads_bias
    heard = x @ fit.songs.T + fit.songs_bias
    found = (words @ fit.texts.T + fit.texts_bias) @ heard.T
    assert np.allclose(heard.mean(0), 0, atol=1e-9)
    assert np.allclose(found, (named / (mean + 0.1)) @ predicted.T)


def test_tags_of_few_songs_and_of_all_are_left_out() -> None:
    x, tags, true = planted(40)
    words, of = asked_of(true)
    config = NamingConfig(dim=4)
    plain = fit_naming(x, tags, words, of, config)
    more = [[*own, "instrumental", *(["zither"] if i < 2 else [])] for i, own in enumerate(tags)]
    again = fit_naming(x, more, words, of, config)
    assert plain is not None
    assert again is not None
    assert np.allclose(np.abs(plain.songs), np.abs(again.songs))  # but for signs
    assert fit_naming(x, [["something"]] * 40, words, of, config) is None


def test_few_songs_have_fewer_directions() -> None:
    x, tags, true = planted(10)
    true[0] = True  # or nobody could have written of some
    fit = fit_naming(x, tags, *asked_of(true), NamingConfig(dim=20))
    assert fit is not None
    assert fit.songs.shape == (20, 30)
    assert (fit.songs[len(WORDS) :] == 0).all()
    assert np.isfinite(fit.texts).all()


def test_texts_of_many_words_are_left_alone() -> None:
    naming = Naming(NamingConfig(dim=2, query_words=6, full_words=16, inputs=3), 4)
    gate = naming.gate(torch.tensor([1, 6, 11, 16, 90]), torch.ones(5))
    assert gate.tolist() == pytest.approx([1, 1, 0.5, 0, 0])
    doubtful = naming.gate(torch.tensor([1, 11]), torch.tensor([0.5, 0.2]))
    assert doubtful.tolist() == pytest.approx([0.125, 0.004])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("calm piano, no drums", "calm piano,"),
        ("Without drums or bass, but with a flute.", ", but with a flute."),
        ("no vocals with strings", "with strings"),
        ("slow. Not loud; never fast! A piano", "slow. ; ! A piano"),
        ("nothing but notes, northern knots", "nothing but notes, northern knots"),
        ("no", ""),
    ],
)
def test_what_is_not_there_is_not_named(text: str, left: str) -> None:
    assert " ".join(affirmed(text).split()) == left


def test_words_that_are_denied_are_not_read(tower: Path) -> None:
    net = make_net(tower)
    read = net.named_words([["a soft piano, no drums"], ["a soft piano, "]])
    assert torch.equal(read[0], read[1])
    assert not torch.equal(read[0], net.named_words([["a soft piano, drums"]])[0])


def test_words_are_summed() -> None:
    table = torch.arange(12.0).reshape(4, 3)
    found = word_inputs([[1, 1, 2, 3], [2], []], table)
    assert torch.allclose(found[0], (2 * table[1] + table[2] + table[3]) / 2)
    assert torch.equal(found[1], table[2])
    assert (found[2] == 0).all()


def told_songs(tmp_path: Path, net: object) -> list[CachedSong]:
    """Songs with tags, queries and a long caption; some with "piano", some with "drums"."""
    songs = []
    for i, song in enumerate(songs_of(tmp_path, net, 12)):  # type: ignore[arg-type]
        tags = [name for name, n in (("piano", 3), ("drums", 2), ("soft", 4)) if i % n == 0]
        queries = [Caption(f"a {tag} {i}", form="query") for tag in tags or ["guitar"]]
        captions = (Caption(TOLD[i % 2] + f" Part {i}.", form="long"), *queries)
        songs.append(replace(song, song=replace(song.song, tags=tuple(tags), captions=captions)))
    return songs


def with_words_of_people(songs: list[CachedSong]) -> list[CachedSong]:
    """The same songs; of half of them people wrote as well."""
    told = [
        Caption(f"Quirky and {word}.") for word in ("bare", "alone", "loud", "fast", "soft", "slow")
    ]
    return [
        replace(s, song=replace(s.song, captions=(*s.song.captions, told[i])))
        for i, s in enumerate(songs[:6])
    ] + songs[6:]


@pytest.fixture
def pair(tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A network as trained, the same with the expert, and songs."""
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, naming=WANTED)
    songs = told_songs(tmp_path, net)
    return LongplayModel(net, ""), LongplayModel(with_naming(net, songs), ""), songs


def test_scores_are_those_of_both_experts(pair: Pair) -> None:
    plain, both, songs = pair
    naming = both.net.naming
    assert naming is not None

    def reads(passages: list[str]) -> tuple[torch.Tensor, float]:
        vector = naming.read(both.net.named_words([passages]).detach())[0]
        words = len(" ".join(passages).split())
        return vector, min(1.0, max(0.0, (11 - words) / 8))

    assert len(naming.songs) == 4
    assert set(check_scores((plain, both, songs[:4]), naming, ASKED, reads)) == {0.0, 0.5, 1.0}


def test_its_scores_spread_as_the_attention_s(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    fits = []
    monkeypatch.setattr(
        fitting, "fit_naming", lambda *given: fits.append(fit_naming(*given)) or fits[0]
    )
    net = make_net(tower, naming=replace(WANTED, strength=0.7))
    songs = told_songs(tmp_path, net)
    made = with_naming(net, songs)
    assert made.naming is not None
    told = [song for song in songs if song.song.tags]
    asked = [song.song.captions[1].text for song in told]
    plain = LongplayModel(net, "")
    clips = [state_of(plain, song).clip_emb[0].numpy() for song in told]
    embedded = [plain.embed_text(text) for text in asked]
    scores = [[pair_score(t.passage_emb, t.passage_weight, c, plain.tau) for c in clips]
              for t in embedded]  # fmt: skip
    named = made.naming.read(made.named_words([[text] for text in asked])).detach().numpy()
    products = float(made.naming.scale) * named @ unit(fits[0].held_out).T
    assert products.std() == pytest.approx(0.7 * np.std(scores), rel=1e-3)


def test_a_text_is_the_same_in_any_batch(pair: Pair) -> None:
    check_any_batch(pair[1], ASKED)


def test_a_song_that_asks_is_most_like_itself(pair: Pair) -> None:
    check_song_asks(pair[1], pair[2])


def test_a_checkpoint_keeps_it_and_training_begins_without(pair: Pair, tmp_path: Path) -> None:
    net = check_kept(pair, ASKED[0], tmp_path / "c", {"naming": {"dim": 3}})
    assert net.naming is None
    assert net.config.naming == NamingConfig(3)


def test_with_gist_narrow_space_and_bank_all_are_there(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    bank = QuerybankConfig(texts=4, full_passages=3, sharpness=10.0)
    given = {"gist": GistConfig(dim=3), "naming": WANTED, "querybank": bank}
    net = make_net(tower, **given, narrow=NarrowConfig(dim=18))
    songs = with_words_of_people(told_songs(tmp_path, net))
    made = finished(net, songs)
    for part in (made.gist, made.naming, made.narrow, made.querybank):
        assert part is not None
    assert made.config.joint_dim == 18
    alone = with_naming(with_gist(net, songs), songs)
    for kept, fitted in ((made.gist, alone.gist), (made.naming, alone.naming)):
        assert kept.songs.any()
        assert torch.equal(kept.songs, fitted.songs)
        assert torch.equal(kept.scale, fitted.scale)
    assert made.narrow.songs.shape[1] == net.config.dim + 3 + 4 + 2 * Beside.FILLERS
    scale = float(made.gist.rest) * float(made.naming.rest) * float(made.narrow.scale)
    assert float(made.tau.detach()) == pytest.approx(0.8 * scale * float(net.trained_tau.detach()))


def test_what_people_write_is_left_to_the_gist(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, gist=GistConfig(dim=3), naming=WANTED)
    songs = told_songs(tmp_path, net)
    made = finished(net, with_words_of_people(songs))
    assert made.gist is not None
    assert made.naming is not None
    own = slice(0, 4)
    sizes = {}
    for text in ("Quirky and loud.", "a drums 2"):
        gate = float(made.gist.of_texts(made.whole_texts([[text]]).detach())[1])
        with torch.inference_mode():
            emb = made.encode_texts([[text]]).passage_emb[0, 0, own]
        sizes[text] = float(emb.norm() / (1 - made.naming.rest).sqrt())
        assert sizes[text] == pytest.approx((1 - gate) ** 3, abs=1e-5)
    assert sizes["Quirky and loud."] < 0.1 < 0.3 < sizes["a drums 2"]


def test_it_needs_songs_with_tags_and_queries(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(tower, naming=WANTED)
    songs = told_songs(tmp_path, net)
    assert with_naming(net, songs) is net  # too few
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    assert with_naming(net, songs) is not net
    without = [replace(s, song=replace(s.song, tags=())) for s in songs]
    assert with_naming(net, without) is net
    short = [
        replace(s, song=replace(s.song, captions=(replace(s.song.captions[1], form="short"),)))
        for s in songs
    ]
    assert with_naming(net, short) is not net
    mute = [replace(s, song=replace(s.song, captions=s.song.captions[:1])) for s in songs]
    assert with_naming(net, mute) is net
    assert with_naming(make_net(tower), songs).naming is None


@pytest.mark.parametrize(
    ("given", "named"),
    [({"dim": 0}, "dim 0"), ({"full_words": 9}, "full_words 9"),
     ({"query_words": 0}, "query_words 0"), ({"rarity": 0.0}, "rarity"),
     ({"strength": -1.0}, "strength -1.0")],
)  # fmt: skip
def test_a_wrong_setting_is_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        NamingConfig(**given)  # type: ignore[arg-type]
