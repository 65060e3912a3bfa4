from __future__ import annotations

from pathlib import Path

import pytest
from tiny import model, tower  # noqa: F401 - fixtures

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that developers may have beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the reference data is not on this machine")
    return SHARED
