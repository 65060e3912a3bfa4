"""Training a part of a published tower: its last layers, chosen weights, or adapters beside it.

Works on every encoder alike: on the module ``tower``, on those of the encoders that it consists of,
or on the whole encoder where there is none.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from retrieval.encoders.base import AudioEncoder, TextEncoder, tower_owners
from retrieval.encoders.weights import state_digest
from retrieval.errors import ConfigError, EncoderError

ADAPTERS = ("lora", "dora", "ia3")


@dataclass(frozen=True)
class TuneConfig:
    """What of a tower is trained; the rest stays as it was published.

    Attributes:
        layers: the last so many layers of each stack of attention layers; None for no layer, and
            for adapters in all of them.
        patterns: names of weights, with ``*`` for anything: ``["*LayerNorm*", "*.bias"]``.
        adapter: small trained parts beside the linear maps of the layers, whose own weights stay:
            ``lora`` (arXiv 2106.09685), ``dora`` (arXiv 2402.09353), ``ia3`` (arXiv 2205.05638)
            or None. Needs the extra ``lora``.
        rank: of LoRA's and DoRA's matrices.
        alpha: their scale is ``alpha / rank``; None for ``2 * rank``.
        dropout: before their matrices.
        targets: ends of the names of linear maps that get adapters, such as ``["query", "value"]``;
            empty for all of the layers.
    """

    layers: int | None = None
    patterns: tuple[str, ...] = ()
    adapter: str | None = None
    rank: int = 8
    alpha: int | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("patterns", "targets"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise ConfigError(f"tune.{name}: got {given!r}, expected a list: [{given!r}]")
            object.__setattr__(self, name, tuple(given))
        if self.adapter not in (None, *ADAPTERS):
            raise ConfigError(f"tune.adapter: got {self.adapter!r}, expected one of {ADAPTERS}")
        if self.layers is not None and self.layers < 1:
            raise ConfigError(f"tune.layers: got {self.layers}, expected at least 1, or null")
        if self.rank < 1:
            raise ConfigError(f"tune.rank: got {self.rank}, expected at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"tune.dropout: got {self.dropout}, expected 0 to below 1")
        if self.layers is None and not self.patterns and self.adapter is None:
            raise ConfigError(
                "tune: trains nothing; expected layers, patterns or an adapter (frozen: true keeps "
                "a whole tower as it is)"
            )


def tune_config(settings: Mapping[str, Any], group: str) -> TuneConfig:
    """``tune`` of an encoder's settings.

    Args:
        settings: names and values of :class:`TuneConfig`.
        group: ``encoder`` or ``text``, for messages.

    Raises:
        ConfigError: a setting is unknown or cannot work.
    """
    known = {field.name for field in fields(TuneConfig)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(
            f"{group}.tune.{unknown[0]}: no such setting, expected one of "
            f"{', '.join(sorted(known))}"
        )
    return TuneConfig(**settings)


def tune_encoder(encoder: AudioEncoder | TextEncoder, config: TuneConfig) -> None:
    """Train only a part of an encoder's tower, in place.

    Args:
        encoder: not frozen. Its ``tuned`` names what is trained.
        config: which part.

    Raises:
        ConfigError: the tower has no such layers or weights.
        EncoderError: an adapter is asked for, and peft is not installed.
    """
    owners = [owner for _, owner in tower_owners(encoder)]
    if owners and encoder not in owners:
        for owner in owners:
            tune_encoder(owner, config)
        return
    if encoder.frozen:
        raise ConfigError("tune: the encoder is frozen; expected frozen: false beside it")
    tower, prefix = _tower(encoder)
    tower.requires_grad_(False)
    layers = _last_layers(tower, config.layers)
    if config.adapter is not None:
        _add_adapters(tower, config, layers)
    elif config.layers is not None:
        for name in layers:
            tower.get_submodule(name).requires_grad_(True)
    for pattern in config.patterns:
        _unfreeze(tower, pattern)
    # By tensor and not by name: a weight that two parts share has two names.
    state = tower.state_dict(keep_vars=True)
    encoder.tuned = frozenset(f"{prefix}{name}" for name, t in state.items() if t.requires_grad)
    encoder.train(encoder.training)  # parts that are new take its mode


def rest_digests(encoder: AudioEncoder | TextEncoder) -> dict[str, str]:
    """SHA-256 of what is not trained of each tuned tower in an encoder, in hex, by its name.

    Where only adapters are trained, it is that of the frozen tower.
    """
    return {
        f"{prefix}tower": state_digest(_rest(owner))
        for prefix, owner in tower_owners(encoder)
        if owner.tuned is not None
    }


def _rest(owner: AudioEncoder | TextEncoder) -> dict[str, Tensor]:
    tower, prefix = _tower(owner)
    tuned = owner.tuned or frozenset()
    return {
        name.replace(".base_layer.", "."): value
        for name, value in tower.state_dict().items()
        if f"{prefix}{name}" not in tuned
    }


def adapted_name(name: str) -> str:
    """Where an adapter keeps a weight beside it: ``a.bias`` -> ``a.base_layer.bias``."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.base_layer.{last}"


