"""Arrays on disk in the safetensors layout: written in pieces, and read where they lie."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.errors import DamagedLibraryError

_NAMES = {"int64": "I64", "float64": "F64", "float32": "F32", "float16": "F16", "uint8": "U8"}
_DTYPES = {short: np.dtype(name).newbyteorder("<") for name, short in _NAMES.items()}
_MAX_HEADER_BYTES = 1 << 20
_PIECE_ROWS = 1 << 16


@dataclass(frozen=True)
class Column:
    """One array to be written, in pieces along its first axis.

    Attributes:
        pieces: arrays of one dtype and of the same trailing shape; each is written in turn, so
            that a column need not fit in memory.
        dtype: int64, float64, float32, float16 or uint8.
        tail: shape behind the first axis.
    """

    pieces: Sequence[np.ndarray]
    dtype: str
    tail: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return (sum(len(piece) for piece in self.pieces), *self.tail)

    @property
    def n_bytes(self) -> int:
        """Of the whole array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def dump_columns(columns: Mapping[str, Column]) -> Iterator[bytes]:
    """The bytes of a safetensors file (github.com/huggingface/safetensors, "Format").

    Wide types come first, so that every array lies at a multiple of its item size.
    """
    order = sorted(columns, key=lambda name: (-np.dtype(columns[name].dtype).itemsize, name))
    header, begin = {}, 0
    for name in order:
        column = columns[name]
        end = begin + column.n_bytes
        header[name] = {
            "dtype": _NAMES[column.dtype],
            "shape": column.shape,
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name in order:
        column = columns[name]
        for piece in column.pieces:
            for start in range(0, len(piece), _PIECE_ROWS):
                rows = piece[start : start + _PIECE_ROWS]
                yield rows.astype(_DTYPES[_NAMES[column.dtype]]).tobytes()


def view_columns(data: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file, without copying.

    Args:
        data: uint8 ``[n_bytes]``, the whole file; its checksum was found right.

    Raises:
        DamagedLibraryError: the header does not describe arrays that lie within the file.
    """
    try:
        size = int.from_bytes(data[:8].tobytes(), "little")
        if len(data) < 8 or size > min(_MAX_HEADER_BYTES, len(data) - 8):
            raise ValueError(f"header of {size} bytes")
        header = json.loads(data[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        body = data[8 + size :]
        return {name: _view(body, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedLibraryError(f"segment: is no safetensors file ({error})") from error


def _view(body: np.ndarray, entry: Mapping[str, object]) -> np.ndarray:
    dtype = _DTYPES[str(entry["dtype"])]
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise ValueError("shape or offsets are no lists")
    if any(not isinstance(n, int) or n < 0 for n in (*shape, *offsets)):
        raise ValueError("a size is no count")
    begin, end = offsets
    if not begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("an array does not fit its bytes")
    return body[begin:end].view(dtype).reshape(shape)
