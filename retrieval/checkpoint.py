"""The one checkpoint format: a folder of weights, settings and a card (docs/checkpoint.md)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.captioner import CaptionerConfig
from retrieval.encoders import AudioEncoder, TextEncoder
from retrieval.encoders.base import outside
from retrieval.encoders.tuning import rest_digests
from retrieval.errors import CheckpointError, ConfigError
from retrieval.gist import GistConfig
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP, ModelConfig
from retrieval.naming import NamingConfig
from retrieval.narrow import NarrowConfig
from retrieval.querybank import QuerybankConfig

FORMAT = 1
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.md"
#: The checkpoint that ships with the package.
DEFAULT_CHECKPOINT = Path(__file__).resolve().parent / "checkpoints" / "default"
_MAX_CONFIG_BYTES = 16 << 20
_MAX_WEIGHT_BYTES = 16 << 30


def save_checkpoint(
    net: CoLLAP,
    folder: str | Path,
    facts: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a checkpoint, replacing one that is there only when the new one is whole.

    Weights of a frozen published tower are not copied: ``config.json`` names them by digest. Of a
    tuned tower only what is trained is kept; adapters are kept beside the tower, never merged.

    Args:
        net: the model.
        folder: where to.
        facts: JSON-ready facts to keep beside it: data digest, training settings, results.
        card: text of ``card.md``.
        dtype: of the stored weights; float16 halves the size.

    Returns:
        The folder.
    """
    from safetensors.torch import save

    folder = Path(folder)
    state = {name: t.detach().to("cpu", dtype).contiguous() for name, t in _own(net).items()}
    weights = save(state)
    config = {
        "format": FORMAT,
        "model": model_settings(net.config),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "frozen": _frozen(net),
        "code_sha256": code_digest(),
        **facts,
    }
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    (temporary / WEIGHTS).write_bytes(weights)
    (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (temporary / CARD).write_text(card, encoding="utf-8")
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old)
    else:
        temporary.rename(folder)
    return folder


def load_model(path: str | Path | None = None, device: str = "cpu") -> LongplayModel:
    """Load a checkpoint.

    Args:
        path: its folder; None for the one that ships with the package.
        device: a torch device.

    Raises:
        CheckpointError: the folder is incomplete, damaged or of another format, or a published
            tower is not the one it was trained with.
    """
    folder = DEFAULT_CHECKPOINT if path is None else Path(path).expanduser()
    config = read_config(folder)
    weights = _read_weights(folder, config)
    try:
        net = CoLLAP(model_config(config["model"]))
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {folder}: settings cannot be used ({error})") from error
    found = _frozen(net)
    if found != config["frozen"]:
        raise CheckpointError(
            f"checkpoint {folder}: was trained with the published towers {config['frozen']}, found "
            f"{found}; another model of the same name is installed"
        )
    load_weights(net, weights, f"checkpoint {folder}")
    return LongplayModel(net.to(device), _digest(config), folder)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a checkpoint, checked for its format and main fields.

    Raises:
        CheckpointError: it is missing, no JSON object, or of another format.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise CheckpointError(f"{path}: is larger than {_MAX_CONFIG_BYTES} bytes")
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"checkpoint {folder}: {CONFIG} cannot be read ({error.strerror}); expected a folder "
            f"with {WEIGHTS}, {CONFIG} and {CARD}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {folder}: {CONFIG} is no JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(
            f"checkpoint {folder}: format is not {FORMAT}; it was made by another version or by "
            "something else"
        )
    for name, kind in (("model", dict), ("weights_sha256", str), ("frozen", dict)):
        if not isinstance(config.get(name), kind):
            raise CheckpointError(f"checkpoint {folder}: {CONFIG} has no {name!r}")
    return config


def load_weights(net: CoLLAP, weights: Mapping[str, Tensor], where: str) -> None:
    """Put stored weights into a model; names and shapes must all match.

    Raises:
        CheckpointError: they do not.
    """
    own = _own(net)
    wrong = sorted(set(own) ^ set(weights))
    wrong += sorted(n for n in set(own) & set(weights) if own[n].shape != weights[n].shape)
    if wrong:
        raise CheckpointError(
            f"{where}: weights do not fit the model, first at {wrong[0]!r} ({len(wrong)} in all)"
        )
    net.load_state_dict({n: t.float() for n, t in weights.items()}, strict=False)


def _read_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    try:
        if path.stat().st_size > _MAX_WEIGHT_BYTES:
            raise CheckpointError(f"{path}: is larger than {_MAX_WEIGHT_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder}: {WEIGHTS}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != config["weights_sha256"]:
        raise CheckpointError(
            f"checkpoint {folder}: {WEIGHTS} does not match its checksum; the copy is damaged or "
            "incomplete"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint {folder}: {WEIGHTS}: {error}") from error


def model_settings(config: ModelConfig) -> dict[str, Any]:
    """A model's settings as JSON-ready primitives."""
    return json.loads(json.dumps(asdict(config)))


def model_config(settings: Mapping[str, Any]) -> ModelConfig:
    """Undo :func:`model_settings`."""
    settings = dict(settings)
    captioner, bank = settings.pop("captioner", None), settings.pop("querybank", None)
    narrow, gist = settings.pop("narrow", None), settings.pop("gist", None)
    naming = settings.pop("naming", None)
    return ModelConfig(
        **settings,
        captioner=CaptionerConfig(**captioner) if captioner else None,
        gist=GistConfig(**gist) if gist else None,
        naming=NamingConfig(**naming) if naming else None,
        querybank=QuerybankConfig(**bank) if bank else None,
        narrow=NarrowConfig(**narrow) if narrow else None,
    )


def code_digest() -> str:
    """SHA-256 over the package's source files, in hex."""
    root = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\n" + path.read_bytes())
    return digest.hexdigest()


def _own(net: CoLLAP) -> dict[str, Tensor]:
    """The state that a checkpoint holds: all but what is as published in the towers."""
    parts = (("audio", net.audio), ("text", net.text))
    published = {f"{name}.{inner}" for name, part in parts for inner in outside(part)}
    return {name: t for name, t in net.state_dict().items() if name not in published}


def _frozen(net: CoLLAP) -> dict[str, Any]:
    """What tells the published towers, or parts of towers, that a checkpoint does not hold."""
    parts: dict[str, AudioEncoder | TextEncoder] = {"encoder": net.audio, "text": net.text}
    return {
        name: {**part.identity(), **rest_digests(part)}
        for name, part in parts.items()
        if outside(part)
    }


def _digest(config: Mapping[str, Any]) -> str:
    names = ("format", "model", "weights_sha256", "frozen")
    canonical = json.dumps({n: config[n] for n in names}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
