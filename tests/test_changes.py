"""An expert for who comes in or drops out and when, inside the embeddings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from experts import Pair, check_any_batch, check_kept, check_scores, check_song_asks, unit
from test_querybank import TOLD, songs_of
from tiny import make_net

from retrieval import fitting
from retrieval.beside import Beside
from retrieval.changes import (
    WAYS,
    Changes,
    ChangesConfig,
    Heard,
    Search,
    changes_of,
    fit_changes,
    way_of,
)
from retrieval.data.cache import CachedSong
from retrieval.data.manifest import Caption, Label, Section
from retrieval.errors import ConfigError
from retrieval.finish import finished
from retrieval.fitting import with_changes
from retrieval.gist import GistConfig
from retrieval.inference import LongplayModel
from retrieval.naming import NamingConfig
from retrieval.narrow import NarrowConfig

WANTED = ChangesConfig(dim=4, strength=1.0, full_passages=3)
NAMES = ["drums", "guitar", "piano", "strings"]
PHRASES = [f"{verb} {where}" for verb in ("in", "out") for where in ("early", "halfway", "late")]
ASKED = ["where drums in late", "Drums.", TOLD[0] + " Part 0.", "A piano. Then drums out early."]


def slow_changes(level: np.ndarray) -> np.ndarray:
    """``[clips, players]`` of one song -> ``[players, WAYS]``, border by border."""
    clips, players = level.shape
    found = np.zeros((players, WAYS))
    for border in range(1, clips):
        after = level[border : border + 2].mean(axis=0)
        before = level[max(border - 2, 0) : border].mean(axis=0)
        share = border / clips
        place = 0 if share < 0.3 else 1 if share < 0.6 else 2
        for player in range(players):
            step = after[player] - before[player]
            found[player, place] = max(found[player, place], step)
            found[player, 3 + place] = max(found[player, 3 + place], -step)
    return found


def test_changes_are_those_of_each_border() -> None:
    rng = np.random.default_rng(0)
    counts = [1, 2, 3, 7, 10, 20]
    level = rng.random((len(counts), 20, 3)).astype(np.float32)
    found = changes_of(torch.from_numpy(level), torch.tensor(counts))
    for i, count in enumerate(counts):
        assert np.allclose(found[i].numpy(), slow_changes(level[i, :count]), atol=1e-6)
        alone = changes_of(torch.from_numpy(level[i : i + 1, :count]), torch.tensor([count]))
        assert torch.equal(alone[0], found[i])


def test_a_player_who_comes_in_halfway_and_drops_out_late() -> None:
    level = torch.zeros(1, 20, 2)
    level[0, 8:15, 0] = 1
    found = changes_of(level, torch.tensor([20]))[0]
    assert found[0, way_of(True, 8 / 20)] == 1
    assert found[0, way_of(False, 15 / 20)] == 1
    assert found.sum() == 2


def test_ways_have_numbers() -> None:
    shares = (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)
    assert [way_of(True, share) for share in shares] == [0, 0, 1, 1, 2, 2]
    assert [way_of(False, share) for share in shares] == [3, 3, 4, 4, 5, 5]


def planted(songs: int = 120, seed: int = 0) -> tuple[list[Heard], np.ndarray, list[Search]]:
    """Songs whose clips tell who plays, one change each, and searches for all changes."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((len(NAMES), 12))
    table = np.random.default_rng(8).standard_normal((len(NAMES) + WAYS + 1, 24))
    heard, change = [], np.zeros((songs, len(NAMES) * WAYS), bool)
    for i in range(songs):
        player, way, clips = rng.integers(len(NAMES)), rng.integers(WAYS), 20
        level = np.tile(rng.random(len(NAMES)) < 0.5, (clips, 1)).astype(float)
        border = (3, 9, 15)[way % 3]
        level[:, player] = np.arange(clips) >= border if way < 3 else np.arange(clips) < border
        heard.append(Heard(level @ mixing + 0.1 * rng.standard_normal((clips, 12)), level))
        change[i, player * WAYS + way] = True
    searches = [
        Search(f"{name} {PHRASES[way]}", (table[p] + table[len(NAMES) + way]) / 2**0.5, way)
        for p, name in enumerate(NAMES)
        for way in range(WAYS)
    ] * 4
    other = [Search(name, (table[p] + table[-1]) / 2**0.5, None) for p, name in enumerate(NAMES)]
    return heard, change, searches + other * 8


