from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from laion_state import BASE, TINY, all_shapes, fill, tiny_shapes
from tiny_clap import save_roberta_tokenizer, sounds
from torch import Tensor

from retrieval.encoders import build_audio_encoder, build_text_encoder
from retrieval.encoders.laion_checkpoint import read_checkpoint
from retrieval.encoders.laion_convert import convert, main
from retrieval.encoders.laion_keys import audio_settings, feature_settings, text_settings
from retrieval.encoders.laion_model import audio_tower, model_name, whole_model
from retrieval.errors import ConfigError, EncoderError


def save_pt(path: Path, state: dict[str, Tensor]) -> Path:
    """A file as LAION's training writes it, with what lies beside the weights."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.ones(4)}},
                 "param_groups": [{"lr": np.float64(1e-4), "params": [0]}]}  # fmt: skip
    named = {f"module.{name}": tensor for name, tensor in state.items()}
    content = {"epoch": 14, "name": "run", "state_dict": named, "optimizer": optimizer}
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return fill(tiny_shapes())


@pytest.fixture(scope="module")
def checkpoint(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pt(tmp_path_factory.mktemp("laion") / "tiny.pt", state)


@pytest.mark.parametrize(
    ("size", "fusion", "name", "millions"),
    [(TINY, False, "HTSAT-tiny", 153), (TINY, True, "HTSAT-tiny", 153),
     (BASE, False, "HTSAT-base", 193)],
)  # fmt: skip
def test_names_of_published_sizes_are_all_used(
    size: tuple[int, tuple[int, ...]], fusion: bool, name: str, millions: int
) -> None:
    """Shapes alone: no number of these models is made."""
    weights = {k: torch.empty(v, device="meta") for k, v in all_shapes(size, fusion).items()}
    model = whole_model(weights)
    assert model_name(weights) == name
    assert model.config.audio_config.enable_fusion is fusion
    assert model.config.audio_config.hidden_size == 8 * size[0]
    assert model.num_parameters() // 1_000_000 == millions
    assert len(audio_tower(weights).state_dict()) == sum(
        key.startswith("audio_model.") for key in model.state_dict()
    )


def test_a_checkpoint_is_read_without_what_lies_beside_it(
    checkpoint: Path, state: dict[str, Tensor]
) -> None:
    found = read_checkpoint(checkpoint)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_encoder_and_converted_folder_agree(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    found = convert(checkpoint, folder)
    assert found.startswith("HTSAT of other size without feature fusion")
    assert {"model.safetensors", "config.json"} <= {p.name for p in folder.iterdir()}
    laion = build_audio_encoder({"name": "laion_clap", "weights": str(checkpoint)})
    clap = build_audio_encoder({"name": "clap", "weights": str(folder)})
    clips = sounds()[:2]
    assert torch.equal(laion.prepare(clips), clap.prepare(clips))
    assert laion.identity()["weights"] == clap.identity()["weights"]
    assert laion.identity()["name"] == "laion_clap"
    assert (laion.d_audio, laion.clip_samples) == (128, 480_000)
    assert not any(p.requires_grad for p in laion.parameters())
    trained = build_audio_encoder(
        {"name": "laion_clap", "weights": str(checkpoint), "frozen": False}
    )
    assert all(p.requires_grad for p in trained.parameters())


def test_fusion_is_seen_in_the_shapes(tmp_path: Path) -> None:
    state = fill(tiny_shapes(fusion=True))
    path = save_pt(tmp_path / "fusion.pt", state)
    encoder = build_audio_encoder({"name": "laion_clap", "weights": str(path)})
    assert encoder.identity()["extractor"] == "fusion"
    assert encoder.prepare(sounds()[:1]).shape == (1, 32, 128)
    assert feature_settings(state).scale == "htk"


def test_the_text_branch_is_roberta_with_its_projection(tmp_path: Path) -> None:
    """Against the classes that the original code uses for text."""
    from transformers import AutoTokenizer, RobertaConfig, RobertaModel

    words = tmp_path / "roberta"
    state = fill(tiny_shapes(vocabulary=save_roberta_tokenizer(words)))
    for name, tensor in state.items():  # so that texts come out apart
        if re.search(r"word_embeddings|self\.value\.weight|attention\.output\.dense\.w", name):
            tensor *= 5
    folder = tmp_path / "out"
    assert (
        main([str(save_pt(tmp_path / "x.pt", state)), str(folder), "--tokenizer", str(words)]) == 0
    )
    found = build_text_encoder({
        "name": "transformer", "weights": str(folder), "pooling": "projection", "max_tokens": 40,
    })  # fmt: skip
    config = RobertaConfig(
        vocab_size=len(state["text_branch.embeddings.word_embeddings.weight"]), hidden_size=32,
        num_hidden_layers=2, num_attention_heads=1, intermediate_size=128, type_vocab_size=1,
        max_position_embeddings=66, layer_norm_eps=1e-5,
    )  # fmt: skip
    branch = RobertaModel(config).eval()
    own = {n.removeprefix("text_branch."): t for n, t in state.items() if "text_branch." in n}
    own.pop("embeddings.position_ids")
    branch.load_state_dict(own)
    projection = torch.nn.Sequential(
        torch.nn.Linear(32, 24), torch.nn.ReLU(), torch.nn.Linear(24, 24)
    )
    head = "text_projection."
    projection.load_state_dict({n.removeprefix(head): t for n, t in state.items() if head in n})
    texts = ["a bare piano", "drums and a choir, very loud"]
    batch = AutoTokenizer.from_pretrained(words)(
        texts, padding="max_length", max_length=60, return_tensors="pt"
    )
    with torch.no_grad():
        wanted = projection(branch(**batch).pooler_output)
    torch.testing.assert_close(found(texts), wanted, atol=1e-5, rtol=1e-5)


def test_a_tokenizer_of_something_else_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_roberta_tokenizer(tmp_path / "words")
    arguments = [str(checkpoint), str(tmp_path / "out")]
    assert main([*arguments, "--tokenizer", str(tmp_path / "words")]) == 1
    assert "not the tokenizer of roberta-base" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert "No tokenizer was written" in capsys.readouterr().out
    with pytest.raises(EncoderError, match="has no tokenizer"):
        build_text_encoder({
            "name": "transformer", "weights": str(tmp_path / "out"), "pooling": "projection",
        })  # fmt: skip
    assert main(arguments) == 1
    assert "exists" in capsys.readouterr().err


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if key != name}


def test_weights_that_do_not_fit_are_named(state: dict[str, Tensor]) -> None:
    gone = "audio_branch.layers.1.blocks.0.mlp.fc1.bias"
    with pytest.raises(EncoderError, match=r"missing weights .*layers\.1.*intermediate\.dense"):
        whole_model(without(state, gone))
    with pytest.raises(EncoderError, match=r"unexpected weights visual\.proj"):
        whole_model({**state, "visual.proj": torch.ones(2)})
    with pytest.raises(EncoderError, match=r"dense\.bias' has shape"):
        audio_tower({**state, gone: torch.ones(7)})
    with pytest.raises(EncoderError, match=r"'audio_branch\.patch_embed\.proj\.weight' is missing"):
        audio_settings(without(state, "audio_branch.patch_embed.proj.weight"))
    with pytest.raises(EncoderError, match="points outside"):
        audio_tower({k: t + 900 if "position_index" in k else t for k, t in state.items()})
    two = {"text_branch.embeddings.token_type_embeddings.weight": torch.ones(2, 32)}
    with pytest.raises(EncoderError, match="not a RoBERTa"):
        text_settings({**state, **two})
    with pytest.raises(EncoderError, match="another filter bank"):
        feature_settings({**state, "audio_branch.logmel_extractor.melW": torch.ones(513, 64)})
    with pytest.raises(ConfigError, match="weights"):
        build_audio_encoder({"name": "laion_clap"})


class Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harmed",)


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"x": torch.ones(1)}, "optimizer": Harmful()}, "bad.pt")
    with pytest.raises(EncoderError, match="weights only"):
        read_checkpoint("bad.pt")
    Path("raw.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(EncoderError, match="no whole file"):
        read_checkpoint("raw.pt")
    assert not Path("harmed").exists()


def test_foreign_and_damaged_files_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "bad.pt"
    with pytest.raises(EncoderError, match="existing"):
        read_checkpoint(bad)
    whole = checkpoint.read_bytes()
    bad.write_bytes(whole[:-100])
    with pytest.raises(EncoderError, match="no whole file"):
        read_checkpoint(bad)
    middle = len(whole) // 2  # within a weight
    bad.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    with pytest.raises(EncoderError, match="checksum"):
        read_checkpoint(bad)
    with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"0" * 10_000)
    with pytest.raises(EncoderError, match="compressed"):
        read_checkpoint(bad)
    for content in ([1, 2], {}, {"state_dict": {"x": 3}}, {"x": torch.tensor([float("nan")])},
                    {"x": torch.ones(1).expand(10**6, 10**6)}):  # fmt: skip
        torch.save(content, bad)
        with pytest.raises(EncoderError, match=r"bad\.pt"):
            read_checkpoint(bad)
    monkeypatch.setattr("retrieval.encoders.laion_checkpoint._MAX_BYTES", 1000)
    with pytest.raises(EncoderError, match="at most 1000"):
        read_checkpoint(checkpoint)


def test_mutations_of_a_file_give_the_weights_or_an_error(tmp_path: Path) -> None:
    """Checksums see all but the archive's own fields; those must not crash the reader."""
    path = tmp_path / "small.pt"
    weights = {"a": torch.arange(6.0), "b": torch.ones(2, 3)}
    torch.save({"state_dict": weights}, path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        for place in random.integers(len(whole), size=3):
            changed[place] = random.integers(256)
        path.write_bytes(changed)
        try:
            found = read_checkpoint(path)
        except EncoderError:
            continue
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


class FakeBranch(torch.nn.Module):
    """The surface of the package's HTS-AT: 4 bins of a clip, each repeated."""

    interpolate_ratio = 32

    def __init__(self) -> None:
        super().__init__()
        for name in ("patch_embed", "rest"):
            setattr(self, name, torch.nn.Linear(1, 1))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # type: ignore[override]
        self.names = set(state)

    def forward(self, x: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        frames = x["waveform"].unflatten(1, (4, -1)).mean(dim=-1)[..., None]
        return {"fine_grained_embedding": frames.repeat_interleave(32, dim=1)}


def test_the_package_is_used_only_when_asked_for(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"name": "laion_clap", "weights": str(checkpoint), "package": True}
    monkeypatch.setitem(sys.modules, "laion_clap", None)
    with pytest.raises(EncoderError, match="install the extra"):
        build_audio_encoder(settings)
    made = []

    def module(**arguments: object) -> object:
        made.append(arguments)
        return types.SimpleNamespace(model=types.SimpleNamespace(audio_branch=FakeBranch()))

    monkeypatch.setitem(sys.modules, "laion_clap", types.SimpleNamespace(CLAP_Module=module))
    encoder = build_audio_encoder(settings)
    assert made == [{"enable_fusion": False, "device": "cpu", "amodel": "HTSAT of other size"}]
    clips = sounds()[:2]
    wanted = clips.unflatten(1, (4, -1)).mean(dim=-1)[..., None]
    assert torch.equal(encoder.prepare(clips), wanted)
    assert encoder.identity()["package"] is True
    with pytest.raises(ConfigError, match="frozen"):
        build_audio_encoder({**settings, "frozen": False})


def test_the_command_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "retrieval.encoders.laion_convert", "none.pt", "out"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: checkpoint: got 'none.pt'"), done.stderr
