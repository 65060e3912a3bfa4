from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from broken_audio import RATE, write_broken_files, write_good_file

from retrieval.audio import AudioLimits, load_audio
from retrieval.errors import AudioError, AudioLimitError, ConfigError, DamagedAudioError
from retrieval.pipeline import decoder as worker
from retrieval.pipeline.options import DecodeLimits
from retrieval.pipeline.pool import DecodePool, Decoder


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    found = Decoder(DecodeLimits(AudioLimits(max_duration_s=60), time_s=10.0))
    yield found
    found.stop()


def pid(decoder: Decoder) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def test_a_worker_gives_the_same_samples_and_errors(tmp_path: Path, decoder: Decoder) -> None:
    for suffix in ("wav", "flac", "mp3", "ogg", "m4a"):
        path = write_good_file(tmp_path / f"song.{suffix}", 3.0, seed=1)
        assert np.array_equal(decoder.decode(path, 8000), load_audio(path, 8000)), suffix
    first = pid(decoder)
    for name in write_broken_files(tmp_path):
        with pytest.raises(AudioError) as expected:
            load_audio(tmp_path / name, RATE)
        with pytest.raises(expected.type) as found:
            decoder.decode(tmp_path / name, RATE)
        assert str(found.value) == str(expected.value)
    with pytest.raises(AudioLimitError, match="longer than 60 s"):
        decoder.decode(write_good_file(tmp_path / "long.wav", 61.0), RATE)
    assert pid(decoder) == first  # an error is no reason to start again


def test_a_worker_that_dies_is_replaced_and_the_file_named(
    tmp_path: Path, decoder: Decoder
) -> None:
    path = write_good_file(tmp_path / "song.wav")
    decoder.decode(path, RATE)
    first = pid(decoder)
    os.kill(first, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (first, signal.SIGKILL))
    killer.start()
    with pytest.raises(DamagedAudioError, match=r"song\.wav: .* signal 9"):
        decoder.decode(path, RATE)
    killer.join()
    assert np.array_equal(decoder.decode(path, RATE), load_audio(path, RATE))
    assert pid(decoder) != first
    os.kill(pid(decoder), signal.SIGKILL)  # between two files: the next one is not to blame
    time.sleep(0.1)
    assert len(decoder.decode(path, RATE))


def test_a_worker_that_hangs_is_replaced(tmp_path: Path, decoder: Decoder) -> None:
    path = write_good_file(tmp_path / "song.wav")
    decoder.decode(path, RATE)
    os.kill(pid(decoder), signal.SIGSTOP)
    decoder._limits = DecodeLimits(time_s=0.2)
    with pytest.raises(AudioLimitError, match=r"song\.wav: .* more than 0 s"):
        decoder.decode(path, RATE)
    decoder._limits = DecodeLimits()
    assert len(decoder.decode(path, RATE))


def test_memory_is_limited(tmp_path: Path, decoder: Decoder, monkeypatch) -> None:
    decoder.decode(write_good_file(tmp_path / "song.wav"), RATE)
    limits = Path(f"/proc/{pid(decoder)}/limits").read_text().splitlines()
    (line,) = [line for line in limits if line.startswith("Max address space")]
    assert line.split()[3] == str(DecodeLimits().memory_bytes)

    def failing(error: Exception) -> list[tuple[bytes, bytes | memoryview]]:
        def iter_audio(*_: object) -> Iterator[np.ndarray]:
            yield np.zeros(4, np.float32)
            raise error

        monkeypatch.setattr(worker, "iter_audio", iter_audio)
        return list(worker.answer({"path": "a.mp3", "rate_hz": 1, "limits": {}}))

    for error, name in ((MemoryError(), b"AudioLimitError"), (KeyError("x"), b"DamagedAudio")):
        kind, data = failing(error)[-1]
        assert kind == worker.ERROR
        assert name in bytes(data)


def test_a_pool_decodes_at_once_and_stops(tmp_path: Path) -> None:
    paths = [write_good_file(tmp_path / f"{i}.wav", 1.0 + i, seed=i) for i in range(5)]
    pool = DecodePool(2, DecodeLimits())
    found = [pool.submit(path, RATE) for path in paths]
    assert [len(f.result()) for f in found] == [(1 + i) * RATE for i in range(5)]
    processes = [pid(d) for d in pool._decoders]
    pool.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_limits_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="time_s"):
        DecodeLimits(time_s=0)
    with pytest.raises(ConfigError, match="memory_bytes"):
        DecodeLimits(memory_bytes=1000)
    with pytest.raises(ConfigError, match="workers"):
        DecodePool(0, DecodeLimits())
