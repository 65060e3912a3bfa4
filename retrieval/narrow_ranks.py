"""The two matrices of a narrow space, moved until songs and texts rank as in the wide one.

:func:`retrieval.narrow.fit_narrow` leaves the least out of all products, whether they decide
anything or not. Which song is first is decided among those near the top, through the softmax over
clips. So from there the matrices follow the gradient of what the network's own ranking is: the
divergence between the softmax of wide scores over some songs and that of narrow ones, and likewise
over texts (distillation of rankings, as ListNet compares lists: Cao et al., ICML 2007).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.fusion import fused_score
from retrieval.narrow import Matrices, fill_lengths
from retrieval.scoring import Texts, pad_clips

_STEPS = 300
#: Songs of a step, and one text of each.
_SONGS = 96
#: Of scores in the softmax: a tenth between two songs is a factor of 50.
_SHARPNESS = 40.0
#: Size of gradients below which steps shrink: usual ones are 100 times as large.
_NOISE = 1e-5
#: Of the squared difference of scores beside the divergences, which see nothing of low ones.
_KEPT = 0.1
#: First step, of the spread of a matrix's numbers; falls with a cosine to 0.
_RATE = 0.04


def keep_ranks(
    start: Matrices,
    clips: Sequence[np.ndarray],
    texts: Texts,
    owner: Sequence[int],
    tau: float,
    device: torch.device | str = "cpu",
) -> Matrices:
    """Matrices whose scores rank as the wide ones do.

    Args:
        start: where to begin.
        clips: float32 ``[clips, wide]`` of each song.
        texts: about these songs, wide as well.
        owner: which song each text is about; every song has one.
        tau: temperature of wide scores.
        device: where to compute.

    Returns:
        As :func:`retrieval.narrow.fit_narrow`; the same for the same arguments.
    """
    songs, reads, scale = start
    sides = [torch.tensor(m, dtype=torch.float32, device=device) for m in (songs, reads)]
    for side in sides:
        side.requires_grad_()
    groups = [{"params": [side], "lr": _RATE * float(side.detach().std())} for side in sides]
    optimizer = torch.optim.Adam(groups, eps=_NOISE)
    falls = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / _STEPS))
    )
    rng = np.random.default_rng(0)
    of_song = [np.flatnonzero(np.asarray(owner) == i) for i in range(len(clips))]
    with torch.enable_grad():
        for _ in range(_STEPS):
            rows = rng.permutation(len(clips))[:_SONGS]
            asked = torch.from_numpy(np.array([rng.choice(of_song[i]) for i in rows]))
            clip_emb, clip_mask = (x.to(device) for x in pad_clips([clips[i] for i in rows]))
            passage_emb = texts.passage_emb[asked].to(device)
            weight = texts.passage_weight[asked].to(device)
            with torch.no_grad():
                wide = fused_score(passage_emb, weight, clip_emb, clip_mask, tau)
            x, q = clip_emb @ sides[0].T, passage_emb @ sides[1].T
            narrow = fused_score(q, weight, x, clip_mask, tau * scale) / scale
            optimizer.zero_grad()
            off = (_SHARPNESS * (narrow - wide)).square().mean()
            apart = _divergence(narrow, wide) + _divergence(narrow.T, wide.T)
            (apart + _KEPT * off).backward()
            optimizer.step()
            falls.step()
    songs, reads = (side.detach().cpu().double().numpy() for side in sides)
    real = texts.passage_emb[texts.passage_weight > 0].numpy()
    return fill_lengths(songs, reads, scale, np.concatenate(clips), real)


def _divergence(found: Tensor, true: Tensor) -> Tensor:
    """Mean over rows of the divergence between the softmax of two lists of scores."""
    return F.kl_div(
        torch.log_softmax(_SHARPNESS * found, dim=1),
        torch.log_softmax(_SHARPNESS * true, dim=1),
        log_target=True,
        reduction="batchmean",
    )
