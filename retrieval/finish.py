"""What a trained network is given when it is kept: experts, narrow joint space, bank of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from retrieval.data.cache import CachedSong
from retrieval.fitting import enough, peoples, remade, some_of, with_gist, with_naming
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP
from retrieval.narrow import FILLERS, fit_narrow
from retrieval.narrow_ranks import keep_ranks
from retrieval.querybank import RESERVED
from retrieval.scoring import embed_texts, encode_songs

#: Songs, and captions of each, that tell which directions matter.
_SONGS, _CAPTIONS = 1200, 3


def finished(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network of which a checkpoint is made.

    Args:
        net: as trained: in all its width, without experts and bank.
        songs: of training.

    Returns:
        Another network of the same weights, in evaluation mode; ``net`` itself where it wants
        none of it, or there are fewer than :data:`retrieval.fitting.LEAST_SONGS` songs for any.
    """
    training = net.training
    expert = with_naming(with_gist(net, songs), songs)
    made = with_querybank(with_narrow(expert, songs), songs)
    net.train(training)
    return made


def with_narrow(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a narrow joint space, by the clips and captions of some of its songs."""
    config = net.config.narrow
    told = _told(songs)
    if config is None or config.dim >= net.config.wide_dim or not enough(told):
        return net
    model = LongplayModel(net, digest="")  # which puts it in evaluation mode
    captions = [
        (i, c.text) for i, s in enumerate(told) for c in some_of(s.song.captions, _CAPTIONS)
    ]
    texts = embed_texts(model, [text for _, text in captions])
    clips = list(encode_songs(model, told))
    real = texts.passage_weight > 0
    passages, weights = texts.passage_emb[real].numpy(), texts.passage_weight[real].numpy()
    directions = config.dim - FILLERS - (RESERVED if net.config.querybank else 0)
    made = remade(net, replace(net.config, narrow=replace(config, directions=directions)))
    assert made.narrow is not None
    matrices = keep_ranks(
        fit_narrow(np.concatenate(clips), passages, weights, directions),
        clips, texts, [i for i, _ in captions], model.tau, net.log_tau.device,
    )  # fmt: skip
    for buffer, value in zip(
        (made.narrow.songs, made.narrow.texts, made.narrow.scale), matrices, strict=True
    ):
        buffer.copy_(torch.as_tensor(value))
    return made


def _told(songs: Sequence[CachedSong]) -> list[CachedSong]:
    """Songs with captions; those that people wrote of are few, and may be half of them."""
    told = [song for song in songs if song.song.captions]
    by_people = [song for song in told if peoples(song)]
    built = [song for song in told if not peoples(song)]
    people = some_of(by_people, max(_SONGS // 2, _SONGS - len(built)))
    return people + some_of(built, _SONGS - len(people))


def with_querybank(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a bank.

    The longest caption of each song is for the bank, if it has as many passages as
    ``full_passages``; of more than ``texts`` of them, as many, evenly spread.
    """
    config = net.config.querybank
    if config is None:
        return net
    told = [(song, text) for song in songs if (text := _long_caption(net, song))]
    if not enough(told):
        return net
    told = some_of(told, config.texts)
    model = LongplayModel(net, digest="")
    texts = embed_texts(model, [text for _, text in told])
    sized = replace(config, texts=len(told), passages=texts.passage_weight.shape[1])
    filled = remade(net, replace(net.config, querybank=sized))
    bank = filled.querybank
    assert bank is not None
    bank.passage_emb.copy_(texts.passage_emb)
    bank.passage_weight.copy_(texts.passage_weight)
    priors = []
    with torch.inference_mode():
        for song_emb in encode_songs(model, [song for song, _ in told]):
            clip_emb = torch.from_numpy(song_emb)[None].to(bank.level.device)
            priors.append(filled.bank_prior(clip_emb, clip_emb.new_ones(clip_emb.shape[:2]).bool()))
    bank.level.copy_(torch.cat(priors).mean())
    return filled


def _long_caption(net: CoLLAP, song: CachedSong) -> str | None:
    """The longest caption of a song, where it is as long as texts of a bank are."""
    assert net.config.querybank is not None
    text = max((caption.text for caption in song.song.captions), key=len, default="")
    return text if text and len(net.split(text)) >= net.config.querybank.full_passages else None
