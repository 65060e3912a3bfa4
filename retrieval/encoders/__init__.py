"""Encoders by name: one adapter a file, one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from retrieval.encoders.base import AudioEncoder, TextEncoder
from retrieval.encoders.beats import BeatsConfig, BeatsEncoder
from retrieval.encoders.clap import ClapConfig, ClapEncoder
from retrieval.encoders.dual import DualConfig, DualEncoder
from retrieval.encoders.frames import AstConfig, AstEncoder, Wav2Vec2Config, Wav2Vec2Encoder
from retrieval.encoders.laion_clap import LaionClapConfig, LaionClapEncoder
from retrieval.encoders.mel import MelConfig, MelEncoder
from retrieval.encoders.muq import MuqConfig, MuqEncoder
from retrieval.encoders.transformer import TransformerConfig, TransformerEncoder
from retrieval.encoders.tuning import tune_config, tune_encoder
from retrieval.encoders.whisper import WhisperConfig, WhisperEncoder
from retrieval.errors import ConfigError

_AUDIO: dict[str, tuple[Any, Any]] = {
    "mel": (MelConfig, MelEncoder),
    "clap": (ClapConfig, ClapEncoder),
    "laion_clap": (LaionClapConfig, LaionClapEncoder),
    "whisper": (WhisperConfig, WhisperEncoder),
    "beats": (BeatsConfig, BeatsEncoder),
    "ast": (AstConfig, AstEncoder),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Encoder),
    "muq": (MuqConfig, MuqEncoder),
    "dual": (DualConfig, DualEncoder),
}
_TEXT = {"transformer": (TransformerConfig, TransformerEncoder)}

__all__ = ["AudioEncoder", "TextEncoder", "build_audio_encoder", "build_text_encoder"]


def build_audio_encoder(settings: Mapping[str, Any]) -> AudioEncoder:
    """Build an audio encoder from ``{"name": "mel", ...}``.

    ``tune`` in it trains a part of the tower (:class:`retrieval.encoders.tuning.TuneConfig`).

    Raises:
        ConfigError: the name or a setting is unknown.
    """
    return _build(settings, _AUDIO, "encoder")


def build_text_encoder(settings: Mapping[str, Any]) -> TextEncoder:
    """Build a text encoder from ``{"name": "transformer", ...}``, with ``tune`` as for audio.

    Raises:
        ConfigError: the name or a setting is unknown.
    """
    return _build(settings, _TEXT, "text")


def _build(settings: Mapping[str, Any], table: dict[str, tuple[Any, Any]], group: str) -> Any:
    name = settings.get("name")
    if name not in table:
        raise ConfigError(f"{group}.name: got {name!r}, expected one of {', '.join(table)}")
    config_class, encoder_class = table[name]
    known = {field.name for field in fields(config_class)}
    given = {key: value for key, value in settings.items() if key not in ("name", "tune")}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(
            f"{group}.{unknown[0]}: no such setting of {name!r}, expected one of "
            f"{', '.join(sorted(known))}"
        )
    if settings.get("tune") is None:
        return encoder_class(config_class(**given))
    tune = tune_config(settings["tune"], group)
    if given.get("frozen"):
        raise ConfigError(
            f"{group}.tune: given beside {group}.frozen: true, which trains nothing of the tower; "
            f"set {group}.frozen to false, or {group}.tune to null"
        )
    thawed = {"frozen": False} if "frozen" in known else {}
    encoder = encoder_class(config_class(**{**given, **thawed}))
    tune_encoder(encoder, tune)
    return encoder
