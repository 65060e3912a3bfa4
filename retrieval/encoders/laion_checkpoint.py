"""Reading LAION-CLAP's original ``.pt`` files, without running anything that is in them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrieval.errors import EncoderError

#: The largest published checkpoint, with its optimizer's state, is about 2.4 GB.
_MAX_BYTES = 16 << 30
#: The pickled outline of a checkpoint; published ones are below 1 MB.
_MAX_OUTLINE_BYTES = 64 << 20
_MAX_ENTRIES = 100_000


class _Ignored:
    """Stands in for NumPy's scalars and their types; whatever it is given, it keeps nothing."""

    def __init__(self, *_: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


# Beside the weights lie the optimizer's settings, whose learning rates are NumPy scalars. With
# ``weights_only=True`` torch refuses these names; they are read as nothing.
_IGNORED_NAMES = (
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
)  # fmt: skip


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by their original names.

    The file is mapped, so that an optimizer's state costs no memory, and each of its parts is
    checked against its checksum first. The tensors are views of the file: copy what is kept.

    Args:
        path: a file as ``torch.save`` writes it (torch 1.6 or later).

    Returns:
        Dense tensors on the CPU; a leading ``module.`` is taken off their names.

    Raises:
        EncoderError: the file is missing, damaged, too large, or holds no weights.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise EncoderError(f"checkpoint: got {str(path)!r}, expected an existing .pt file")
    _check_archive(path)
    names: list[Any] = [(_Ignored, name) for name in _IGNORED_NAMES]
    try:
        with torch.serialization.safe_globals(names):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a pickle that was tampered with fails in any way
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)
        raise EncoderError(
            f"checkpoint: {str(path)!r} cannot be read as weights only; it is damaged, or holds "
            f"objects other than tensors ({reason[:200]})"
        ) from error
    return _weights(content, path)


def _check_archive(path: Path) -> None:
    """Refuse what is no whole, uncompressed zip archive of reasonable size."""
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise EncoderError(
            f"checkpoint: {str(path)!r} has {size} bytes, expected at most {_MAX_BYTES}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
            outline = max((e.file_size for e in entries if e.filename.endswith(".pkl")), default=0)
            if packed or len(entries) > _MAX_ENTRIES or outline > _MAX_OUTLINE_BYTES:
                raise EncoderError(
                    f"checkpoint: {str(path)!r} is no archive of torch.save: {len(entries)} "
                    f"entries, {len(packed)} of them compressed, an outline of {outline} bytes"
                )
            damaged = archive.testzip()
    except EncoderError:
        raise
    except Exception as error:  # zipfile lets through what it meets in a damaged directory
        raise EncoderError(
            f"checkpoint: {str(path)!r} is no whole file of torch.save ({error}); it is cut off, "
            "damaged, or something else"
        ) from error
    if damaged is not None:
        raise EncoderError(
            f"checkpoint: {damaged!r} in {str(path)!r} does not match its checksum; the file is "
            "damaged. Fetch it again"
        )


def _weights(content: Any, path: Path) -> dict[str, Tensor]:
    """The ``state_dict`` in what was read, with every tensor checked."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise EncoderError(
            f"checkpoint: {str(path)!r} holds {type(content).__name__}, expected a dict of weights "
            "or one with 'state_dict'; this is no LAION-CLAP checkpoint"
        )
    size = path.stat().st_size
    weights = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not _is_plain(tensor, size):
            raise EncoderError(
                f"checkpoint: {name!r} in {str(path)!r} is no dense tensor of finite numbers "
                f"within the file ({type(tensor).__name__}); the file is damaged or foreign"
            )
        weights[name.removeprefix("module.")] = tensor.detach()
    return weights


def _is_plain(tensor: Any, size: int) -> bool:
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        return False
    if tensor.device.type != "cpu" or tensor.is_quantized:
        return False
    # A tensor may claim any shape with strides of 0; its numbers must lie in the file.
    if math.prod(tensor.shape) * tensor.element_size() > size:
        return False
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
