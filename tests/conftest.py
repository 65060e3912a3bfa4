from __future__ import annotations

from pathlib import Path

import pytest
from fake_embedder import FakeEmbedder
from tiny import model, tower  # noqa: F401 - fixtures

from index import Library

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of reference data that developers may have beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip("the reference data is not on this machine")
    return SHARED


@pytest.fixture
def music(tmp_path: Path) -> Path:
    folder = tmp_path / "music"
    (folder / "album").mkdir(parents=True)
    for i in range(12):
        name = folder / ("album" if i % 2 else ".") / f"{i:02d}.mp3"
        name.write_bytes(f"song {i}".encode() * 20)
    (folder / "notes.txt").write_text("no song")
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library.create(tmp_path / "music.lp", FakeEmbedder())
