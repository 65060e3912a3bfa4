"""Text towers as they are published: network, tokenizer, pooling and limit of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from retrieval.encoders.sentence import DenseHead, SentenceModel, read_sentence_model
from retrieval.encoders.weights import load_pretrained, load_whole
from retrieval.errors import EncoderError

#: What a tower without positions is asked to read at most: the length that T5 was trained with
#: (arXiv 1910.10683, section 3.1.1). Its relative positions have no end of their own.
UNLIMITED_TOKENS = 512
#: Tokenizers without a limit state a number like 1e30.
_NO_LIMIT = 1 << 20


@dataclass(frozen=True)
class TextTower:
    """A published text tower.

    Attributes:
        network: transformers model; layers behind the pooling are its ``sentence_head``.
        tokenizer: pads on the right, with a token of its own or the end of a text.
        pooling: one of :data:`retrieval.encoders.pooling.TOKEN_POOLINGS`, or ``projection``.
        width: of a passage's vector.
        limit: longest passage in tokens, without the special ones.
        bounded: whether the limit is the tower's own; else it is :data:`UNLIMITED_TOKENS`.
        unit: whether the published vectors are of length 1.
        compares: whether it was trained so that its vectors can be compared.
    """

    network: Any
    tokenizer: Any
    pooling: str
    width: int
    limit: int
    bounded: bool
    unit: bool
    compares: bool


def load_text_tower(source: str, pooling: str) -> TextTower:
    """Load a text tower from a folder or by a hub name.

    Args:
        source: folder or hub name.
        pooling: ``auto`` takes it from a sentence-transformers folder; else CLAP's towers have
            their projection, language models their last token, and all others the mean.

    Raises:
        EncoderError: it cannot be loaded, or is no text tower.
    """
    from transformers import AutoConfig, AutoTokenizer

    sentence = read_sentence_model(source) if pooling == "auto" else None
    place, inside = _place(source, sentence)
    config = load_pretrained(AutoConfig, place, "text.weights", **inside)
    if sentence is not None:
        pooling = sentence.pooling
    elif pooling == "auto":
        pooling = _usual_pooling(config)
    kind = _network_class(config, pooling)
    # Models of masked words are published without the layer behind their first token.
    spare = () if pooling == "projection" else ("pooler",)
    network = load_whole(kind, place, "text.weights", spare, **inside)
    network.config.use_cache = False  # causal models would keep keys and values for a next token
    tokenizer = load_pretrained(AutoTokenizer, place, "text.weights", **inside)
    _pad_right(tokenizer, source)
    width = int(network.config.projection_dim if pooling == "projection" else config.hidden_size)
    if sentence is not None and sentence.dense:
        # Inside the network, so that it is frozen, tuned, stored and known by digest with it.
        network.sentence_head = DenseHead(source, sentence.dense)
        width = network.sentence_head.width
    limit, bounded = _limit(network, tokenizer, sentence)
    return TextTower(
        network,
        tokenizer,
        pooling,
        width,
        limit,
        bounded,
        unit=sentence is not None and sentence.unit,
        compares=sentence is not None or pooling == "projection",
    )


def _place(source: str, sentence: SentenceModel | None) -> tuple[str, dict[str, str]]:
    """Folder or hub name of the transformer, and what ``from_pretrained`` needs beside it."""
    if sentence is None or not sentence.transformer:
        return source, {}
    folder = Path(source).expanduser()
    if folder.is_dir():
        return str(folder / sentence.transformer), {}
    return source, {"subfolder": sentence.transformer}


def _usual_pooling(config: Any) -> str:
    from transformers.models.auto import modeling_auto as auto

    if config.model_type in ("clap", "clap_text_model"):
        return "projection"
    causal = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    # BERT and its kind can be had as decoders too; they were trained on masked words.
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "last" if causal and not masked else "mean"


def _network_class(config: Any, pooling: str) -> Any:
    from transformers import AutoModel, AutoModelForTextEncoding, ClapTextModelWithProjection
    from transformers.models.auto import modeling_auto as auto

    clap = config.model_type in ("clap", "clap_text_model")
    if clap != (pooling == "projection"):
        raise EncoderError(
            f"text.pooling: got {pooling!r} for a model of type {config.model_type!r}; "
            "'projection' is what CLAP's text towers have, and what they alone have"
        )
    if clap:
        return ClapTextModelWithProjection
    if config.model_type in auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES:
        return AutoModelForTextEncoding
    if getattr(config, "is_encoder_decoder", False):
        raise EncoderError(
            f"text.weights: a model of type {config.model_type!r} is an encoder and a decoder, "
            "whose encoder cannot be loaded alone; expected a text encoder, such as T5's"
        )
    return AutoModel


def _pad_right(tokenizer: Any, source: str) -> None:
    """Padding behind the text, where no causal model sees it and positions begin at the text."""
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise EncoderError(
                f"text.weights: the tokenizer of {source!r} has neither a padding token nor an "
                "end of text; set pad_token in its tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token


def _limit(network: Any, tokenizer: Any, sentence: SentenceModel | None) -> tuple[int, bool]:
    """Longest passage without special tokens, and whether the tower itself sets it."""
    stated = [_positions(network), int(min(tokenizer.model_max_length, _NO_LIMIT))]
    if sentence is not None and sentence.max_tokens is not None:
        stated.append(sentence.max_tokens)
    limit = min(stated)
    bounded = limit < _NO_LIMIT
    special = tokenizer.num_special_tokens_to_add()
    return (limit if bounded else UNLIMITED_TOKENS) - special, bounded


def _positions(network: Any) -> int:
    """Positions of a network's table; RoBERTa's and its kind begin behind that of padding."""
    rows = int(getattr(network.config, "max_position_embeddings", _NO_LIMIT) or _NO_LIMIT)
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            if module.padding_idx is not None:
                return rows - module.padding_idx - 1
    return rows
