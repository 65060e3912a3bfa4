"""One process of the distributed test; also run alone with a world of 1."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from tiny import make_net

from retrieval.data.batches import TrainSteps
from retrieval.data.cache import FeatureCache
from retrieval.data.manifest import read_manifest
from retrieval.data.order import Part
from retrieval.objective import LossWeights
from retrieval.training import LitCoLLAP


def gradients(rank: int, world: int, root: str, tower: str) -> None:
    torch.set_num_threads(1)
    net = make_net(Path(tower))
    # Each process varies its own songs and leaves out words by chance of its own; the rest must not
    # depend on the split.
    net.audio.vary = lambda prepared, filled, song: (prepared, filled)
    net.words.left_out = 0.0
    cache = FeatureCache(Path(root) / "cache", net)
    songs = [cache.get(song) for song in read_manifest(Path(root) / "manifest.jsonl")]
    batch = TrainSteps([Part(songs, 6)], net, 3, seed=0, rank=rank, world=world)[0]
    module = LitCoLLAP(net, torch.optim.SGD, lambda o: None, LossWeights(), [])
    module.train()
    if world > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=(Path(root) / "port").read_text())
        dist.init_process_group("gloo", rank=rank, world_size=world)
        wrapped = torch.nn.parallel.DistributedDataParallel(module)
        wrapped(batch)["total"].backward()  # gradients are averaged while the wrapper lives
        dist.destroy_process_group()
    else:
        module(batch)["total"].backward()
    found = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    torch.save(found, Path(root) / f"grad-{world}-{rank}.pt")
