"""The checkpoint that ships with the package, on the pieces that ship with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval.build import load_songs
from retrieval.checkpoint import DEFAULT_CHECKPOINT, load_model
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.manifest import read_manifest
from retrieval.suites import SUITES, Settings, Task


def test_the_shipped_checkpoint_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in DEFAULT_CHECKPOINT.iterdir()) <= 60_000_000
    card = (DEFAULT_CHECKPOINT / "card.md").read_text()
    for word in ("Kevin MacLeod", "CC BY 4.0", "Intended use", "Known failures", "Measured"):
        assert word in card, word


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    model = load_model()
    cache = tmp_path_factory.mktemp("cache")
    return Task(model, load_songs(demo_manifest(), cache, model.net))


@pytest.mark.slow
def test_it_finds_the_demo_pieces_by_long_captions(task: Task) -> None:
    figures = SUITES["fusion"]([task], Settings("long", bootstrap=0)).figures
    # 16 pieces, one a style; chance is 1/16. Far below what it does, far above luck.
    assert figures["attention"]["recall@1"]["value"] >= 0.6


@pytest.mark.slow
def test_it_hears_the_order_of_sections(task: Task) -> None:
    order = SUITES["order"]([task], Settings("long", bootstrap=0)).figures
    assert order["attention"]["swap"]["value"] >= 0.7
    moments = SUITES["moments"]([task], Settings("long", bootstrap=0)).figures
    ours, uniform = (moments[row]["mass_inside"]["value"] for row in ("attention", "uniform"))
    assert ours >= 1.5 * uniform


@pytest.mark.slow
def test_no_demo_piece_was_trained_on(task: Task) -> None:
    # Seeds of the corpora that it was trained on (docs/experiments.md) are far below.
    ids = [song.song.id for song in task.songs]
    assert all(int(name.rsplit("-", 1)[1]) >= 900_000 for name in ids)
    assert len(read_manifest(Path(demo_manifest()))) == 16