def fitted(config: ChangesConfig, songs: list[Heard], searches: list[Search]) -> Changes:
    fit = fit_changes(songs, searches, NAMES, config)
    assert fit is not None
    made = Changes(replace(config, inputs=12, players=len(NAMES)), 24)
    for name, value in fit[0].items():
        getattr(made, name).copy_(torch.as_tensor(value))
    return made


def test_it_finds_the_songs_with_the_change_that_is_asked_for() -> None:
    heard, _, searches = planted()
    made = fitted(ChangesConfig(dim=24), heard, searches)
    others, change, _ = planted(60, seed=1)
    clips = torch.tensor(np.stack([song.clips for song in others]))
    songs = made.of_songs(clips, torch.ones(clips.shape[:2], dtype=torch.bool)).numpy()
    asked = searches[: len(NAMES) * WAYS]
    texts = made.read(torch.tensor(np.stack([s.words for s in asked]))).numpy()
    score = texts @ songs.T
    assert np.allclose(np.linalg.norm(songs, axis=1), 1, atol=1e-5)
    for column in range(len(asked)):
        if change[:, column].any():
            own = change[:, column]
            assert score[column, own].min() > score[column, ~own].max()


def test_the_gate_knows_searches_for_a_moment_and_short_texts() -> None:
    heard, _, searches = planted()
    made = fitted(ChangesConfig(dim=8, full_passages=5), heard, searches)
    words = torch.tensor(np.stack([searches[0].words, searches[-1].words]), dtype=torch.float32)
    one = made.gate(words, torch.tensor([1, 1]))
    assert one[0] > 0.8
    assert one[1] < 0.3
    more = made.gate(words[[0, 0, 0]], torch.tensor([1, 3, 5]))
    assert torch.allclose(more, one[0] * torch.tensor([1, 0.5, 0]))


def test_songs_are_left_out_whole() -> None:
    """Clips of a song say nothing of one another: who plays what was dealt at random."""
    heard, _, searches = planted()
    rng = np.random.default_rng(3)
    clips = [rng.standard_normal((1, 12)) + 0.01 * rng.standard_normal((20, 12)) for _ in heard]
    dealt = [Heard(c, song.level[:1].repeat(20, 0)) for c, song in zip(clips, heard, strict=True)]
    fit = fit_changes(dealt, searches, NAMES, ChangesConfig(dim=8, shrink=1e-6))
    assert fit is not None
    # Nothing changes within these songs, and left out nothing is known of them either.
    assert np.abs(fit[1]).max() < 0.5


def test_without_moments_or_players_there_is_none() -> None:
    heard, _, searches = planted(8)
    plain = [replace(search, way=None) for search in searches]
    assert fit_changes(heard, plain, NAMES, WANTED) is None
    unnamed = [replace(search, text="something") for search in searches]
    assert fit_changes(heard, unnamed, NAMES, WANTED) is None


def told_songs(tmp_path: Path, net: object) -> list[CachedSong]:
    """Songs of 12 s with a player who comes in or drops out, and searches for that."""
    songs = []
    for i, song in enumerate(songs_of(tmp_path, net, 12)):  # type: ignore[arg-type]
        end = song.duration_s
        name, at = NAMES[i % 2], end * (0.2, 0.5, 0.8)[i % 3]
        span = (at, end) if i % 4 < 2 else (0.0, at)
        labels = (Label("instrument", name, *span), Label("instrument", "piano", 0.0, end))
        text = f"where {name} {'in' if i % 4 < 2 else 'out'} {('early', 'halfway', 'late')[i % 3]}"
        captions = (
            Caption(TOLD[i % 2] + f" Part {i}.", form="long"),
            Caption(f"a {name} {i}", form="query"),
            Caption(text, sections=(Section(at, end, text),), form="query"),
        )
        songs.append(replace(song, song=replace(song.song, labels=labels, captions=captions)))
    return songs


