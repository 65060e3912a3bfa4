"""LAION-CLAP's weights in transformers' classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.laion_keys import (
    AUDIO,
    NAMES,
    TEXT,
    audio_settings,
    rename,
    text_settings,
)
from retrieval.errors import EncoderError


def audio_tower(weights: Mapping[str, Tensor]) -> Any:
    """The audio branch as a transformers ``ClapAudioModel`` in evaluation mode.

    Args:
        weights: as :func:`~retrieval.encoders.laion_checkpoint.read_checkpoint` gives them.

    Raises:
        EncoderError: weights are missing, left over, or of another shape.
    """
    from transformers import ClapAudioConfig, ClapAudioModel

    config = ClapAudioConfig(**audio_settings(weights))
    prefix = AUDIO.split(".")[0] + "."
    renamed = rename({n: t for n, t in weights.items() if n.startswith("audio_branch.")})
    return _fill(ClapAudioModel, config, {n.removeprefix(prefix): t for n, t in renamed.items()})


def whole_model(weights: Mapping[str, Tensor]) -> Any:
    """Both branches as a transformers ``ClapModel`` in evaluation mode.

    Raises:
        EncoderError: weights are missing, left over, or of another shape.
    """
    from transformers import ClapAudioConfig, ClapConfig, ClapModel, ClapTextConfig

    renamed = rename(weights)
    projection = renamed.get("text_projection.linear2.weight")
    text = ClapTextConfig(**text_settings(weights))
    config = ClapConfig(
        audio_config=ClapAudioConfig(**audio_settings(weights)).to_dict(),
        text_config=text.to_dict(),
        projection_dim=512 if projection is None else len(projection),
    )
    positions = torch.arange(text.max_position_embeddings)[None]
    renamed[f"{TEXT}embeddings.position_ids"] = positions
    renamed[f"{TEXT}embeddings.token_type_ids"] = torch.zeros_like(positions)
    return _fill(ClapModel, config, renamed)


def _fill(kind: Any, config: Any, weights: dict[str, Tensor]) -> Any:
    """A model of which every weight is one of these, and the other way round."""
    with torch.device("meta"):
        model = kind(config)
    wanted = model.state_dict()
    missing, left_over = sorted(set(wanted) - set(weights)), sorted(set(weights) - set(wanted))
    if missing or left_over:
        raise EncoderError(
            f"checkpoint: missing weights {_some(missing)}; unexpected weights {_some(left_over)}; "
            f"expected those of LAION-CLAP ({', '.join(NAMES.values())})"
        )
    _check_shapes(weights, wanted)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _check_shapes(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            raise EncoderError(
                f"checkpoint: {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(wanted[name].shape)} as the shapes of the others say"
            )
        if name.endswith("relative_position_index") and tensor.device.type != "meta":
            rows = len(weights[name.removesuffix("index") + "bias_table"])
            if tensor.min() < 0 or tensor.max() >= rows:
                raise EncoderError(f"checkpoint: {name!r} points outside its {rows} rows")


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def model_name(weights: Mapping[str, Tensor]) -> str:
    """``HTSAT-tiny``, ``HTSAT-base``, ``HTSAT-large``, or ``HTSAT of other size``."""
    found = audio_settings(weights)
    key = found["patch_embeds_hidden_size"], tuple(found["depths"])
    return NAMES.get(key, "HTSAT of other size")
