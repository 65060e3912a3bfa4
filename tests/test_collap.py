"""The configurations of the paper's two variants, narrowed to tiny random towers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from tiny import write_songs
from tiny_towers import save_gpt2, save_roberta

import train
from retrieval.checkpoint import load_model

CONF = Path(train.__file__).parent / "conf"
SAVE = {"roberta": save_roberta, "gpt2": save_gpt2}


@pytest.mark.parametrize("variant", SAVE)
@pytest.mark.parametrize("tune", ["null", "{adapter: lora, rank: 2}"])
def test_each_variant_trains(
    tmp_path: Path, variant: str, tune: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = SAVE[variant](tmp_path / "tower")
    write_songs(tmp_path, 9)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            [
                f"experiment=collap_{variant}",
                "encoder=mel",  # in place of the pair of towers, which tests of its own run
                "encoder.widths=[8,8,16,16]",
                "encoder.n_mels=32",
                "encoder.d_audio=32",
                "encoder.clip_s=2.0",
                f"text.weights={folder}",
                f"text.tune={tune}",
                "fusion.dim=32",
                "fusion.clip_layers=1",
                "data.batch_size=4",
                "data.workers=0",
                "steps=2",
                "steps_per_val=2",
                f"data.manifest={tmp_path / 'manifest.jsonl'}",
                f"paths.runs={tmp_path / 'runs'}",
                f"paths.cache={tmp_path / 'cache'}",
                "trainer.accelerator=cpu",
                "+trainer.enable_progress_bar=false",
            ],
        )
    best = train.run(cfg)
    net = load_model(best).net
    assert net.text.pooling == {"roberta": "mean", "gpt2": "last"}[variant]
    assert net.text.max_tokens == {"roberta": 46, "gpt2": 48}[variant]  # all that it reads
    assert net.captioner is None
    assert net.words is None
    printed = capsys.readouterr().out
    tower = sum(p.numel() for p in net.text.parameters())
    some = sum(p.numel() for p in net.text.parameters() if p.requires_grad)
    assert (some < tower / 5) == (tune != "null")
    assert f"text encoder {some:,} of {tower:,}" in printed
    last = torch.load(best.parent / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2
    rates = sorted({group["initial_lr"] for group in last["optimizer_states"][0]["param_groups"]})
    assert rates == pytest.approx([2e-5, 2e-4])


@pytest.mark.skipif(
    not (CONF / "encoder" / "dual.yaml").exists(), reason="the pair of towers is not there yet"
)
@pytest.mark.parametrize("variant", SAVE)
def test_each_variant_has_the_settings_of_the_paper(variant: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment=collap_{variant}", "data.manifest=x.jsonl"])
    assert cfg.encoder.name == "dual"
    assert cfg.fusion.dim == 512
    assert cfg.data.train_clips == 30
    assert (cfg.losses.contrastive, cfg.losses.caption) == (1, 0)
    assert cfg.text.max_tokens is None