def layer_stacks(module: nn.Module, prefix: str = "") -> list[list[str]]:
    """Names of the layers of each stack: a list of like modules that attend, not inside another.

    Convolutions in front of a transformer are no stack; the stages of a Swin transformer are.
    """
    members = list(module.children())
    if isinstance(module, nn.ModuleList) and members and _are_layers(members):
        return [[f"{prefix}{name}" for name, _ in module.named_children()]]
    return [
        stack
        for name, child in module.named_children()
        for stack in layer_stacks(child, f"{prefix}{name}.")
    ]


def _are_layers(members: list[nn.Module]) -> bool:
    if len({type(member) for member in members}) > 1:
        return False
    # Encoders side by side are no layers of one another.
    if any(hasattr(m, "base_model_prefix") or isinstance(m, AudioEncoder) for m in members):
        return False
    return all(
        any("attention" in type(part).__name__.lower() or "attn" in name for name, part in parts)
        for parts in (member.named_modules() for member in members)
    )


def _tower(encoder: AudioEncoder | TextEncoder) -> tuple[nn.Module, str]:
    """The module that is tuned, and what stands before its names in the encoder's."""
    tower = getattr(encoder, "tower", None)
    return (encoder, "") if tower is None else (tower, "tower.")


def _last_layers(tower: nn.Module, count: int | None) -> list[str]:
    stacks = layer_stacks(tower)
    if count is None:
        return [name for stack in stacks for name in stack]
    longest = max(map(len, stacks), default=0)
    if count > longest:
        raise ConfigError(
            f"tune.layers: got {count}, but the tower has {longest} layers that can be counted"
            + ("; name weights with tune.patterns" if not longest else "")
        )
    return [name for stack in stacks for name in stack[-count:]]


def _unfreeze(tower: nn.Module, pattern: str) -> None:
    found = [p for name, p in tower.named_parameters() if fnmatchcase(name, pattern)]
    if not found:
        names = [name for name, _ in tower.named_parameters()]
        raise ConfigError(
            f"tune.patterns: {pattern!r} is the name of no weight; the first and last of "
            f"{len(names)} are {names[0]!r} and {names[-1]!r}"
        )
    for parameter in found:
        parameter.requires_grad_(True)


def _add_adapters(tower: nn.Module, config: TuneConfig, layers: list[str]) -> None:
    try:
        from peft import IA3Config, LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise EncoderError(
            f"tune.adapter: {config.adapter!r} needs peft, which is not installed; "
            "pip install 'longplay[lora]'"
        ) from error

    exactly = "|".join(map(re.escape, _linear_maps(tower, config, layers)))
    settings: Any
    if config.adapter == "ia3":
        settings = IA3Config(target_modules=exactly, feedforward_modules=[])
    else:
        settings = LoraConfig(
            r=config.rank,
            lora_alpha=2 * config.rank if config.alpha is None else config.alpha,
            lora_dropout=config.dropout,
            target_modules=exactly,
            use_dora=config.adapter == "dora",
        )
    with warnings.catch_warnings():
        # It sees by itself that GPT-2 keeps its matrices the other way round, and says so.
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        inject_adapter_in_model(settings, tower)


def _linear_maps(tower: nn.Module, config: TuneConfig, layers: list[str]) -> list[str]:
    """Names of the linear maps that get adapters."""
    inside = tuple(f"{name}." for name in layers)
    # torch's own attention reads the weights of its parts and never calls them.
    closed = tuple(
        f"{n}." for n, m in tower.named_modules() if isinstance(m, nn.MultiheadAttention)
    )
    linear = [
        name
        for name, module in tower.named_modules()
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"
        if name.startswith(inside or "") and not name.startswith(closed or "\0")
    ]
    ends = tuple(f".{target}" for target in config.targets)
    chosen = [name for name in linear if not ends or f".{name}".endswith(ends)]
    if not chosen:
        some = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(
            f"tune.targets: {list(config.targets)} is the end of no linear map of the layers; "
            f"expected some of {some}"
        )
    return chosen
