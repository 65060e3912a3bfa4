"""The process that decodes: ``python -m retrieval.pipeline.decoder``, started by ``pool.py``.

It imports neither torch nor the model, so it is ready long before they would be. A request is
one line of JSON on standard input; the answer on standard output is a row of messages, each one
letter, a length and that many bytes: ``S`` samples (float32), then ``D`` done or ``E`` an error;
``R`` comes once, when the process is ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from retrieval.audio import AudioLimits, iter_audio
from retrieval.errors import AudioLimitError, DamagedAudioError, LongplayError

#: One letter and the number of bytes that follow.
HEAD = struct.Struct("<cI")
READY, SAMPLES, DONE, ERROR = b"R", b"S", b"D", b"E"
#: Decoders give some thousand samples at a time; so many are sent together.
_SEND_SAMPLES = 1 << 18


def main() -> int:
    """Answer requests until standard input ends."""
    # What a library prints must not get between the messages.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    limit_memory(int(sys.argv[1]))
    try:
        import av  # noqa: F401 - so that no file waits for it

        _send(out, READY, b"")
        for line in sys.stdin.buffer:
            for kind, data in answer(json.loads(line)):
                _send(out, kind, data)
    except BrokenPipeError:
        return 1  # whoever asked is gone
    return 0


def limit_memory(n_bytes: int) -> None:
    """Let this process ask the system for no more address space than that, where there is a way."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))


def answer(request: dict[str, Any]) -> Iterator[tuple[bytes, bytes | memoryview]]:
    """The messages for one file; whatever goes wrong is one of them."""
    path = request["path"]
    try:
        blocks = iter_audio(path, request["rate_hz"], AudioLimits(**request["limits"]))
        yield from ((SAMPLES, part.data.cast("B")) for part in _together(blocks))
    except LongplayError as error:
        yield _error(error)
    except MemoryError:
        yield _error(AudioLimitError(f"{path}: decoding it takes more memory than is allowed"))
    except Exception as error:  # a fault of a decoder, which must not end the batch
        kind = type(error).__name__
        yield _error(DamagedAudioError(f"{path}: the decoder failed ({kind}: {error})"))
    else:
        yield DONE, b""


def _together(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in larger blocks."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += len(block)
        if count >= _SEND_SAMPLES:
            yield np.concatenate(waiting)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting)


def _error(error: LongplayError) -> tuple[bytes, bytes]:
    found = {"type": type(error).__name__, "message": str(error)}
    return ERROR, json.dumps(found).encode()


def _send(out: BinaryIO, kind: bytes, data: bytes | memoryview) -> None:
    rest = memoryview(HEAD.pack(kind, len(data)))
    for part in (rest, memoryview(data)):
        while part:
            part = part[out.write(part) :]


if __name__ == "__main__":
    sys.exit(main())
