from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_net, write_songs

from retrieval.data.batches import Extras, TrainSteps
from retrieval.data.cache import FeatureCache
from retrieval.data.corpus.compose.plan import make_plan
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.labels import make_labels, tempo_class
from retrieval.data.labels import LabelKind, LabelSet
from retrieval.data.manifest import Caption, Label, Negative, Song, read_manifest, write_manifest
from retrieval.data.order import Part, SongOrder, share_out
from retrieval.data.text_cache import training_passages, warm_texts
from retrieval.data.views import random_view
from retrieval.encoders.mel import MelConfig, MelEncoder
from retrieval.errors import ConfigError, ManifestError
from retrieval.losses import contrast_loss, label_loss
from retrieval.mixing import mix_clips
from retrieval.objective import LossWeights, Objective


def song(*labels: Label) -> Song:
    return Song("s", Path("s.wav"), labels=labels)


LABELS = LabelSet(
    [LabelKind("instrument", ("drums", "piano"), False), LabelKind("key", ("C", "D"), True)]
)


def test_targets_are_the_parts_of_clips_that_labels_cover() -> None:
    times = torch.tensor([[0.0, 10], [10, 20]])
    target = LABELS.target(song(Label("instrument", "piano", 0, 15)), times)
    assert target[:, :2].tolist() == [[0, 1], [0, 0.5]]
    assert target[:, 2:].isnan().all()
    assert LABELS.target(song(Label("mood", "sad", 0, 9)), times).isnan().all()


def test_kinds_that_never_overlap_are_exclusive() -> None:
    a = song(Label("key", "C", 0, 5), Label("key", "D", 5, 9), Label("x", "only", 0, 9))
    b = song(Label("instrument", "piano", 0, 9), Label("instrument", "drums", 3, 9))
    found = LabelSet.from_songs([a, b], fewest=1)
    assert [(k.kind, k.exclusive) for k in found.kinds] == [("instrument", False), ("key", True)]
    assert len(found) == 4
    assert len(LabelSet.from_songs([a, b], fewest=2)) == 0


def test_label_loss_equals_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=rng, requires_grad=True)
    nan = float("nan")
    target = torch.tensor([[1, 0, 0.5, 0.5], [0.3, 1, nan, nan], [nan, nan, 0, 1.0]])
    binary, exclusive = [], []
    for row, want in zip(logits.detach(), target, strict=True):
        if not want[0].isnan():
            p = torch.sigmoid(row[:2])
            each = -(want[:2] * p.log() + (1 - want[:2]) * (1 - p).log())
            binary.append(float(each.mean()))
        if not want[2].isnan():
            exclusive.append(float(-(want[2:] * row[2:].softmax(0).log()).sum()))
    loss = label_loss(logits, target, LABELS)
    assert float(loss.detach()) == pytest.approx(
        (10 * np.mean(binary) + np.mean(exclusive)) / 2, rel=1e-5
    )
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    nothing = label_loss(logits, torch.full((3, 4), nan), LABELS)
    assert float(nothing.detach()) == 0


