"""Folders of sentence-transformers, read without the package.

Such a folder has a ``modules.json`` that lists a transformer, a pooling and perhaps dense layers
and a normalisation. What is written there is how the model was trained, so a tower with
``pooling: auto`` does the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.errors import EncoderError

#: Their names for poolings, and ours.
_POOLINGS = {
    "cls": "cls",
    "cls_token": "cls",
    "max": "max",
    "max_tokens": "max",
    "mean": "mean",
    "mean_tokens": "mean",
    "weightedmean": "weighted",
    "weightedmean_tokens": "weighted",
    "lasttoken": "last",
}
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.GELU": nn.GELU,
}
#: Older folders name the transformer's settings after its kind.
_LIMIT_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True)
class SentenceModel:
    """What a folder of sentence-transformers says.

    Attributes:
        transformer: subfolder of the transformer, empty for the folder itself.
        pooling: one of :data:`retrieval.encoders.pooling.TOKEN_POOLINGS`.
        max_tokens: longest input with the special tokens, None where it says nothing.
        dense: subfolders of the layers behind the pooling, in order.
        unit: whether the vectors are of length 1.
    """

    transformer: str
    pooling: str
    max_tokens: int | None
    dense: tuple[str, ...]
    unit: bool


def read_sentence_model(weights: str) -> SentenceModel | None:
    """The settings of a folder or hub name, None where it has no ``modules.json``.

    Raises:
        EncoderError: it has a part that is not known here, or two poolings at once.
    """
    modules = _read(weights, "modules.json")
    if modules is None:
        return None
    folders: dict[str, list[str]] = {}
    for module in modules:
        folders.setdefault(module["type"].rsplit(".", 1)[-1], []).append(module.get("path", ""))
    unknown = sorted(set(folders) - {"Transformer", "Pooling", "Dense", "Normalize"})
    counts = (len(folders.get("Transformer", ())), len(folders.get("Pooling", ())))
    if unknown or counts != (1, 1):
        raise EncoderError(
            f"text.weights: {weights!r} is made of {', '.join(folders)}; expected one Transformer, "
            "one Pooling, and Dense or Normalize behind them. Name its transformer's folder and a "
            "pooling other than auto"
        )
    transformer = folders["Transformer"][0]
    return SentenceModel(
        transformer,
        _pooling(weights, folders["Pooling"][0]),
        _limit(weights, transformer),
        tuple(folders.get("Dense", ())),
        "Normalize" in folders,
    )


def _pooling(weights: str, folder: str) -> str:
    config = _read(weights, f"{folder}/config.json") or {}
    given = config.get("pooling_mode")
    if given is None:
        prefix = "pooling_mode_"
        given = [k.removeprefix(prefix) for k, on in config.items() if k.startswith(prefix) and on]
    modes = [given] if isinstance(given, str) else list(given) or ["mean"]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise EncoderError(
            f"text.weights: {weights!r} pools by {', '.join(modes)}; expected one of "
            f"{', '.join(sorted(set(_POOLINGS.values())))}. Set text.pooling to the nearest"
        )
    return _POOLINGS[modes[0]]


def _limit(weights: str, folder: str) -> int | None:
    for name in _LIMIT_FILES:
        config = _read(weights, f"{folder}/{name}" if folder else name)
        if config is not None:
            if config.get("do_lower_case"):
                raise EncoderError(
                    f"text.weights: {weights!r} lowers the case before its tokenizer, which is "
                    "not done here; set it in the tokenizer's own settings"
                )
            return config.get("max_seq_length")
    return None


class DenseHead(nn.Module):
    """The layers behind the pooling: ``[n, d]`` -> ``[n, d_text]``.

    Raises:
        EncoderError: a layer's settings are not known here, or its weights are missing.
    """

    def __init__(self, weights: str, folders: tuple[str, ...]):
        super().__init__()
        self.layers = nn.Sequential(*(_dense(weights, folder) for folder in folders))
        linear = [layer for layer in self.layers.modules() if isinstance(layer, nn.Linear)]
        self.width = linear[-1].out_features

    def forward(self, pooled: Tensor) -> Tensor:
        """All layers, in order."""
        return self.layers(pooled)


def _dense(weights: str, folder: str) -> nn.Sequential:
    config = _read(weights, f"{folder}/config.json") or {}
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    ours = config.get("module_input_name", "sentence_embedding") == "sentence_embedding"
    if activation not in _ACTIVATIONS or config.get("use_residual") or not ours:
        raise EncoderError(
            f"text.weights: {weights!r}: {folder} has settings that are not known here: {config}"
        )
    linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
    state = {n.removeprefix("linear."): t for n, t in _state(weights, folder).items()}
    try:
        linear.load_state_dict(state)
    except RuntimeError as error:
        raise EncoderError(
            f"text.weights: {weights!r}: the weights in {folder} are not those of its config.json"
        ) from error
    return nn.Sequential(linear, _ACTIVATIONS[activation]())


def _state(weights: str, folder: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = _find(weights, f"{folder}/model.safetensors")
    if path is not None:
        return load_file(path)
    path = _find(weights, f"{folder}/pytorch_model.bin")
    if path is None:
        raise EncoderError(f"text.weights: {weights!r}: {folder} has no weights")
    return torch.load(path, map_location="cpu", weights_only=True)


def _read(weights: str, name: str) -> Any:
    path = _find(weights, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EncoderError(f"text.weights: {weights!r}: {name} is no JSON ({error})") from error


def _find(weights: str, name: str) -> Path | None:
    """A file of a folder, or of a hub name; None where it has no such file."""
    folder = Path(weights).expanduser()
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(weights, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderError(
            f"text.weights: {weights!r} cannot be looked up; expected an existing folder, or a "
            f"hub name and a network ({reason})"
        ) from error
    return Path(found) if found else None
