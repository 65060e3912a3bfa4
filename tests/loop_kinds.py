"""Every way in which the loops that read everything can run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from index import kernels, search, text_kernels
from index.kernels import Loops, load_loops

KINDS = ("amx", "avx512", "avx2", "plain", "numpy")
#: Those that this machine has: a test that draws its kind may not draw one that would skip it all.
USABLE = tuple(kind for kind in KINDS if kind == "numpy" or load_loops(kind))


def use_loops(kind: str, patch: pytest.MonkeyPatch) -> None:
    """Take the loops of a kind; skips where they were not built, or not for this processor."""
    found: Loops | None = None
    if kind != "numpy":
        found = load_loops(kind)
        if found is None:
            pytest.skip(f"loops {kind}: not built, or not for this processor")
    compiled: Callable[[], Loops | None] = lambda: found  # noqa: E731 - one value for all callers
    for module in (kernels, search, text_kernels):
        patch.setattr(module, "compiled", compiled)
