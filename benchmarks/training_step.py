"""``python -m benchmarks.training_step``: all-pairs scores of a training step, and their gradient.

512 songs of 30 clips against 512 texts of 12 passages, forward and backward: the library's
:func:`retrieval.fusion.fused_score`, which works through a few texts at a time, against the loop
over pairs that the formula suggests. The loop runs over fewer texts, all songs each, and its time
is given a pair; gradients are compared on those texts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.machine import print_machine
from retrieval.fusion import CHUNK_PAIRS, fused_score

SONGS, CLIPS, PASSAGES, DIM = 512, 30, 12, 256


@dataclass
class Step:
    """Leaves of one step: unit passages and clips, weights, mask, temperature."""

    passage_emb: Tensor
    passage_weight: Tensor
    clip_emb: Tensor
    clip_mask: Tensor
    tau: Tensor

    @classmethod
    def draw(cls, texts: int) -> Step:
        """The same songs for any number of texts."""
        rng = torch.Generator().manual_seed(0)
        clips = F.normalize(torch.randn(SONGS, CLIPS, DIM, generator=rng), dim=-1)
        heard = torch.randint(CLIPS // 2, CLIPS + 1, (SONGS, 1), generator=rng)
        passages = F.normalize(torch.randn(SONGS, PASSAGES, DIM, generator=rng), dim=-1)[:texts]
        weight = torch.softmax(torch.randn(SONGS, PASSAGES, generator=rng), dim=-1)[:texts]
        mask = torch.arange(CLIPS)[None] < heard
        leaves = (passages.clone(), weight.clone(), clips)
        p, w, c = (x.requires_grad_() for x in leaves)
        return cls(p, w, c, mask, torch.tensor(0.1, requires_grad=True))

    def gradients(self) -> list[Tensor]:
        """What the backward pass left."""
        leaves = (self.passage_emb, self.passage_weight, self.clip_emb, self.tau)
        return [leaf.grad for leaf in leaves if leaf.grad is not None]


def loss(scores: Tensor) -> Tensor:
    """The contrastive loss of the rows: what a step asks of the scores."""
    return F.cross_entropy(20 * scores, torch.arange(len(scores)))


def pair_by_pair(step: Step) -> Tensor:
    """``[texts, songs]``, one pair after another."""
    rows = []
    for passages, weight in zip(step.passage_emb, step.passage_weight, strict=True):
        row = []
        for clips, mask in zip(step.clip_emb, step.clip_mask, strict=True):
            sim = passages @ clips[mask].T
            heard = (torch.softmax(sim / step.tau, dim=-1) * sim).sum(dim=-1)
            row.append((weight * heard).sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def all_pairs(step: Step) -> Tensor:
    """The same by the library."""
    return fused_score(
        step.passage_emb, step.passage_weight, step.clip_emb, step.clip_mask, step.tau
    )


def timed(score, texts: int, rounds: int) -> tuple[float, list[Tensor]]:  # type: ignore[no-untyped-def]
    """Median seconds of forward and backward, and the gradients."""
    times = []
    for _ in range(rounds):
        step = Step.draw(texts)
        start = time.perf_counter()
        loss(score(step)).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times), step.gradients()


def peak_mb() -> float:
    """Most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--loop-texts", type=int, default=16, help="texts that the loop scores")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print_machine("torch")
    timed(all_pairs, 2, 1)
    before = peak_mb()
    ours, _ = timed(all_pairs, SONGS, given.rounds)
    grown = peak_mb() - before
    one = 4 * SONGS * SONGS * PASSAGES * CLIPS / 2**20
    flops = 2 * SONGS * PASSAGES * SONGS * CLIPS * DIM * 4  # forward twice, two gradients
    print(
        f"all pairs of {SONGS} songs x {CLIPS} clips and {SONGS} texts x {PASSAGES} passages, "
        f"forward and backward: {ours:.2f} s, {flops / ours / 1e9:.0f} GFLOP/s"
    )
    print(
        f"peak memory {grown:.0f} MB above the start ({CHUNK_PAIRS:,} pairs at a time); one table "
        f"of all cosines alone is {one:.0f} MB"
    )
    loop, wanted = timed(pair_by_pair, given.loop_texts, 1)
    _, found = timed(all_pairs, given.loop_texts, 1)
    ratio = (loop / given.loop_texts) / (ours / SONGS)
    print(
        f"pair by pair, {given.loop_texts} texts: {1e6 * loop / given.loop_texts / SONGS:.0f} us a "
        f"pair against {1e6 * ours / SONGS**2:.1f} us: {ratio:.1f} times as long (target 5)"
    )
    error = max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, wanted, strict=True)
    )
    print(f"largest difference of a gradient, of its largest entry: {error:.1e}")


if __name__ == "__main__":
    main()
