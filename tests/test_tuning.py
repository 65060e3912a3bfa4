from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import MEL, make_net, write_songs
from tiny_towers import TEXTS, save_clap, save_gpt2, save_roberta, save_t5

from retrieval.build import build_net, trained_parameters
from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.batches import TrainSteps
from retrieval.data.cache import FeatureCache, cache_songs
from retrieval.data.manifest import read_manifest
from retrieval.data.order import Part
from retrieval.data.text_cache import warm_texts
from retrieval.encoders import build_audio_encoder, build_text_encoder
from retrieval.encoders.base import AudioEncoder, outside
from retrieval.encoders.tuning import layer_stacks, rest_digests, tune_config, tune_encoder
from retrieval.encoders.weights import module_digest
from retrieval.errors import CheckpointError, ConfigError, EncoderError
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP
from retrieval.objective import LossWeights
from retrieval.training import LitCoLLAP

LORA = {"adapter": "lora", "rank": 2}
#: Names of linear maps in the attention of each kind, and of other weights.
NAMES = {
    "gpt2": (["c_attn"], ["ln_f.*"]),
    "roberta": (["query", "value"], ["*LayerNorm*"]),
    "t5": (["q", "v"], ["encoder.final_layer_norm.*"]),
    "clap": (["query", "value"], ["text_projection.*"]),
    "clap audio": (["query", "value"], ["audio_encoder.norm.*"]),
}


def save_whole_clap(folder: Path) -> Path:
    from transformers import ClapFeatureExtractor

    ClapFeatureExtractor().save_pretrained(folder)
    return save_clap(folder)


SAVE: dict[str, Callable[[Path], Path]] = {
    "gpt2": save_gpt2,
    "roberta": save_roberta,
    "t5": save_t5,
    "clap": save_whole_clap,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {kind: save(root / kind) for kind, save in SAVE.items()}


def build(folders: dict[str, Path], kind: str, **settings: Any) -> Any:
    weights = str(folders[kind.split()[0]])
    if kind == "clap audio":
        return build_audio_encoder({"name": "clap", "weights": weights, **settings})
    given = {"name": "transformer", "weights": weights, "pooling": "auto", "max_tokens": None}
    return build_text_encoder({**given, **settings})


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    return torch.randn(2, 480_000, generator=torch.Generator().manual_seed(0)) / 9


def outputs(encoder: Any, sound: torch.Tensor) -> torch.Tensor:
    if hasattr(encoder, "token_ids"):
        return encoder(TEXTS)
    return encoder(encoder.prepare(sound)).mean(dim=1)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("way", ["layers", "patterns", "lora", "some", "ia3", "dora"])
def test_only_the_tuned_part_moves(
    folders: dict[str, Path], sound: torch.Tensor, kind: str, way: str
) -> None:
    ends, patterns = NAMES[kind]
    tune: dict[str, Any] = {
        "layers": {"layers": 1},
        "patterns": {"patterns": patterns},
        "lora": {**LORA, "dropout": 0.1},
        "some": {**LORA, "layers": 1, "targets": ends, "patterns": patterns},
        "ia3": {"adapter": "ia3", "targets": ends},
        "dora": {"adapter": "dora", "rank": 2, "targets": ends},
    }[way]
    published = build(folders, kind)
    encoder = build(folders, kind, tune=tune)
    assert not encoder.frozen
    if tune.get("adapter"):  # adapters start as if they were not there
        with torch.no_grad():
            a, b = (outputs(e.eval(), sound) for e in (published, encoder))
        assert torch.allclose(a, b, atol=1e-5)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    trained = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert trained == encoder.tuned
    assert 0 < len(trained) < len(dict(encoder.named_parameters()))
    encoder.train()
    step = torch.optim.SGD([p for p in encoder.parameters() if p.requires_grad], lr=0.5)
    goal = torch.randn(outputs(encoder, sound).shape, generator=torch.Generator().manual_seed(1))
    for _ in range(2):  # LoRA's first matrix moves once its second, which starts at zero, has
        step.zero_grad()
        (outputs(encoder, sound) - goal).square().mean().backward()
        step.step()
    found = {n for n, p in encoder.named_parameters() if p.grad is not None}
    assert found == trained
    moved = {n for n, v in encoder.state_dict().items() if not torch.equal(v, before[n])}
    assert moved <= trained
    # What only turns the attention may move by less than rounding: all that clips of noise or few
    # words hear is alike, and a softmax does not see the bias of its keys at all.
    assert {n for n in trained if not any(k in n for k in ("key", "query", "c_attn"))} <= moved
    assert any("lora_A" in name for name in moved) == (tune.get("adapter") in ("lora", "dora"))


def test_layers_are_counted_where_attention_is() -> None:
    from transformers import (
        GPT2Config,
        GPT2Model,
        Wav2Vec2Config,
        Wav2Vec2Model,
        WhisperConfig,
    )
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    small = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
             "intermediate_size": 16, "num_conv_pos_embedding_groups": 2}  # fmt: skip
    conv = {"conv_dim": (8, 8), "conv_stride": (5, 2), "conv_kernel": (10, 3)}
    heard = Wav2Vec2Model(Wav2Vec2Config(**small, **conv, num_feat_extract_layers=2))
    assert layer_stacks(heard) == [[f"encoder.layers.{i}" for i in range(3)]]
    whisper = WhisperEncoder(
        WhisperConfig(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=16)
    )
    assert layer_stacks(whisper) == [["layers.0", "layers.1"]]
    config = GPT2Config(vocab_size=10, n_positions=8, n_embd=8, n_layer=2, n_head=2,
                        bos_token_id=0, eos_token_id=0)  # fmt: skip
    pair = torch.nn.ModuleList([GPT2Model(config), GPT2Model(config)])
    assert layer_stacks(pair) == [["0.h.0", "0.h.1"], ["1.h.0", "1.h.1"]]


