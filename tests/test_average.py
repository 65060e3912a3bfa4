"""The mean of checkpoints' weights, and what may not be averaged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import make_net

from retrieval.average import average, main
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.errors import CheckpointError, ConfigError
from retrieval.model import CoLLAP
from retrieval.narrow import NarrowConfig


def moved(net: CoLLAP, by: float) -> CoLLAP:
    with torch.no_grad():
        for name, p in net.named_parameters():
            if not name.startswith("text."):
                p += by
    return net


@pytest.fixture
def pair(tower: Path, tmp_path: Path) -> list[Path]:
    """Two checkpoints: every weight of the second is 0.5 larger, but for the frozen tower's."""
    text = {"name": "transformer", "weights": str(tower), "max_tokens": 12, "frozen": True}
    return [
        save_checkpoint(moved(make_net(tower, text=text), by), tmp_path / name, {}, "")
        for name, by in (("one", 0.0), ("two", 0.5))
    ]


def test_every_weight_is_the_mean(pair: list[Path], tmp_path: Path) -> None:
    mean = load_model(average(pair, tmp_path / "mean")).net.state_dict()
    one = load_model(pair[0]).net.state_dict()
    for name, value in mean.items():
        by = 0.0 if name.startswith("text.") or not value.is_floating_point() else 0.25
        assert torch.allclose(value.double(), one[name].double() + by, atol=1e-6), name


def test_one_part_alone(pair: list[Path], tmp_path: Path) -> None:
    mean = load_model(average(pair, tmp_path / "mean", only="audio")).net.state_dict()
    one = load_model(pair[0]).net.state_dict()
    changed = {name.split(".")[0] for name, value in mean.items() if not value.equal(one[name])}
    assert changed == {"audio"}


def test_what_was_fitted_is_left_out(pair: list[Path], tower: Path, tmp_path: Path) -> None:
    net = make_net(tower, narrow=NarrowConfig(dim=16, directions=14))
    narrow = save_checkpoint(net, tmp_path / "narrow", {}, "")
    mean = load_model(average([narrow, pair[0]], tmp_path / "mean")).net
    assert mean.config.narrow is None
    assert mean.config.joint_dim == mean.config.dim


def test_refused(
    pair: list[Path], tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        average(pair[:1], tmp_path / "mean")
    with pytest.raises(ConfigError, match="'sound', expected one of audio"):
        average(pair, tmp_path / "mean", only="sound")
    other = save_checkpoint(make_net(tower, dim=16), tmp_path / "other", {}, "")
    with pytest.raises(CheckpointError, match=r"other: .* is not like that of"):
        average([pair[0], other], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
    assert main([str(tmp_path / "mean"), str(pair[0]), str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err


def test_heads_of_other_words_have_no_mean(pair: list[Path], tower: Path, tmp_path: Path) -> None:
    net = make_net(tower)
    assert net.config.captioner is not None
    turned = replace(net.config.captioner, vocabulary=tuple(range(6, 61)))
    other = CoLLAP(replace(net.config, captioner=turned))
    found = save_checkpoint(other, tmp_path / "other", {}, "")
    with pytest.raises(CheckpointError, match="writes with other words"):
        average([pair[0], found], tmp_path / "mean")
    average([pair[0], found], tmp_path / "mean", only="audio")


def test_the_command_says_what_comes_next(
    pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "mean"), *map(str, pair), "--only", "audio"]) == 0
    assert f"init={tmp_path / 'mean'}" in capsys.readouterr().out
