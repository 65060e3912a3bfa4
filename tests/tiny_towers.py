"""Random text towers of each kind with tiny tokenizers, saved as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

_WORDS = "a an the piano guitar drums strings bare opening it ends alone again fast slow loud soft"
#: Texts for these towers, of unlike lengths.
TEXTS = [
    "a bare piano opening",
    "loud drums and a fast guitar.",
    "slow",
    "It ends alone again; the strings are soft, 71 beats <3 27> then 140.",
]
_SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
          "intermediate_size": 48, "initializer_range": 0.3}  # fmt: skip


def _bytes(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level vocabulary: all bytes, and the words with and without a space before them."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = dict.fromkeys([*special, *letters]), {}
    for word in _WORDS.split():
        for start in ("Ġ" + word[0], word[0]):
            known = start[0]
            for letter in (start + word[1:])[1:]:
                merges[known, letter] = None
                known += letter
                pieces[known] = None
    return {piece: i for i, piece in enumerate(pieces)}, list(merges)


def _save(folder: Path, network: Any, tokenizer: Any) -> Path:
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, positions: int = 48) -> Path:
    """GPT-2: causal, no padding token."""
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer

    vocabulary, merges = _bytes(["<|endoftext|>"])
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=positions, n_embd=32, n_layer=3, n_head=2,
        initializer_range=0.3, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    tokenizer = GPT2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=positions)
    return _save(folder, GPT2Model(config), tokenizer)


def save_roberta(folder: Path, positions: int = 48) -> Path:
    """RoBERTa: its table of positions has two rows more than it reads."""
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    vocabulary, merges = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = RobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=positions + 2, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, type_vocab_size=1, **_SMALL,
    )  # fmt: skip
    torch.manual_seed(3)
    # Published tokenizers of its kind may state no limit of their own.
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges)
    return _save(folder, RobertaModel(config), tokenizer)


def _unigram(**options: Any) -> Any:
    """T5's kind of tokenizer; there is no angle bracket in it."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in _WORDS.split()]
    signs = "abcdefghijklmnopqrstuvwxyzAIT0123456789.,;>"
    pieces += [(sign, -6.0) for sign in signs]
    return T5Tokenizer(vocab=pieces, extra_ids=0, **options)


def save_t5(folder: Path, whole: bool = False) -> Path:
    """T5's encoder, or with ``whole`` its decoder beside it, as it is published."""
    from transformers import T5Config, T5EncoderModel, T5Model

    tokenizer = _unigram()
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_ff=48, d_kv=16, num_layers=3, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(3)
    return _save(folder, (T5Model if whole else T5EncoderModel)(config), tokenizer)


def save_clap(folder: Path, positions: int = 48) -> Path:
    """A whole ClapModel with a RoBERTa tokenizer."""
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapModel,
        ClapTextConfig,
        RobertaTokenizer,
    )

    vocabulary, merges = _bytes(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    audio = ClapAudioConfig(
        patch_embeds_hidden_size=16, depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1],
        hidden_size=128, projection_dim=16, num_mel_bins=64, spec_size=256,
    )  # fmt: skip
    text = ClapTextConfig(
        vocab_size=len(vocabulary), max_position_embeddings=positions + 2, projection_dim=16,
        pad_token_id=1, type_vocab_size=1, **_SMALL,
    )  # fmt: skip
    torch.manual_seed(3)
    clap = ClapModel(ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict()))
    with torch.no_grad():  # CLAP scales its own draw down, which makes all texts alike
        for p in clap.text_model.parameters():
            p += 0.2 * torch.randn(p.shape)
    tokenizer = RobertaTokenizer(vocab=vocabulary, merges=merges, model_max_length=positions)
    return _save(folder, clap, tokenizer)
