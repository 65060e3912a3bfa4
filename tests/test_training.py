from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ddp_worker import gradients
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny import make_net, write_songs

import evaluate
import train
from retrieval import fitting
from retrieval.build import build_net
from retrieval.caption_format import format_caption, parse_caption
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.batches import TrainSteps, pick_clips
from retrieval.data.cache import FeatureCache, cache_songs
from retrieval.data.manifest import Caption, Section, Song, read_manifest
from retrieval.data.order import Part
from retrieval.data.readers.splits import split_songs
from retrieval.errors import CheckpointError
from retrieval.losses import info_nce, same_pairs, section_target
from retrieval.model import CoLLAP
from retrieval.ship import main as ship_main

CONF = str(Path(train.__file__).parent / "conf")


def test_info_nce_equals_a_loop_and_leaves_duplicates_out() -> None:
    rng = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 5, generator=rng)
    song, text = torch.tensor([1, 2, 1, 3, 4]), torch.tensor([7, 8, 9, 8, 6])
    same = same_pairs(song, text)
    total = 0.0
    for i in range(5):
        for row in (scores[i], scores[:, i]):
            kept = [j for j in range(5) if j == i or not same[i, j]]
            total -= math.log(math.exp(2 * row[i]) / sum(math.exp(2 * row[j]) for j in kept))
    assert float(info_nce(scores, torch.tensor(2.0), same)) == pytest.approx(total / 10, rel=1e-5)


def test_long_texts_are_told_apart_more_sharply() -> None:
    rng = torch.Generator().manual_seed(1)
    scores, scale = torch.randn(3, 3, generator=rng), torch.tensor(2.0)
    same = torch.eye(3, dtype=torch.bool)
    weight = torch.tensor([[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]], requires_grad=True)
    total = 0.0
    for i, times in enumerate((1, 2, math.sqrt(2))):  # as passages err independently
        for row, factor in ((scores[i], 2 * times), (scores[:, i], 2)):
            total -= math.log(math.exp(factor * row[i]) / sum(math.exp(factor * x) for x in row))
    loss = info_nce(scores, scale, same, weight)
    assert float(loss) == pytest.approx(total / 6, rel=1e-5)
    assert not loss.requires_grad  # weights are not spread for the sake of sharpness
    alike = torch.full((3, 1), 1.0)
    assert float(info_nce(scores, scale, same, alike)) == float(info_nce(scores, scale, same))


def test_sections_become_targets_over_clips() -> None:
    times = torch.tensor([[0.0, 10], [10, 20], [20, 30]])
    target = section_target([(0, 10), (10, 20), (30, 40)], [(0, 10, 0, 10), (10, 20, 5, 30)], times)
    assert target[0].tolist() == [1, 0, 0]
    assert target[1].tolist() == pytest.approx([0.2, 0.4, 0.4])
    assert target[2].sum() == 0


def test_captions_with_times_are_read_back() -> None:
    sections = (Section(0, 30, "A piano opens."), Section(30, 100, "Strings end it."))
    line = format_caption(Caption("Calm. A piano opens. Strings end it.", "human", sections), 100)
    assert line == "Calm. <0 30> A piano opens. <30 99> Strings end it."
    read = parse_caption(line.lower().replace("<", "< ").replace(">", " >"), 200)
    assert read.text == "Calm. A piano opens. Strings end it."
    assert [(s.start_s, s.end_s) for s in read.spans] == [(0, 60), (60, 198)]