def test_contrast_loss_equals_a_loop_and_passes_over_what_is_filled_up() -> None:
    scores = torch.tensor([[0.03, 0.01, 0.09], [0.02, 0.05, 0.01]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    passages = torch.tensor([3, 12])
    total = 0.0
    for row, keep, count in zip(scores, mask, passages, strict=True):
        power = (16 * count * row[keep]).exp()
        total -= float((power[0] / power.sum()).log())
    assert float(contrast_loss(scores, mask, passages)) == pytest.approx(total / 2)
    assert float(contrast_loss(torch.zeros(0, 3), mask[:0], passages[:0])) == 0


def test_labels_of_a_composed_piece_are_its_facts() -> None:
    facts = read_facts(compose(make_plan(11, 60, 120), "p"))
    labels = make_labels(facts)
    for section in facts.sections:
        middle = (section.start_s + section.end_s) / 2
        now = [x for x in labels if x.start_s <= middle < x.end_s]
        playing = {x.name for x in now if x.kind == "instrument"}
        assert playing == set(section.instruments)
        assert [x.name for x in now if x.kind == "level"] == [section.level]
        assert section.bpm is None or [x.name for x in now if x.kind == "tempo"] == [
            tempo_class(section.bpm)
        ]
    assert {x.name for x in labels if x.kind == "style"} == {facts.style}
    assert tempo_class(60) == "60"
    assert tempo_class(119) == tempo_class(122) == "120"


def test_labels_are_written_and_read(tmp_path: Path) -> None:
    written = replace(song(Label("key", "C major", 0.5, 9.25)), audio=tmp_path / "s.wav")
    write_manifest([written], tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == [written]
    for bad in ('["key", "C", 3, 2]', '["key", 3, 0, 1]', '["key", "C"]', '{"kind": "key"}'):
        line = f'{{"id": "a", "audio": "a.wav", "labels": [{bad}]}}'
        (tmp_path / "bad.jsonl").write_text(line)
        with pytest.raises(ManifestError, match="labels"):
            read_manifest(tmp_path / "bad.jsonl")


def test_steps_bring_labels_and_false_captions(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    false = (Negative("A guitar. Fast.", "instrument"), Negative("Slow. A piano.", "swap"))
    songs = []
    for i, given in enumerate(read_manifest(write_songs(tmp_path, 5))):
        captions = (Caption("A piano. Slow.", "generated", (), "long", false[: i % 3]),)
        songs.append(
            cache.get(replace(given, captions=captions, labels=(Label("key", "C", 0, 3),)))
        )
    steps = TrainSteps([Part(songs, 5)], net, 2, 0, labels=LABELS, extras=Extras(2, 3, 4, 0.0))
    batch = steps[0]
    assert batch.labels.shape == (int(batch.songs.clip_mask.sum()), 4)
    assert batch.caption_ids is not None
    assert len(batch.caption_ids) == len(batch.caption_song) == 2
    told = [len(songs[i].song.captions[0].negatives) for i in steps.order.step(0)]
    assert len(batch.contrast_song) == min(3, sum(n > 0 for n in told))
    assert len(batch.contrast_texts) == 4 * len(batch.contrast_song)
    for row, j in enumerate(batch.contrast_song.tolist()):
        real = batch.contrast_mask[row].tolist()
        assert real == [True] * (1 + told[j]) + [False] * (3 - told[j])
        texts = [" ".join(t) for t in batch.contrast_texts[4 * row : 4 * row + 4]]
        assert texts[0] == "A piano. Slow."
        assert all((text == texts[0]) == (k == 0 or not real[k]) for k, text in enumerate(texts))


def test_a_shuffled_song_is_never_in_its_own_order(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower).eval()
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [cache.get(s) for s in read_manifest(write_songs(tmp_path, 3))]
    batch = TrainSteps([Part(songs, 3)], net, 4, 0)[0]
    objective = Objective(net, LossWeights())
    vectors = net.encode_clips(batch.songs.prepared, batch.songs.filled)
    heard = batch.songs
    plain = net.contextualise(vectors, heard.clip_mask, heard.position, heard.place)
    for _ in range(40):  # three clips are drawn in their own order every sixth time
        shuffled = objective._shuffled(vectors, batch)
        assert torch.equal(shuffled.clip_mask, plain.clip_mask)
        difference = (shuffled.clip_emb - plain.clip_emb).abs().amax(dim=(1, 2))
        assert (difference > 1e-4).all()


def test_facts_alone_are_learned_without_texts(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [
        cache.get(replace(s, labels=(Label("key", "C", 0, 3),)))
        for s in read_manifest(write_songs(tmp_path, 3))
    ]
    batch = TrainSteps([Part(songs, 3)], net, 1, 0, labels=LABELS, extras=Extras(0, 0, 2, 0.0))[0]
    monkeypatch.setattr(net, "encode_texts", None)  # would fail if it were called
    losses = Objective(net, LossWeights(0, 0, 0, 0, 1.0), LABELS)(batch)
    assert set(losses) == {"total", "labels"}
    losses["total"].backward()
    assert next(net.audio.parameters()).grad is not None
    with pytest.raises(ConfigError, match="labels"):
        Objective(net, LossWeights(0, 0, 0, 0, 1.0))(batch)
    with pytest.raises(ConfigError, match="at least one"):
        LossWeights(0, 0, 0, 0, 0)


def test_two_songs_at_once_have_the_instruments_of_both() -> None:
    torch.manual_seed(0)
    encoder = MelEncoder(MelConfig(widths=(8, 8, 8, 8), context_layers=1))
    clips = torch.randn(5, 8, 6).half()
    target = torch.tensor(
        [[1.0, 0, 1, 0], [0, 0, 1, 0], [0, 0.5, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1]]
    )
    given = clips.clone(), target.clone()
    mixed, asked = mix_clips(encoder, clips, target, LABELS, 0.4)
    assert torch.equal(clips, given[0])
    assert torch.equal(target, given[1])
    assert asked[0, :2].tolist() == [1, 0.5]
    assert asked[1, :2].tolist() == [1, 0]
    assert asked[:2, 2:].isnan().all()
    assert torch.equal(mixed[2:], clips[2:])
    assert torch.equal(asked[2:], target[2:])
    for row in range(2):  # powers add up, at one level for the whole clip
        power = 10 ** (2 * mixed[row].float()) - 10 ** (2 * clips[row].float())
        level_db = 10 * (power.log10() - 2 * clips[row + 2].float())
        assert float(level_db.median().abs()) < 8
        assert float((level_db - level_db.median()).abs().median()) < 0.1


def test_clips_are_mixed_for_labels_alone(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    with pytest.raises(ConfigError, match="no text fits two songs"):
        Objective(net, LossWeights(), LABELS, mix=0.25)
    with pytest.raises(ConfigError, match=r"0 to 0\.5"):
        Objective(net, LossWeights(0, 0, 0, 0, 1.0), LABELS, mix=0.6)
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [
        cache.get(replace(s, labels=(Label("key", "C", 0, 3),)))
        for s in read_manifest(write_songs(tmp_path, 4))
    ]
    batch = TrainSteps([Part(songs, 4)], net, 1, 0, labels=LABELS, extras=Extras(0, 0, 2, 0.0))[0]
    net.audio.vary = lambda prepared, filled, song: (prepared, filled)
    objective = Objective(net, LossWeights(0, 0, 0, 0, 1.0), LABELS, mix=0.5).eval()
    heard, alone = batch.songs.prepared.clone(), objective(batch)["labels"].item()
    assert objective(batch)["labels"].item() == alone
    assert objective.train()(batch)["labels"].item() != alone
    with torch.autocast("cpu", torch.bfloat16):  # as on processors with bfloat16
        assert objective(batch)["labels"].isfinite()
    assert torch.equal(batch.songs.prepared, heard)


def test_tags_become_texts(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [
        cache.get(replace(s, tags=("piano", "slow")))
        for s in read_manifest(write_songs(tmp_path, 3))
    ]
    batch = TrainSteps([Part(songs, 3)], net, 2, 0, extras=Extras(tags=1.0))[0]
    assert all(set(t[0].split(", ")) <= {"piano", "slow"} for t in batch.texts)
    assert batch.caption_ids is None


class BeforeQueries(TrainSteps):
    """Texts as they were drawn before there was a chance of queries."""

    def _text(self, tags, song, times, rng):
        chosen = tags if rng.random() < self.extras.tags else ()
        return random_view(song.captions, self._split, times, rng, tags=chosen)


def test_queries_become_texts(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    asked = ("a slow piano", "loud drums", "guitar alone")
    songs = []
    for i, given in enumerate(read_manifest(write_songs(tmp_path, 4))):
        own = tuple(Caption(f"{text} {i}", "generated", (), "query") for text in asked)
        captions = (*given.captions, *own) if i % 2 else given.captions
        songs.append(cache.get(replace(given, captions=captions, tags=("strings", "bare"))))
    queries = {s.song.id: [c.text for c in s.song.captions if c.form == "query"] for s in songs}

    def texts(kind: type[TrainSteps], **chances: float) -> list[tuple[str, list[str]]]:
        steps = kind([Part(songs, 4)], net, 2, 0, extras=Extras(0, 0, 2, **chances))
        return [
            (songs[i].song.id, text)
            for step in range(12)
            for i, text in zip(steps.order.step(step), steps[step].texts, strict=True)
        ]

    for song_id, text in texts(TrainSteps, tags=0.0, queries=1.0):
        assert text
        if queries[song_id]:
            assert set(text) <= set(queries[song_id])
        else:
            assert all(p.startswith(("A ", "It ends", "song number")) for p in text)
    for song_id, text in texts(TrainSteps, tags=0.5, queries=0.5):
        words = {word for passage in text for word in passage.split(", ")}
        assert not queries[song_id] or words <= {"strings", "bare"} or words <= {*queries[song_id]}
    for tags in (0.0, 0.5):
        assert texts(TrainSteps, tags=tags) == texts(BeforeQueries, tags=tags)
        assert texts(TrainSteps, tags=tags, queries=0.5) != texts(BeforeQueries, tags=tags)


def test_a_step_is_shared_out_among_collections(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    songs = [cache.get(s) for s in read_manifest(write_songs(tmp_path, 9))]
    parts = share_out([songs[:7], songs[7:]], [3, 1], 4)
    assert [part.per_step for part in parts] == [3, 1]
    order = SongOrder(parts, 0)
    seen = np.bincount([i for step in range(14) for i in order.step(step)], minlength=9)
    assert seen.tolist() == [6] * 7 + [7] * 2
    assert [p.per_step for p in share_out([songs[:7], songs[7:]], None, 4)] == [4]
    with pytest.raises(ConfigError, match="shares"):
        share_out([songs], [1, 2], 4)


def test_warmed_passages_are_close_to_the_towers_own(tmp_path: Path, tower: Path) -> None:
    net, other = make_net(tower), make_net(tower)
    songs = read_manifest(write_songs(tmp_path, 6))
    passages = training_passages(net, songs)
    assert len(passages) == len(set(passages)) > 3
    assert training_passages(net, songs, workers=2) == passages
    warm_texts(net, passages, tmp_path / "cache")
    for passage in passages:
        a, b = (torch.nn.functional.normalize(n.text([passage])[0], dim=0) for n in (net, other))
        assert float(a @ b) > 0.999
    calls: list[int] = []
    third = make_net(tower)
    warm_texts(third, passages, tmp_path / "cache", lambda done, total: calls.append(total))
    assert not calls  # all came from disk
    assert torch.equal(third.text(passages), net.text(passages))


@pytest.mark.parametrize("chances", [{"tags": 0.25, "queries": 0.9}, {"queries": -0.1}])
def test_chances_of_texts_are_chances(chances: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"tags .* queries"):
        Extras(**chances)  # type: ignore[arg-type]
