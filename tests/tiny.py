"""A tiny model with random weights, quick to build, for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from retrieval.captioner import CaptionerConfig
from retrieval.data.manifest import Caption, Section, Song, write_manifest
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP, ModelConfig

MEL = {"name": "mel", "widths": (8, 8, 16, 16), "n_mels": 32, "d_audio": 32, "clip_s": 2.0,
       "sample_rate_hz": 8000, "hop": 160, "n_fft": 512, "dropout": 0.0}  # fmt: skip


def save_tiny_tower(folder: Path) -> Path:
    """A random BERT with a word-level vocabulary, saved as transformers does."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = "a an the piano guitar drums strings bare opening ends alone again fast slow loud soft"
    signs = [".", ",", ";", "%", ":", "-", *map(str, range(101))]
    letters = [c for a in "abcdefghijklmnopqrstuvwxyz" for c in (a, f"##{a}")]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words.split(), *signs, *letters]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(dict.fromkeys(vocabulary)), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=64,
        initializer_range=0.3,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


def make_net(tower: Path, captioner: bool = True, **changes: object) -> CoLLAP:
    torch.manual_seed(1)
    head = CaptionerConfig(
        tuple(range(5, 60)), width=16, layers=1, heads=2, max_tokens=24, dropout=0.0
    )
    settings = {
        "encoder": MEL,
        "text": {"name": "transformer", "weights": str(tower), "max_tokens": 12},
        "dim": 32,
        "clip_layers": 1,
        "dropout": 0.0,
        "captioner": head if captioner else None,
        **changes,
    }
    net = CoLLAP(ModelConfig(**settings))  # type: ignore[arg-type]
    with torch.no_grad():  # so that what starts at zero takes part
        for p in net.parameters():
            if p.requires_grad:
                p += 0.05 * torch.randn(p.shape)
    return net


@cache
def _tower(root: Path) -> Path:
    return save_tiny_tower(root / "tower")


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tower(tmp_path_factory.getbasetemp())


@pytest.fixture
def model(tower: Path) -> LongplayModel:
    return LongplayModel(make_net(tower), digest="0" * 64)


def write_songs(folder: Path, count: int, seconds: float = 5.0) -> Path:
    """Small songs with captions and sections, and their manifest."""
    from broken_audio import write_good_file

    songs = []
    for i in range(count):
        path = write_good_file(folder / f"{i}.wav", seconds + i % 3, seed=i)
        text = f"A {'piano' if i % 2 else 'guitar'} opening. It ends {'loud' if i % 3 else 'soft'}."
        sections = (Section(0.0, 2.0, text.split(". ")[0] + "."),)
        captions = (Caption(text, "generated", sections), Caption(f"song number {i}"))
        split = ("train", "train", "val")[i % 3]
        songs.append(Song(f"s{i}", path, captions, split=split))
    write_manifest(songs, folder / "manifest.jsonl")
    return folder / "manifest.jsonl"