def test_steps_are_a_function_of_seed_and_step(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    cache = FeatureCache(tmp_path / "cache", net)
    songs, bad = cache_songs(read_manifest(write_songs(tmp_path, 7)), cache)
    assert not bad
    parts = [Part(songs, 4)]
    a, b = (TrainSteps(parts, net, 2, seed=3) for _ in range(2))
    one, two = a[5], b[5]
    assert torch.equal(one.songs.prepared, two.songs.prepared)
    assert one.texts == two.texts
    halves = [TrainSteps(parts, net, 2, 3, rank, 2)[5] for rank in (0, 1)]
    assert halves[0].texts + halves[1].texts == one.texts
    seen = [i for step in range(7) for i in a.order.step(step)]
    assert np.bincount(seen).tolist() == [4] * 7


def test_picked_clips_spread_over_the_song() -> None:
    rng = np.random.default_rng(0)
    rows = pick_clips(40, 8, rng)
    assert len(rows) == 8
    assert (rows // 5 == np.arange(8)).all()
    assert pick_clips(3, 8, rng).tolist() == [0, 1, 2]


def test_splits_keep_songs_with_one_description_together() -> None:
    songs = [Song(f"s{i}", Path("x"), (Caption(f"text {i // 2}"),)) for i in range(60)]
    folds = [split_songs(songs, fold) for fold in range(3)]
    for i in range(0, 60, 2):
        assert all(f[i].split == f[i + 1].split for f in folds)
        assert sum(f[i].split == "test" for f in folds) == 1
    assert all(sum(s.split == "test" for s in f) in range(18, 23) for f in folds)


def test_checkpoints_are_whole_and_damage_is_found(tmp_path: Path, tower: Path) -> None:
    net = make_net(tower)
    folder = save_checkpoint(net, tmp_path / "c", {"step": 1}, "# card")
    model = load_model(folder)
    assert model.digest == load_model(folder).digest
    for name, value in net.state_dict().items():
        assert torch.equal(value, model.net.state_dict()[name]), name
    half = load_model(save_checkpoint(net, tmp_path / "h", {}, "", torch.float16))
    assert half.digest != model.digest
    a, b = (m.embed_text("a piano. drums.").passage_emb for m in (model, half))
    assert np.abs(a - b).max() < 5e-3  # tolerance of float16 weights
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        load_model(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="format"):
        load_model(folder)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(tmp_path / "nothing")


def smoke(root: Path, tower: Path, runs: str, *overrides: str):
    with initialize_config_dir(CONF, version_base="1.3"):
        return compose(
            "train",
            [
                "experiment=smoke",
                f"data.manifest={root / 'manifest.jsonl'}",
                f"paths.runs={root / runs}",
                f"paths.cache={root / 'cache'}",
                f"text.weights={tower}",
                "text.max_tokens=12",
                "encoder.clip_s=2.0",
                "trainer.accelerator=cpu",
                "+trainer.enable_progress_bar=false",
                "scheduler.total_steps=4",
                *overrides,
            ],
        )


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path: Path, tower: Path) -> None:
    write_songs(tmp_path, 9)
    train.run(smoke(tmp_path, tower, "a"))
    train.run(smoke(tmp_path, tower, "b", "steps=2"))
    best = train.run(smoke(tmp_path, tower, "b"))
    states = [torch.load(tmp_path / run / "smoke" / "last.ckpt", weights_only=True) for run in "ab"]
    assert states[0]["global_step"] == states[1]["global_step"] == 4
    for name, value in states[0]["state_dict"].items():
        assert torch.equal(value, states[1]["state_dict"][name]), name
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose(
            "evaluate",
            [
                f"checkpoint={best}",
                f"data.manifest={tmp_path / 'manifest.jsonl'}",
                f"paths.cache={tmp_path / 'cache'}",
                f"out={tmp_path / 'out'}",
                "split=all",
                "bootstrap=50",
                f"index.export_faiss={tmp_path / 'songs.faiss'}",
            ],
        )
    out = evaluate.run(cfg)
    data = json.loads((out / "retrieval.json").read_text())
    assert set(data["results"]) == {"attention", "mean", "max", "maxsim", "first"}
    assert (out / "retrieval.png").stat().st_size > 10_000
    assert (tmp_path / "songs.faiss").exists()


def test_clips_that_stay_in_memory_train_the_same_weights(tmp_path: Path, tower: Path) -> None:
    write_songs(tmp_path, 9)
    views = ("data.augment.span=0.3", "data.augment.shuffle=0.3")
    train.run(smoke(tmp_path, tower, "a", *views))
    train.run(smoke(tmp_path, tower, "b", *views, "data.resident=true", "data.workers=1"))
    one, two = (
        torch.load(tmp_path / run / "smoke" / "last.ckpt", weights_only=True) for run in "ab"
    )
    assert one["global_step"] == two["global_step"] == 4
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name


def test_hard_steps_and_a_bank_are_a_matter_of_settings(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LEAST_SONGS", 2)
    write_songs(tmp_path, 9)
    hard = ("data.alike=2", "data.extras.orders=2", "losses.order=1", "scale_lr=20")
    bank = ("fusion.querybank.full_passages=1", "fusion.querybank.texts=3")
    folder = train.run(smoke(tmp_path, tower, "a", *hard, *bank))
    net = load_model(folder).net
    assert net.querybank is not None
    assert len(net.querybank.passage_emb) == 3
    assert "bank of long captions against hubs: 3 texts" in (folder / "card.md").read_text()
    state = torch.load(folder.parent / "last.ckpt", weights_only=True)["state_dict"]
    assert not any("querybank" in name for name in state)
    assert abs(float(net.log_scale.detach()) - math.log(1 / 0.07)) > 1e-3  # moves fast
    without = train.run(smoke(tmp_path, tower, "b", "fusion.querybank=null"))
    assert load_model(without).net.config.querybank is None


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not(tmp_path: Path, tower: Path) -> None:
    write_songs(tmp_path, 9)
    whole = train.run(smoke(tmp_path, tower, "a", "steps=12", "scheduler.total_steps=12"))
    script = tmp_path / "run.py"
    script.write_text(
        "import sys, train\nfrom omegaconf import OmegaConf\n"
        "train.run(OmegaConf.load(sys.argv[1]))\n"
    )
    settings = smoke(tmp_path, tower, "b", "steps=12", "scheduler.total_steps=12")
    OmegaConf.save(settings, tmp_path / "b.yaml")
    last = tmp_path / "b" / "smoke" / "last.ckpt"
    environment = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parent)}
    process = subprocess.Popen([sys.executable, script, tmp_path / "b.yaml"], env=environment)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not last.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = torch.load(last, weights_only=True)["global_step"]
    assert 0 < stopped < 12
    resumed = train.run(settings)
    one, two = (torch.load(f.parent / "last.ckpt", weights_only=True) for f in (whole, resumed))
    assert one["global_step"] == two["global_step"] == 12
    for name, value in one["state_dict"].items():
        assert torch.equal(value, two["state_dict"][name]), name