@pytest.fixture
def pair(tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """A network as trained, the same with the expert, and songs."""
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    net = make_net(tower, changes=WANTED)
    songs = told_songs(tmp_path, net)
    return LongplayModel(net, ""), LongplayModel(with_changes(net, songs), ""), songs


def test_scores_are_those_of_both_experts(pair: Pair) -> None:
    plain, both, songs = pair
    changes = both.net.changes
    assert changes is not None

    def reads(passages: list[str]) -> tuple[torch.Tensor, float]:
        words = both.net.named_words([passages]).detach()
        gate = changes.gate(words, torch.tensor([len(passages)]))
        return changes.read(words)[0], float(gate)

    gates = check_scores((plain, both, songs[:4]), changes, ASKED, reads)
    assert max(gates) > 0.5
    assert min(gates) == 0


def test_a_text_is_the_same_in_any_batch(pair: Pair) -> None:
    check_any_batch(pair[1], ASKED)


def test_a_song_that_asks_is_most_like_itself(pair: Pair) -> None:
    check_song_asks(pair[1], pair[2])


def test_a_checkpoint_keeps_it_and_training_begins_without(pair: Pair, tmp_path: Path) -> None:
    net = check_kept(pair, ASKED[0], tmp_path / "c", {"changes": {"dim": 3}})
    assert net.changes is None
    assert net.config.changes == ChangesConfig(3)


def test_all_experts_stand_beside_one_another(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    naming = NamingConfig(dim=3, full_passages=3)
    net = make_net(
        tower, gist=GistConfig(dim=2), naming=naming, changes=WANTED, narrow=NarrowConfig(dim=16)
    )
    songs = [
        replace(
            s,
            song=replace(
                s.song,
                tags=("drums",) if i % 2 else ("piano",),
                captions=(*s.song.captions, Caption(f"Quirky and loud {i}.")),
            ),
        )
        for i, s in enumerate(told_songs(tmp_path, net))
    ]
    made = finished(net, songs)
    assert [type(expert).__name__ for expert in made.experts] == ["Gist", "Naming", "Changes"]
    assert made.narrow is not None
    assert made.narrow.songs.shape[1] == net.config.dim + 2 + 3 + 4 + 3 * Beside.FILLERS
    assert made.config.joint_dim == 16


def test_it_needs_songs_with_players_and_searches_for_a_moment(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(tower, changes=WANTED)
    songs = told_songs(tmp_path, net)
    assert with_changes(net, songs) is net  # too few
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    assert with_changes(net, songs) is not net
    without = [replace(s, song=replace(s.song, labels=())) for s in songs]
    assert with_changes(net, without) is net
    plain = [replace(s, song=replace(s.song, captions=s.song.captions[:2])) for s in songs]
    assert with_changes(net, plain) is net
    assert with_changes(make_net(tower), songs).changes is None


def test_the_change_is_that_of_the_player_who_is_named(tmp_path: Path, tower: Path) -> None:
    song = told_songs(tmp_path, make_net(tower))[0]
    end = song.duration_s
    labels = (
        Label("instrument", "drums", 0.5 * end, end),
        Label("instrument", "piano", 0.0, 0.5 * end),
        Label("instrument", "guitar", 0.0, 0.5 * end),
    )
    song = replace(song, song=replace(song.song, labels=labels))

    def way(text: str, share: float = 0.5, sections: int = 1) -> int | None:
        spans = tuple(Section(share * end, end, text) for _ in range(sections))
        return fitting.way_in(song, Caption(text, sections=spans, form="query"))

    assert way("where the drums come in") == way_of(True, 0.5)
    assert way("where piano and guitar drop out") == way_of(False, 0.5)
    assert way("drums and piano") is None  # one comes in, one drops out
    assert way("where the drums come in", share=0.9) is None  # nobody does there
    assert way("strings") is None
    assert way("where the drums come in", sections=0) is None


@pytest.mark.parametrize(
    ("given", "named"),
    [({"dim": 0}, "dim 0"), ({"full_passages": 1}, "full_passages 1"), ({"players": -1}, "-1"),
     ({"rarity": 0.0}, "rarity"), ({"shrink": 0.0}, "shrink 0"), ({"strength": -1.0}, "-1.0")],
)  # fmt: skip
def test_a_wrong_setting_is_named(given: dict[str, float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ChangesConfig(**given)  # type: ignore[arg-type]


def test_unit_rows_are_what_is_compared() -> None:
    heard, _, searches = planted(20)
    made = fitted(ChangesConfig(dim=6), heard, searches)
    rows = made.read(torch.tensor(np.stack([s.words for s in searches]))).numpy()
    assert np.allclose(rows, unit(rows), atol=1e-6)
