"""The encoder of docs/encoders.md is what the page says that it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from tiny import make_net

import retrieval.encoders
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.inference import LongplayModel

PAGE = Path(__file__).resolve().parent.parent / "docs" / "encoders.md"


def _example() -> str:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return code


@pytest.fixture
def bands(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("bands")
    monkeypatch.setitem(sys.modules, "bands", module)  # a dataclass looks its module up
    exec(compile(_example(), str(PAGE), "exec"), module.__dict__)
    entry = (module.BandsConfig, module.BandsEncoder)
    monkeypatch.setitem(retrieval.encoders._AUDIO, "bands", entry)
    return module


def test_the_example_has_thirty_lines() -> None:
    lines = [line for line in _example().splitlines() if line.strip()]
    assert len(lines) <= 30


@pytest.mark.usefixtures("bands")
@pytest.mark.parametrize("frozen", [False, True])
def test_the_example_works_in_a_network(tower: Path, tmp_path: Path, frozen: bool) -> None:
    settings = {"name": "bands", "clip_s": 1.0, "d_audio": 32, "frozen": frozen}
    net = make_net(tower, encoder=settings)
    rng = np.random.default_rng(0)
    song = rng.standard_normal(56_000).astype(np.float32) / 5  # 3.5 s
    model = LongplayModel(net, digest="0" * 64)
    found = model.embed_samples(song).clip_emb
    assert found.shape == (4, 32)
    assert np.array_equal(found, model.embed_samples(song).clip_emb)
    clips = torch.from_numpy(song[:48_000]).reshape(3, 16_000)
    frames = net.audio(net.audio.prepare(clips))
    assert frames.shape == (3, 10, 32)
    assert torch.allclose(net.audio(net.audio.prepare(clips[1:2])), frames[1:2], atol=1e-6)
    loaded = load_model(save_checkpoint(net, tmp_path / "c", {}, ""))
    assert np.allclose(loaded.embed_samples(song).clip_emb, found, atol=1e-6)
    net.train()
    net.encode_clips(net.audio.prepare(clips), torch.ones(3)).sum().backward()
    assert (net.audio.layer.weight.grad is None) == frozen


def test_the_table_names_every_audio_encoder() -> None:
    page = PAGE.read_text(encoding="utf-8")
    conf = PAGE.parent.parent / "conf" / "encoder"
    assert {path.stem for path in conf.glob("*.yaml")} >= set(retrieval.encoders._AUDIO)
    for name in retrieval.encoders._AUDIO:
        assert f"`encoder={name}" in page
