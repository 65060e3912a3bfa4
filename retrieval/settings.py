"""Settings of the Hydra entry points: what is missing or wrong is one clear error."""

from __future__ import annotations

from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from retrieval.errors import ConfigError, LongplayError


def check_given(cfg: DictConfig) -> None:
    """Refuse a configuration that lacks a value without a default.

    Raises:
        ConfigError: names every such setting.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        example = " ".join(f"{name}=..." for name in missing)
        raise ConfigError(f"{', '.join(missing)}: not given, and has no default; add {example}")


def make(node: Any, **arguments: Any) -> Any:
    """Build the object that a part of the configuration describes.

    Raises:
        LongplayError: what the object itself raised, without Hydra's wrapping.
        ConfigError: it cannot be built from these settings.
    """
    try:
        return instantiate(node, **arguments)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, LongplayError):
                raise cause from None
            cause = cause.__cause__
        raise ConfigError(f"settings: {str(error).splitlines()[0]}") from error
