"""What makes a training step hard: songs that are alike, and songs in two orders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_net, write_songs

from retrieval.data.arrangements import draw_arrangements
from retrieval.data.batches import Extras, TrainBatch, TrainSteps
from retrieval.data.cache import CachedSong, FeatureCache
from retrieval.data.manifest import Caption, Section, read_manifest
from retrieval.data.neighbours import blocks_of_alike, likeness, tag_table
from retrieval.data.order import Part, SongOrder
from retrieval.errors import ConfigError
from retrieval.model import CoLLAP
from retrieval.objective import LossWeights, Objective
from retrieval.text import Passage

TAGS = [("a", "b"), ("a", "b", "c"), ("x",), ("x", "y"), ("q", "r"), ("r", "q")]


def timed(*texts: str, seconds: float = 1.0) -> Caption:
    sections = tuple(Section(i * seconds, (i + 1) * seconds, text) for i, text in enumerate(texts))
    return Caption(" ".join(texts), "generated", sections, "timed")


def whole(text: str) -> list[Passage]:
    return [Passage(text, 0, len(text))]


def cached(tmp_path: Path, net: CoLLAP, count: int, *texts: str) -> list[CachedSong]:
    cache = FeatureCache(tmp_path / "cache", net)
    return [
        cache.get(replace(song, captions=(timed(*texts),), tags=TAGS[i % len(TAGS)]))
        for i, song in enumerate(read_manifest(write_songs(tmp_path, count)))
    ]


def test_likeness_is_the_share_of_common_tags() -> None:
    tags = [*TAGS, ()]
    every = np.arange(len(tags))
    for i, one in enumerate(tags):
        for other, found in zip(tags, likeness(tag_table(tags), i, every), strict=True):
            either = set(one) | set(other)
            share = len(set(one) & set(other)) / len(either) if either else 0
            assert found == pytest.approx(share)


def test_blocks_hold_every_song_once_beside_its_nearest() -> None:
    rng = np.random.default_rng(0)
    has = tag_table(TAGS)
    for _ in range(30):
        blocks = blocks_of_alike(has, 2, rng)
        assert sorted(i for block in blocks for i in block) == list(range(6))
        assert [2, 3] in [sorted(block) for block in blocks]
        assert all(len(block) == 2 for block in blocks)
    starts = {blocks_of_alike(has, 3, rng)[0][0] for _ in range(30)}
    assert len(starts) > 3


def test_a_step_takes_songs_that_are_alike(tmp_path: Path, tower: Path) -> None:
    songs = cached(tmp_path, make_net(tower), 6, "A piano.", "Drums.")
    order = SongOrder([Part(songs, 2)], 0, alike=2)
    for start in range(0, 30, 3):
        steps = [order.step(start + k) for k in range(3)]
        assert sorted(i for step in steps for i in step) == list(range(6))
        assert [2, 3] in [sorted(step) for step in steps]
    again = SongOrder([Part(songs, 2)], 0, alike=2)
    assert [again.step(k) for k in range(9)] == [order.step(k) for k in range(9)]
    with pytest.raises(ConfigError, match=r"data\.alike: got 0"):
        SongOrder([Part(songs, 2)], 0, alike=0)


def test_variants_of_a_song_stay_together_in_blocks(tmp_path: Path, tower: Path) -> None:
    songs = cached(tmp_path, make_net(tower), 6, "A piano.", "Drums.")
    for i in (0, 4):
        songs[i] = replace(songs[i], song=replace(songs[i].song, meta={"group": "g"}))
    order = SongOrder([Part(songs, 6)], 0, alike=2)
    for number in range(10):
        step = order.step(number)
        assert abs(step.index(0) - step.index(4)) == 1


def test_two_arrangements_tell_the_same_clips_in_two_orders() -> None:
    rng = np.random.default_rng(0)
    times = np.stack([np.arange(8), np.arange(8) + 1.0], axis=1)  # a second each
    caption = timed("a", "b", "c", seconds=2.0)  # the last two clips lie in no section
    first_is_own = 0
    for _ in range(60):
        pair = draw_arrangements(
            (Caption("x", "generated", (), "long"), caption), times, whole, rng
        )
        if pair is None:  # both orders came out the same
            continue
        for one in pair:
            said = np.repeat([" abc".index(p) - 1 for p in one.passages], 2)
            assert (one.clips // 2).tolist() == said.tolist()
            assert one.place[:, 0].tolist() == pytest.approx((np.arange(6) / 6).tolist())
            assert one.place[-1, 1] == pytest.approx(1)
        assert pair[0].passages != pair[1].passages
        first_is_own += pair[0].passages == ["a", "b", "c"]
    assert 20 < first_is_own < 45


@pytest.mark.parametrize(
    "captions",
    [
        (),
        (Caption("a b", "human"),),
        (timed("a"),),
        (timed("a", "a", seconds=4.0),),  # both orders say the same
        (timed("a", "b", seconds=40.0),),  # all clips lie in the first
        (replace(timed("a", "b"), form="long"),),
    ],
)
def test_songs_without_two_orders_are_left_out(captions: tuple[Caption, ...]) -> None:
    times = np.stack([np.arange(8), np.arange(8) + 1.0], axis=1)
    rng = np.random.default_rng(1)
    assert all(draw_arrangements(captions, times, whole, rng) is None for _ in range(10))


def batch_of(tmp_path: Path, net: CoLLAP, orders: int = 3) -> TrainBatch:
    songs = cached(tmp_path, net, 4, "A piano.", "Drums come.", "A flute.", "It ends.")
    extras = Extras(0, 0, 2, 0.0, orders=orders)
    return next(
        batch
        for step in range(20)
        if len(
            (batch := TrainSteps([Part(songs, 4)], net, 4, step, extras=extras)[0]).arranged.texts
        )
    )


def test_arranged_songs_are_rows_of_the_step(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    batch = batch_of(tmp_path, net)
    arranged, heard = batch.arranged, batch.songs
    assert len(arranged.texts) == len(arranged.clips) in (2, 4, 6)
    owner = heard.clip_mask.nonzero()[:, 0]
    for row in range(0, len(arranged.clips), 2):
        rows = [arranged.clips[row + k][arranged.mask[row + k]] for k in (0, 1)]
        assert sorted(rows[0].tolist()) == sorted(rows[1].tolist())
        assert len(owner[rows[0]].unique()) == 1
        assert arranged.texts[row] != arranged.texts[row + 1]
        assert sorted(arranged.texts[row]) == sorted(arranged.texts[row + 1])
        assert torch.equal(arranged.position[row], arranged.position[row + 1])


def test_the_order_loss_compares_both_ways(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower).eval()
    batch = batch_of(tmp_path, net)
    weights = LossWeights(0, 0, 0, 0, 0, order=1.0)
    losses = Objective(net, weights)(batch)
    arranged = batch.arranged
    vectors = net.encode_clips(batch.songs.prepared, batch.songs.filled)
    total, n = 0.0, len(arranged.texts)
    with torch.no_grad():
        for i in range(n):

            def score(text: int, song: int) -> float:
                told = net.encode_texts([arranged.texts[text]])
                clips = vectors[arranged.clips[song][arranged.mask[song]]]
                kept = arranged.mask[song : song + 1, : len(clips)]
                where = arranged.position[song : song + 1, : len(clips)]
                place = arranged.place[song : song + 1, : len(clips)]
                return float(net.score(told, net.contextualise(clips, kept, where, place)))

            scale = 16 * len(arranged.texts[i])
            for wrong in (score(i ^ 1, i), score(i, i ^ 1)):
                total += np.logaddexp(0, scale * (wrong - score(i, i))) / (2 * n)
    assert losses["order"].item() == pytest.approx(total, rel=1e-3)
    assert losses["total"].item() == losses["order"].item()


def test_a_step_without_orders_has_no_order_loss(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    songs = cached(tmp_path, net, 4, "A piano.", "Drums come.")
    batch = TrainSteps([Part(songs, 4)], net, 4, 0, extras=Extras(0, 0, 2, 0.0))[0]
    assert batch.arranged.texts == []
    assert "order" not in Objective(net, LossWeights(order=1.0))(batch)
