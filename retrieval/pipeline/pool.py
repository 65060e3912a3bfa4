"""Decoding in worker processes, with limits; a worker that dies of a file is replaced."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

from retrieval import errors
from retrieval.errors import (
    AudioLimitError,
    ConfigError,
    DamagedAudioError,
    DecoderError,
    LongplayError,
)
from retrieval.pipeline.decoder import DONE, ERROR, HEAD, SAMPLES
from retrieval.pipeline.options import DecodeLimits

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# Room for two minutes at 48 kHz; twice as much whenever it is used up.
_FIRST_SAMPLES = 1 << 22
# An interpreter with numpy and PyAV takes under a second; a sleeping disk or a busy machine more.
_START_S = 60.0


class Decoder:
    """One worker process, started when first needed and again after it died.

    For one thread at a time.
    """

    def __init__(self, limits: DecodeLimits):
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process, without waiting until it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        search = [str(_PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # A worker decodes on one core: there is a worker a core.
        own = {"PYTHONPATH": os.pathsep.join(search), "OPENBLAS_NUM_THREADS": "1"}
        module = ["-m", "retrieval.pipeline.decoder", str(self._limits.memory_bytes)]
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", *module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, **own},
            process_group=0,  # Ctrl-C is for us: what is decoded already shall still be used
        )

    def decode(self, path: str | Path, sample_rate_hz: int) -> np.ndarray:
        """What :func:`retrieval.audio.load_audio` gives for the file.

        Raises:
            AudioError: as there; also where the file takes longer or more memory than allowed, or
                the worker died of it.
        """
        self.start()
        path = Path(path).expanduser().absolute()
        request = {
            "path": str(path),
            "rate_hz": sample_rate_hz,
            "limits": asdict(self._limits.audio),
        }
        try:
            return self._ask(path, json.dumps(request).encode() + b"\n")
        except LongplayError:
            raise
        except BaseException:
            self.stop()  # its answer would be taken for that to the next request
            raise

    def kill(self) -> None:
        """End the process from another thread; the one that waits for it gets an error."""
        process = self._process
        if process is not None:
            process.kill()

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _ask(self, path: Path, request: bytes) -> np.ndarray:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._wait_until_ready()
            self._process.stdin.write(request)
            return self._answer(time.monotonic() + self._limits.time_s)
        except (BrokenPipeError, EOFError) as error:
            raise self._died(path) from error
        except TimeoutError as error:
            self.stop()
            raise AudioLimitError(
                f"{path}: decoding takes more than {self._limits.time_s:.0f} s; is it on a slow "
                "disk, or damaged? Raise the time limit if it is just long"
            ) from error

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        head = bytearray(HEAD.size)
        try:
            self._read(memoryview(head), time.monotonic() + _START_S)
        except (EOFError, TimeoutError) as error:
            self.stop()
            raise DecoderError(
                f"decoder: {sys.executable} -m retrieval.pipeline.decoder does not start within "
                f"{_START_S:.0f} s ({type(error).__name__}); its own message stands above, if any. "
                "Is the memory limit too low, or the system out of processes?"
            ) from error
        self._ready = True

    def _answer(self, deadline: float) -> np.ndarray:
        head, samples, count = bytearray(HEAD.size), np.empty(_FIRST_SAMPLES, np.float32), 0
        while True:
            self._read(memoryview(head), deadline)
            kind, size = HEAD.unpack(head)
            if kind == SAMPLES:
                stop = count + size // 4
                while stop > len(samples):
                    samples = np.concatenate([samples, np.empty_like(samples)])
                self._read(samples[count:stop].data.cast("B"), deadline)
                count = stop
            elif kind == DONE:
                return samples[:count]
            elif kind == ERROR:
                answer = bytearray(size)
                self._read(memoryview(answer), deadline)
                raise _as_error(json.loads(answer))
            else:
                raise EOFError(f"got message {kind!r}")

    def _read(self, into: memoryview, deadline: float) -> None:
        """Fill ``into``; EOFError where the process has ended, TimeoutError at the deadline."""
        assert self._process is not None
        assert self._process.stdout is not None
        source = self._process.stdout
        poll = select.poll()
        poll.register(source, select.POLLIN)
        while into:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not poll.poll(1000 * left_s):
                raise TimeoutError
            count = source.readinto(into)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            into = into[count:]

    def _died(self, path: Path) -> LongplayError:
        assert self._process is not None
        try:
            status = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:  # it closed its side and lives on
            self._process.kill()
            status = self._process.wait()
        self.stop()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return DamagedAudioError(
            f"{path}: the process that decoded it {how}; the file is damaged in a way that its "
            "decoder does not survive, or the machine is out of memory"
        )


def _as_error(answer: dict[str, str]) -> LongplayError:
    kind = getattr(errors, answer["type"], LongplayError)
    return kind(answer["message"])


class DecodePool:
    """Decodes several files at once, each in its own process.

    Args:
        workers: processes, at least 1.
        limits: of every file.
    """

    def __init__(self, workers: int, limits: DecodeLimits):
        if workers < 1:
            raise ConfigError(f"workers: got {workers}, expected at least 1")
        self.workers = workers
        self._decoders = [Decoder(limits) for _ in range(workers)]
        self._free = list(self._decoders)
        self._threads = ThreadPoolExecutor(workers, "decode")
        for decoder in self._decoders:
            decoder.start()

    def submit(self, path: str | Path, sample_rate_hz: int) -> Future[np.ndarray]:
        """Start to decode a file; its result is as of :meth:`Decoder.decode`."""
        return self._threads.submit(self._decode, path, sample_rate_hz)

    def _decode(self, path: str | Path, sample_rate_hz: int) -> np.ndarray:
        decoder = self._free.pop()  # there are as many as threads
        try:
            return decoder.decode(path, sample_rate_hz)
        finally:
            self._free.append(decoder)

    def close(self) -> None:
        """End all processes; what is not decoded yet never will be."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for decoder in self._decoders:
            decoder.kill()
        self._threads.shutdown()
        for decoder in self._decoders:
            decoder.stop()
