"""Which devices compute faster in bfloat16."""

from __future__ import annotations

import torch


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16 matrices."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
