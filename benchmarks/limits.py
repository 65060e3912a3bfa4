"""Limits that measurements are compared to, in the same run: a matrix product, and operations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from retrieval.encoders.base import AudioEncoder

ROUNDS = 7
CPU = torch.device("cpu")


def median_s(work: Callable[[], object], device: torch.device = CPU) -> float:
    """Median seconds of several runs after two that are not counted."""
    times = []
    for _ in range(ROUNDS + 2):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product of random numbers."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / median_s(lambda: a @ a, device)


def count_flops(encoder: AudioEncoder, features: torch.Tensor) -> int:
    """Operations of one forward pass, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder.encode(features)
    return counter.get_total_flops()
