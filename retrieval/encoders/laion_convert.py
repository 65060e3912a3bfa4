"""LAION-CLAP's original checkpoints in transformers' format, without the package ``laion-clap``.

    python -m retrieval.encoders.laion_convert CHECKPOINT.pt OUT_FOLDER [--tokenizer roberta-base]

The folder serves ``encoder=clap encoder.weights=FOLDER`` and, once it has a tokenizer,
``text=clap text.weights=FOLDER``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.encoders.clap_features import LogMelSettings
from retrieval.encoders.laion_checkpoint import read_checkpoint
from retrieval.encoders.laion_keys import feature_settings
from retrieval.encoders.laion_model import model_name, whole_model
from retrieval.encoders.weights import load_pretrained
from retrieval.errors import EncoderError, LongplayError


def convert(checkpoint: str | Path, folder: str | Path, tokenizer: str | None = None) -> str:
    """Write a checkpoint as a folder that transformers reads, weights as safetensors.

    Args:
        checkpoint: an original ``.pt`` file.
        folder: where to; it must not exist yet.
        tokenizer: folder or hub name of the tokenizer of ``roberta-base``, which no checkpoint
            holds. Without it the folder serves the audio encoder alone.

    Returns:
        What was found, in one line.

    Raises:
        EncoderError: the checkpoint or the tokenizer cannot be used, or the folder exists.
    """
    folder = Path(folder).expanduser()
    if folder.exists():
        raise EncoderError(f"folder: {str(folder)!r} exists, expected a new one")
    weights = read_checkpoint(checkpoint)
    settings, model = feature_settings(weights), whole_model(weights)
    words = _tokenizer(tokenizer, model.config.text_config) if tokenizer else None
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        model.save_pretrained(temporary)
        _extractor(settings).save_pretrained(temporary)
        if words is not None:
            words.save_pretrained(temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    fusion = "with" if model.config.audio_config.enable_fusion else "without"
    return f"{model_name(weights)} {fusion} feature fusion, {model.num_parameters():,} parameters"


def _extractor(settings: LogMelSettings) -> Any:
    from transformers import ClapFeatureExtractor

    return ClapFeatureExtractor(
        feature_size=settings.n_mels,
        sampling_rate=settings.sample_rate_hz,
        hop_length=settings.hop,
        max_length_s=round(settings.clip_s),
        fft_window_size=settings.n_fft,
        frequency_min=settings.low_hz,
        frequency_max=settings.high_hz,
        truncation="fusion" if settings.scale == "htk" else "rand_trunc",
    )


def _tokenizer(source: str, config: Any) -> Any:
    from transformers import AutoTokenizer

    found = load_pretrained(AutoTokenizer, source, "tokenizer")
    if len(found) != config.vocab_size or found.pad_token_id != config.pad_token_id:
        raise EncoderError(
            f"tokenizer: {source!r} has {len(found)} tokens and pads with {found.pad_token_id}, "
            f"expected {config.vocab_size} and {config.pad_token_id}; it is not the tokenizer of "
            "roberta-base, or the folder has no tokenizer files"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one checkpoint from the command line; 0 where it worked."""
    parser = argparse.ArgumentParser(prog="python -m retrieval.encoders.laion_convert")
    parser.add_argument("checkpoint", help="original .pt file of LAION-CLAP")
    parser.add_argument("folder", help="where to write; must not exist yet")
    parser.add_argument("--tokenizer", help="folder or hub name of roberta-base's tokenizer")
    given = parser.parse_args(arguments)
    try:
        print(convert(given.checkpoint, given.folder, given.tokenizer))
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.tokenizer is None:
        print(
            "No tokenizer was written, since a checkpoint holds none: the folder serves the audio "
            "encoder. For the text tower convert again with --tokenizer roberta-base (a network), "
            "or with --tokenizer and a folder that has it."
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
