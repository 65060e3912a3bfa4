"""Benchmarks still run: at a size that measures nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

RUNS = {
    "search": ["--songs", "5000", "--queries", "12"],
    "embed_songs": ["--small", "--count", "1", "--seconds", "20", "--rounds", "1"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(RUNS))
def test_a_benchmark_runs(name: str) -> None:
    if name == "embed_songs":
        pytest.importorskip("librosa")
    command = [sys.executable, "-m", f"benchmarks.{name}", *RUNS[name]]
    found = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stderr
    if name == "search":
        assert "12 of 12 queries" in found.stdout
    else:
        assert "times the usual script" in found.stdout