def test_the_last_layers_are_trained(folders: dict[str, Path]) -> None:
    encoder = build(folders, "roberta", tune={"layers": 2})
    assert all(name.startswith(("tower.encoder.layer.1.", "tower.encoder.layer.2."))
               for name in encoder.tuned)  # fmt: skip
    assert len(encoder.tuned) == 2 * 16
    encoder = build(folders, "roberta", tune={**LORA, "layers": 1, "targets": ["query"]})
    inside = "tower.encoder.layer.2.attention.self.query.lora"
    assert encoder.tuned == {f"{inside}_A.default.weight", f"{inside}_B.default.weight"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": True, "tune": LORA}, r"text\.tune: given beside text\.frozen"),
        ({"tune": {"lora": 8}}, r"text\.tune\.lora: no such"),
        ({"tune": {}}, "trains nothing"),
        ({"tune": {"layers": 0}}, r"tune\.layers: got 0"),
        ({"tune": {"layers": 4}}, "has 3 layers"),
        ({"tune": {"patterns": ["*Norm"]}}, "name of no weight"),
        ({"tune": {"patterns": "*Norm"}}, "expected a list"),
        ({"tune": {"adapter": "prompt"}}, r"tune\.adapter: got 'prompt'"),
        ({"tune": {**LORA, "targets": ["q_proj"]}}, "expected some of .*'query'"),
        ({"tune": {**LORA, "rank": 0}}, r"tune\.rank"),
        ({"tune": {**LORA, "dropout": 1.0}}, r"tune\.dropout"),
    ],
)
def test_settings_that_cannot_work_are_named(
    folders: dict[str, Path], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(folders, "roberta", **settings)


def test_adapters_need_their_extra(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(EncoderError, match=r"longplay\[lora\]"):
        build(folders, "roberta", tune=LORA)
    build(folders, "roberta", tune={"layers": 1})


def tuned_net(folder: Path, tune: dict[str, Any] | None, **changes: Any) -> CoLLAP:
    text = {"name": "transformer", "weights": str(folder), "pooling": "auto", "max_tokens": 20}
    text |= {"frozen": True} if tune is None else {"tune": tune}
    return make_net(folder, text=text, **changes)


@pytest.mark.parametrize("tune", [LORA, {"layers": 1}, {"adapter": "ia3", "patterns": ["wte*"]}])
def test_a_checkpoint_holds_what_was_trained_and_finds_the_rest(
    folders: dict[str, Path], tmp_path: Path, tune: dict[str, Any]
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "gpt2"
    published = AutoModel.from_pretrained(folders["gpt2"])
    published.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folders["gpt2"]).save_pretrained(folder)
    net = tuned_net(folder, tune)
    saved = save_checkpoint(net, tmp_path / "c", {}, "")
    inside = {n for n in load_file(saved / "model.safetensors") if n.startswith("text.tower.")}
    assert inside == {f"text.{name}" for name in net.text.tuned or ()}
    model = load_model(saved)
    assert not model.net.text.frozen
    for name, value in net.state_dict().items():
        assert torch.equal(value, model.net.state_dict()[name]), name
    text = "a bare piano opening. loud drums."
    a, b = (m.embed_text(text).passage_emb for m in (LongplayModel(net, digest=""), model))
    assert np.array_equal(a, b)
    plain = tuned_net(folder, None)
    assert not np.allclose(a, LongplayModel(plain, digest="").embed_text(text).passage_emb)
    with torch.no_grad():
        published.h[0].mlp.c_fc.weight[0, 0] += 1
    published.save_pretrained(folder)
    with pytest.raises(CheckpointError, match="another model"):
        load_model(saved)


def test_beside_adapters_a_tower_keeps_its_digest(folders: dict[str, Path]) -> None:
    for kind in NAMES:
        frozen, tuned = build(folders, kind), build(folders, kind, tune=LORA)
        published = module_digest(frozen.tower)
        assert rest_digests(tuned) == {"tower": published}
        assert frozen.identity()["weights"] == published
        assert rest_digests(frozen) == {}
    shared = build(folders, "t5", tune={"patterns": ["shared.weight"]})
    before = rest_digests(shared)
    with torch.no_grad():  # the same tensor as encoder.embed_tokens.weight
        shared.tower.shared.weight += 1
    assert rest_digests(shared) == before


def test_nothing_of_a_tuned_tower_is_remembered(folders: dict[str, Path], tmp_path: Path) -> None:
    net = tuned_net(folders["roberta"], {"layers": 1})
    assert "weights" not in net.text.identity()
    warm_texts(net, TEXTS, tmp_path)
    assert not list(tmp_path.iterdir())
    net.eval()
    with torch.no_grad():
        before = net.text(TEXTS)
        weight = net.text.tower.encoder.layer[2].output.dense.weight
        weight += 0.1 * torch.randn(weight.shape)
        assert not torch.allclose(net.text(TEXTS), before)


def test_a_tuned_audio_tower_is_cached_as_features(
    folders: dict[str, Path], sound: torch.Tensor, tmp_path: Path, tower: Path
) -> None:
    audio = {"name": "clap", "weights": str(folders["clap"])}
    frozen, tuned = (
        make_net(tower, encoder={**audio, **more}) for more in ({}, {"tune": {"layers": 1}})
    )
    caches = [FeatureCache(tmp_path, net) for net in (frozen, tuned)]
    assert caches[0].folder != caches[0].features == caches[1].features == caches[1].folder
    assert torch.equal(tuned.audio.prepare(sound), tuned.audio.front_end(sound))
    tuned.train()
    assert tuned.audio.tower.training
    assert not tuned.audio.tower.audio_encoder.batch_norm.training
    assert not frozen.train().audio.tower.training
    saved = save_checkpoint(tuned, tmp_path / "c", {}, "")
    assert torch.equal(
        load_model(saved).net.audio(tuned.audio.prepare(sound)),
        tuned.eval().audio(tuned.audio.prepare(sound)),
    )


def test_one_step_of_training_reaches_what_is_tuned_and_nothing_else(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    net = tuned_net(folders["gpt2"], LORA)
    songs, _ = cache_songs(
        read_manifest(write_songs(tmp_path, 6)), FeatureCache(tmp_path / "cache", net)
    )
    batch = TrainSteps([Part(songs, 4)], net, 2, seed=0)[0]
    module = LitCoLLAP(
        net, lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5),
        lambda o: torch.optim.lr_scheduler.ConstantLR(o), LossWeights(), [], tower_lr=0.01,
        scale_lr=3.0,
    )  # fmt: skip
    module.train()
    chosen = module.configure_optimizers()["optimizer"]
    rates = {id(p): group["initial_lr"] for group in chosen.param_groups for p in group["params"]}
    for name, p in net.named_parameters():
        wanted = 0.001 if name.startswith("text.tower.") else 0.1
        wanted = 0.3 if name in ("log_tau", "log_scale") else wanted
        assert rates.get(id(p)) == (pytest.approx(wanted) if p.requires_grad else None), name
    before = {name: value.clone() for name, value in net.state_dict().items()}
    module(batch)["total"].backward()
    chosen.step()
    for name, value in net.state_dict().items():
        if name.startswith("text.tower."):
            inside = name.removeprefix("text.") in (net.text.tuned or ())
            assert torch.equal(value, before[name]) == (not inside), name
    counts = trained_parameters(net)
    some = sum(p.numel() for p in net.text.parameters() if p.requires_grad)
    assert f"text encoder {some:,} of " in counts


def test_a_checkpoint_can_be_tuned_further(folders: dict[str, Path], tmp_path: Path) -> None:
    plain = tuned_net(folders["gpt2"], None)
    start = save_checkpoint(plain, tmp_path / "a", {}, "")
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    settings = {"init": str(start), "fusion": fusion, "freeze": None, "text": {"tune": LORA}}
    net = build_net(settings, lambda text: (7,))
    assert not net.text.frozen
    found = {n.replace(".base_layer", ""): value for n, value in net.state_dict().items()}
    for name, value in plain.state_dict().items():
        assert torch.equal(value, found[name]), name
    text = "a bare piano opening. loud drums."
    a, b = (LongplayModel(n, digest="").embed_text(text).passage_emb for n in (plain, net))
    assert np.allclose(a, b, atol=1e-5)  # adapters start as if they were not there
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "lora_B" in name:
                p += 0.1
    second = save_checkpoint(net, tmp_path / "b", {}, "")
    for more in ({}, {"text": {"tune": LORA}}, {"text": {"tune": None}}):
        again = build_net(
            {**settings, "text": None, "init": str(second), **more}, lambda text: (7,)
        )
        assert again.text.tuned == net.text.tuned
        for name, value in net.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
    with pytest.raises(ConfigError, match=r"text\.tune: the tower of init was trained"):
        build_net({**settings, "init": str(second), "text": {"tune": {"layers": 1}}}, lambda t: ())


def test_a_trained_tower_is_not_frozen_and_lost(
    folders: dict[str, Path], tmp_path: Path, tower: Path
) -> None:
    audio = {"name": "clap", "weights": str(folders["clap"]), "tune": {"layers": 1}}
    start = save_checkpoint(make_net(tower, encoder=audio), tmp_path / "a", {}, "")
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    settings = {"init": str(start), "fusion": fusion, "freeze": True}
    with pytest.raises(ConfigError, match="freeze: got true"):
        build_net(settings, lambda text: (7,))


@pytest.mark.parametrize("tune", [{"patterns": ["context.*"]}, {"adapter": "lora", "rank": 2}])
def test_our_own_encoder_is_tuned_as_a_whole(
    tower: Path, tmp_path: Path, tune: dict[str, Any]
) -> None:
    plain = make_net(tower)
    start = save_checkpoint(plain, tmp_path / "a", {}, "")
    fusion = {"pooling": "attention", "passage_reach": None, "dropout": 0.0}
    settings = {"init": str(start), "fusion": fusion, "freeze": None, "encoder": {"tune": tune}}
    net = build_net(settings, lambda text: (7,))
    trained = {n for n, p in net.audio.named_parameters() if p.requires_grad}
    assert trained == net.audio.tuned
    assert all("lora" in name or name.startswith("context.") for name in trained)
    clips = torch.randn(1, net.audio.clip_samples) / 9
    plain.eval(), net.eval()
    assert torch.allclose(
        net.audio(net.audio.prepare(clips)), plain.audio(plain.audio.prepare(clips)), atol=1e-5
    )
    again = load_model(save_checkpoint(net, tmp_path / "b", {}, "")).net
    for name, value in net.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert "weights" not in net.audio.identity()
    assert build_audio_encoder({**MEL, "tune": {"patterns": ["stem*"]}}).tuned


class Pair(AudioEncoder):
    """Two encoders in one, as a pair of published towers is."""

    def __init__(self, first: AudioEncoder, second: AudioEncoder):
        super().__init__()
        self.first, self.second, self.frozen = first, second, first.frozen and second.frozen
        self.sample_rate_hz, self.clip_s, self.d_audio = 48_000, 10.0, 2 * first.d_audio

    def front_end(self, clips: torch.Tensor) -> torch.Tensor:
        return clips

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        return torch.cat([p(p.prepare(features)) for p in (self.first, self.second)], dim=-1)

    def identity(self) -> dict[str, object]:
        return {"first": self.first.identity(), "second": self.second.identity()}


def test_of_a_pair_each_is_tuned_or_one(folders: dict[str, Path]) -> None:
    frozen, tuned = build(folders, "clap audio"), build(folders, "clap audio", tune=LORA)
    one = Pair(frozen, tuned)
    published = module_digest(frozen.tower)
    assert outside(one) == {
        *(f"first.tower.{name}" for name in frozen.tower.state_dict()),
        *(f"second.tower.{n}" for n in tuned.tower.state_dict() if "lora" not in n),
    }
    assert rest_digests(one) == {"second.tower": published}
    both = Pair(*(build(folders, "clap audio", frozen=False) for _ in range(2)))
    assert outside(both) == set()
    tune_encoder(both, tune_config({"layers": 1}, "encoder"))
    assert both.tuned is None
    assert both.first.tuned == both.second.tuned
    trained = {n for n, p in both.named_parameters() if p.requires_grad}
    assert all(name.split(".", 2)[2].startswith("audio_encoder.layers.3.") for name in trained)
    assert outside(both) == set(both.state_dict()) - trained
    assert set(rest_digests(both)) == {"first.tower", "second.tower"}
    with pytest.raises(ConfigError, match="frozen"):
        tune_encoder(one, tune_config({"layers": 1}, "encoder"))
