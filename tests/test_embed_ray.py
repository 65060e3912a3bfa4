"""Embedding on a Ray cluster of several nodes, one of which is lost in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from broken_audio import write_good_file
from tiny import make_net

from retrieval.checkpoint import load_model, save_checkpoint
from retrieval.data.scan import find_songs
from retrieval.errors import ConfigError
from retrieval.inference import LongplayModel
from retrieval.pipeline.on_ray import RayStages
from retrieval.pipeline.options import EmbedOptions
from retrieval.pipeline.run import embed_all
from retrieval.pipeline.shards import read_clips, read_rows, verify
from retrieval.pipeline.writer import ShardWriter

OBJECT_STORE_BYTES = 80 << 20


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """A head that does no work, and two nodes that do."""
    pytest.importorskip("ray", reason="ray is not installed (the extra 'scale')")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    # Each could do all of the work: whichever is lost, there is room for its actors.
    nodes = [found.add_node(num_cpus=4, object_store_memory=OBJECT_STORE_BYTES) for _ in range(2)]
    ray.init(address=found.address, log_to_driver=False, configure_logging=False)
    yield found, nodes
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray's own: open files, renamed functions
def test_a_node_is_killed_and_every_song_is_embedded_once(
    tmp_path: Path, tower: Path, cluster: Any
) -> None:
    songs, out = tmp_path / "songs", tmp_path / "out"
    songs.mkdir()
    for i in range(40):
        write_good_file(songs / f"{i:02d}.wav", 3.0 + i % 4, seed=i)
    (songs / "bad.mp3").write_text("no song")
    (songs / "copy.wav").write_bytes((songs / "00.wav").read_bytes())
    net = make_net(tower, captioner=False)
    model = load_model(save_checkpoint(net, tmp_path / "checkpoint", {}, "A test."))
    ray_cluster, nodes = cluster
    killed_at: list[int] = []

    def on_file(path: str, done: int, total: int) -> None:
        if done == 5:  # copy.wav, and some songs
            ray_cluster.remove_node(nodes[0], allow_graceful=False)
            killed_at.append(done)

    writer = ShardWriter(out, {"model": model.digest})
    stages = RayStages(model, EmbedOptions(workers=1), encoders=2)
    report = embed_all(find_songs([songs]), writer, stages, on_file)
    stages.close()
    writer.close()
    assert killed_at == [5]
    assert (report.embedded, report.same, len(report.skipped)) == (40, 1, 1)
    rows = read_rows(out)
    assert len(rows) == 41
    assert len({(row.shard, row.start) for row in rows}) == 40
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as Ray gives its actors: sums of other shares differ in the last bit
    try:
        for row in rows:
            assert np.array_equal(read_clips(out, row), model.embed_song(row.path).clip_emb)
    finally:
        torch.set_num_threads(threads)
    verify(out)


def test_what_no_cluster_can_run_is_refused(model: LongplayModel) -> None:
    with pytest.raises(ConfigError, match="encoders"):
        RayStages(model, EmbedOptions(), encoders=0)
    with pytest.raises(ConfigError, match="checkpoint"):
        RayStages(model, EmbedOptions())