def test_fine_tuning_learns_the_words_of_its_own_captions(tmp_path: Path, tower: Path) -> None:
    first = make_net(tower)
    folder = save_checkpoint(first, tmp_path / "c", {}, "")
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    words = lambda text: (3, 7, 80, 61)  # noqa: E731
    net = build_net({"init": str(folder), "fusion": fusion, "freeze": None}, words, False)
    old, new = first.captioner, net.captioner
    assert old is not None
    assert new is not None
    assert not new.config.timed
    assert new.config.vocabulary == (*old.config.vocabulary, 3, 80, 61)
    assert torch.equal(new.word.weight[: len(old.word.weight)], old.word.weight)
    assert torch.equal(new.decoder.norm.weight, old.decoder.norm.weight)
    assert new.encode([7, 61], timed=False)[1:-1] == [old.encode([7], timed=False)[1], 62]


def test_a_start_without_a_generator_head_gets_one(tmp_path: Path, tower: Path) -> None:
    bare = CoLLAP(replace(make_net(tower).config, captioner=None))
    folder = save_checkpoint(bare, tmp_path / "c", {}, "")
    head = {"width": 16, "layers": 1, "heads": 2, "max_tokens": 20, "dropout": 0.0}
    fusion = {"pooling": "attention", "passage_reach": 1.0, "dropout": 0.0}
    settings = {"init": str(folder), "fusion": fusion, "freeze": None, "captioner": head}
    net = build_net(settings, lambda text: (3, 7), True)
    assert net.captioner is not None
    assert net.captioner.config.vocabulary == (3, 7)
    assert net.config.passage_reach == 1.0
    for name, value in bare.state_dict().items():
        assert torch.equal(value, net.state_dict()[name]), name


