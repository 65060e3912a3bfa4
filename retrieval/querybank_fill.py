"""The bank of a trained network, from captions of its training songs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from retrieval.build import copy_weights
from retrieval.data.cache import CachedSong
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP
from retrieval.scoring import embed_texts, encode_songs

#: Fewer long captions than these say little about any song.
LEAST_TEXTS = 20


def with_querybank(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a bank of long captions, of which a checkpoint is made.

    Args:
        net: as trained, without a bank.
        songs: of training. The longest caption of each is for the bank, if it has as many
            passages as ``full_passages``; of more than ``texts`` of them, as many, evenly spread.

    Returns:
        Another network of the same weights, in evaluation mode; ``net`` itself where it wants no
        bank or there are fewer than :data:`LEAST_TEXTS` such captions.
    """
    config = net.config.querybank
    if config is None:
        return net
    told = [(song, text) for song in songs if (text := _long_caption(net, song))]
    if len(told) < LEAST_TEXTS:
        return net
    count = min(config.texts, len(told))
    told = [told[i] for i in np.linspace(0, len(told) - 1, count).round().astype(int)]
    training = net.training
    model = LongplayModel(net, digest="")  # which puts it in evaluation mode
    texts = embed_texts(model, [text for _, text in told])
    sized = replace(config, texts=count, passages=texts.passage_weight.shape[1])
    filled = CoLLAP(replace(net.config, querybank=sized)).to(net.log_tau.device).eval()
    copy_weights(net, filled)
    bank = filled.querybank
    assert bank is not None
    bank.passage_emb.copy_(texts.passage_emb)
    bank.passage_weight.copy_(texts.passage_weight)
    with torch.inference_mode():
        priors = [
            bank.prior(clip_emb[None], torch.ones(1, len(clip_emb), dtype=torch.bool), net.tau)
            for clip_emb in map(torch.from_numpy, encode_songs(model, [song for song, _ in told]))
        ]
    bank.level.copy_(torch.cat(priors).mean())
    net.train(training)
    return filled


def _long_caption(net: CoLLAP, song: CachedSong) -> str | None:
    """The longest caption of a song, where it is as long as texts of a bank are."""
    assert net.config.querybank is not None
    text = max((caption.text for caption in song.song.captions), key=len, default="")
    return text if text and len(net.split(text)) >= net.config.querybank.full_passages else None