def test_a_frozen_encoder_encodes_what_was_decoded_before(
    tmp_path: Path, tower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_net(tower)
    songs = list(read_manifest(write_songs(tmp_path, 2)))
    cache_songs(songs, FeatureCache(tmp_path / "cache", first))
    folder = save_checkpoint(first, tmp_path / "c", {}, "")
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    settings = {"init": str(folder), "fusion": fusion}
    nets = [build_net({**settings, "freeze": f}, lambda text: (7,)) for f in (None, True)]
    moved, frozen = nets
    assert not any(p.requires_grad for p in frozen.audio.parameters())
    assert all(p.requires_grad for p in moved.audio.parameters())
    fresh, _ = cache_songs(songs, FeatureCache(tmp_path / "other", frozen))
    monkeypatch.setattr("retrieval.data.cache.prepare_song", None)  # decoding would fail now
    kept, _ = cache_songs(songs, FeatureCache(tmp_path / "cache", frozen))
    assert torch.equal(kept[0].prepared(), fresh[0].prepared())
    assert kept[0].prepared().shape[-1] == frozen.audio.d_audio
    again = load_model(save_checkpoint(frozen, tmp_path / "f", {}, "")).net
    for name, value in frozen.audio.state_dict().items():
        assert torch.equal(value, again.audio.state_dict()[name]), name
    with torch.no_grad():  # other weights, other frames: never those of another encoder
        next(frozen.audio.parameters()).add_(1)
    assert FeatureCache(tmp_path / "cache", frozen).folder != kept[0].path.parent


@pytest.mark.parametrize("name", ["real", "facts", "whole", "heads", "default", "smoke"])
def test_every_experiment_composes(name: str) -> None:
    with initialize_config_dir(CONF, version_base="1.3"):
        cfg = compose("train", [f"experiment={name}", "data.manifest=x.jsonl"])
        assert cfg.name == name


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path, tower: Path) -> None:
    write_songs(tmp_path, 6)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(s.getsockname()[1]))
    gradients(0, 1, str(tmp_path), str(tower))
    torch.multiprocessing.spawn(gradients, (2, str(tmp_path), str(tower)), nprocs=2)
    one, two, other = (
        torch.load(tmp_path / f"grad-{n}.pt", weights_only=True) for n in ("1-0", "2-0", "2-1")
    )
    assert len(one) > 40
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=1e-6, rtol=1e-4), name
        assert torch.equal(two[name], other[name])


def test_a_checkpoint_is_shipped_in_half_the_size(tmp_path: Path, tower: Path) -> None:
    source = save_checkpoint(make_net(tower), tmp_path / "a", {"step": 7}, "# run\n\n- facts\n")
    (tmp_path / "card.md").write_text("# Mine\n\nGood for tests.\n")
    shipped = tmp_path / "b"
    assert ship_main([str(source), str(shipped), "--card", str(tmp_path / "card.md")]) == 0
    a, b = (f / "model.safetensors" for f in (source, shipped))
    assert b.stat().st_size < 0.6 * a.stat().st_size
    assert json.loads((shipped / "config.json").read_text())["step"] == 7
    card = (shipped / "card.md").read_text()
    assert card.startswith("# Mine")
    assert "## Training run: run" in card
    one, two = (load_model(f).embed_text("a piano").passage_emb for f in (source, shipped))
    assert np.abs(one - two).max() < 5e-3
    assert ship_main([str(tmp_path / "nothing"), str(shipped)]) == 2
