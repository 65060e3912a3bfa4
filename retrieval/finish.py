"""What a trained network is given when it is kept: experts, narrow joint space, bank of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from retrieval.beside import Beside, Fit
from retrieval.build import copy_weights
from retrieval.changes import Heard, Search, fit_changes, way_of
from retrieval.data.cache import CachedSong
from retrieval.data.labels import LabelKind, LabelSet
from retrieval.data.manifest import Caption, Label
from retrieval.gist import fit_gate, fit_gist
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP, ModelConfig
from retrieval.naming import fit_naming, mentions
from retrieval.narrow import FILLERS, fit_narrow
from retrieval.querybank import RESERVED
from retrieval.scoring import embed_texts, encode_songs, score_matrix

Row = TypeVar("Row")
#: Fewer songs with captions, or with long ones, say little about any other.
LEAST_SONGS = 20
#: Songs, and captions of each, that tell which directions matter.
_SONGS, _CAPTIONS = 200, 3
#: Changes so close together are one.
_AT_ONCE_S = 0.1


def finished(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network of which a checkpoint is made.

    Args:
        net: as trained: in all its width, without experts and bank.
        songs: of training.

    Returns:
        Another network of the same weights, in evaluation mode; ``net`` itself where it wants
        none of it, or there are fewer than :data:`LEAST_SONGS` songs for any.
    """
    training = net.training
    expert = with_changes(with_naming(with_gist(net, songs), songs), songs)
    made = with_querybank(with_narrow(expert, songs), songs)
    net.train(training)
    return made


def with_gist(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a gist, by the songs that people wrote of.

    People's are the texts that the corpus builder did not write: those have a form. A song of which
    people wrote more counts for more.
    """
    config = net.config.gist
    told = [song for song in songs if _peoples(song)]
    if config is None or len(told) < LEAST_SONGS:
        return net
    net.eval()
    joined = [" ".join(_peoples(song)) for song in told]
    vectors = _whole(net, joined)
    separate = _whole(net, [text for song in told for text in _peoples(song)])
    built = [texts for s in songs if (texts := [c.text for c in s.song.captions if c.form])]
    others = _whole(net, [text for texts in _spread(built, _SONGS) for text in texts])
    rows = _spread(range(len(told)), _SONGS)
    spread = _spread_of_scores(net, [told[i] for i in rows], [joined[i] for i in rows])

    inputs = net.config.dim + 2 * net.audio.d_audio
    made = _remade(net, replace(net.config, gist=replace(config, inputs=inputs)))
    heard = np.stack([_heard(made, song) for song in told])
    fit = fit_gist(heard, vectors, np.array([len(_peoples(song)) for song in told]), config)
    assert made.gist is not None
    _copy(made.gist, fit)
    gate, bias = fit_gate(np.concatenate([vectors, separate]), others)
    made.gist.gate.copy_(torch.as_tensor(gate))
    made.gist.gate_bias.fill_(bias)
    _set_scale(made.gist, vectors[rows], fit.held_out[rows], config.strength * spread)
    return made


def with_naming(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with an expert for what queries name, by the songs with tags and queries.

    It is fitted to the corpus builder's short texts, whose words are those of the tags.
    """
    config = net.config.naming
    told = [song for song in songs if song.song.tags and _short_texts(song)]
    if config is None or len(told) < LEAST_SONGS:
        return net
    net.eval()
    inputs = net.config.dim + 2 * net.audio.d_audio
    made = _remade(net, replace(net.config, naming=replace(config, inputs=inputs)))
    assert made.naming is not None
    texts = [text for song in told for text in _short_texts(song)]
    words = _words(made, texts)
    heard = np.stack([_heard(made, song) for song in told])
    fit = fit_naming(heard, [song.song.tags for song in told], texts, words, config)
    if fit is None:
        return net
    _copy(made.naming, fit)
    rows = _spread(range(len(told)), _SONGS)
    asked = [_short_texts(told[i])[0] for i in rows]
    spread = config.strength * _spread_of_scores(net, [told[i] for i in rows], asked)
    _set_scale(made.naming, _words(made, asked), fit.held_out[rows], spread)
    return made


def with_changes(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with an expert for changes, by the songs with times of instruments and queries.

    It is fitted to the corpus builder's short texts, as that for names.
    """
    config = net.config.changes
    told = [song for song in songs if _plays(song) and _short_texts(song)]
    names = sorted({label.name for song in told for label in _plays(song)})
    if config is None or len(told) < LEAST_SONGS:
        return net
    net.eval()
    inputs = net.config.dim + 2 * net.audio.d_audio
    sized = replace(config, inputs=inputs, players=len(names))
    made = _remade(net, replace(net.config, changes=sized))
    assert made.changes is not None
    known = LabelSet((LabelKind("instrument", tuple(names), exclusive=False),))
    heard = [
        Heard(_clips(made, song).numpy(), known.target(song.song, song.times).numpy())
        for song in told
    ]
    asked = [(i, caption) for i, song in enumerate(told) for caption in _short(song)]
    words = _words(made, [caption.text for _, caption in asked])
    searches = [
        Search(caption.text, row, way_in(told[i], caption))
        for (i, caption), row in zip(asked, words, strict=True)
    ]
    fit = fit_changes(heard, searches, names, sized)
    if fit is None:
        return net
    buffers, left_out = fit
    for name, value in buffers.items():
        getattr(made.changes, name).copy_(torch.as_tensor(value))
    first = {i: k for k, (i, _) in reversed(list(enumerate(asked))) if searches[k].way is not None}
    rows = _spread(sorted(first), _SONGS)
    texts = [searches[first[i]].text for i in rows]
    spread = config.strength * _spread_of_scores(net, [told[i] for i in rows], texts)
    _set_scale(made.changes, words[[first[i] for i in rows]], left_out[rows], spread)
    return made


def _plays(song: CachedSong) -> list[Label]:
    return [label for label in song.song.labels if label.kind == "instrument"]


def way_in(song: CachedSong, caption: Caption) -> int | None:
    """The change that a search is about: of a player that it names, where its section begins."""
    if len(caption.sections) != 1:
        return None
    at = caption.sections[0].start_s
    plays = _plays(song)
    named = mentions([caption.text], sorted({label.name for label in plays}))[0]
    names = {n for n, has in zip(sorted({p.name for p in plays}), named, strict=True) if has}
    begins = any(p.name in names and abs(p.start_s - at) < _AT_ONCE_S for p in plays)
    ends = any(p.name in names and abs(p.end_s - at) < _AT_ONCE_S for p in plays)
    return way_of(begins, at / song.duration_s) if begins != ends else None


def _short(song: CachedSong) -> list[Caption]:
    return [caption for caption in song.song.captions if caption.form in ("query", "short")]


def _short_texts(song: CachedSong) -> list[str]:
    return [caption.text for caption in _short(song)]


@torch.inference_mode()
def _words(net: CoLLAP, texts: Sequence[str]) -> np.ndarray:
    """What the expert for names reads of texts, ``[texts, d_word]``."""
    split = [[passage.text for passage in net.split(text)] for text in texts]
    return net.named_words(split).cpu().numpy()


def _copy(expert: Beside, fit: Fit) -> None:
    for name in ("songs", "songs_bias", "texts", "texts_bias"):
        getattr(expert, name).copy_(torch.as_tensor(getattr(fit, name)))


@torch.inference_mode()
def _set_scale(expert: Beside, asked: np.ndarray, heard: np.ndarray, spread: float) -> None:
    """Let products of texts, as read, and songs, as heard when left out, spread so much."""
    read = expert.read(torch.from_numpy(asked).to(expert.scale.device)).cpu().numpy()
    unit = heard / np.maximum(np.linalg.norm(heard, axis=1, keepdims=True), 1e-12)
    expert.scale.fill_(spread / max(float((read @ unit.T).std()), 1e-9))


def _peoples(song: CachedSong) -> list[str]:
    return [caption.text for caption in song.song.captions if not caption.form]


def _spread_of_scores(net: CoLLAP, songs: Sequence[CachedSong], texts: Sequence[str]) -> float:
    """Standard deviation of the scores of texts and songs, before there is a gist."""
    model = LongplayModel(net, digest="")
    clips = list(encode_songs(model, songs))
    return float(score_matrix(embed_texts(model, texts), clips, model.tau).std())


@torch.inference_mode()
def _heard(net: CoLLAP, song: CachedSong) -> np.ndarray:
    """The mean over a song's clips of what experts read of them."""
    return _clips(net, song).mean(dim=0).numpy()


@torch.inference_mode()
def _clips(net: CoLLAP, song: CachedSong) -> torch.Tensor:
    """What experts read of a song's clips, ``[clips, n]``."""
    device = net.log_tau.device
    return net.encode_clips(song.prepared().to(device), song.filled.to(device)).cpu()


@torch.inference_mode()
def _whole(net: CoLLAP, texts: Sequence[str]) -> np.ndarray:
    """What a gist reads of texts, ``[texts, d_text]``; each is read by itself."""
    rows = [net.whole_texts([[p.text for p in net.split(text)]]) for text in texts]
    return torch.cat(rows).float().cpu().numpy() if rows else np.zeros((0, net.text.d_text))


def with_narrow(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a narrow joint space, by the clips and captions of some of its songs."""
    config = net.config.narrow
    told = _spread([song for song in songs if song.song.captions], _SONGS)
    if config is None or config.dim >= net.config.wide_dim or len(told) < LEAST_SONGS:
        return net
    model = LongplayModel(net, digest="")  # which puts it in evaluation mode
    captions = [c.text for song in told for c in _spread(song.song.captions, _CAPTIONS)]
    texts = embed_texts(model, captions)
    clips = np.concatenate(list(encode_songs(model, told)))
    real = texts.passage_weight > 0
    passages, weights = texts.passage_emb[real].numpy(), texts.passage_weight[real].numpy()
    directions = config.dim - FILLERS - (RESERVED if net.config.querybank else 0)
    made = _remade(net, replace(net.config, narrow=replace(config, directions=directions)))
    assert made.narrow is not None
    matrices = fit_narrow(clips, passages, weights, directions)
    for buffer, value in zip(
        (made.narrow.songs, made.narrow.texts, made.narrow.scale), matrices, strict=True
    ):
        buffer.copy_(torch.as_tensor(value))
    return made


def with_querybank(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a bank.

    The longest caption of each song is for the bank, if it has as many passages as
    ``full_passages``; of more than ``texts`` of them, as many, evenly spread.
    """
    config = net.config.querybank
    if config is None:
        return net
    told = [(song, text) for song in songs if (text := _long_caption(net, song))]
    if len(told) < LEAST_SONGS:
        return net
    told = _spread(told, config.texts)
    model = LongplayModel(net, digest="")
    texts = embed_texts(model, [text for _, text in told])
    sized = replace(config, texts=len(told), passages=texts.passage_weight.shape[1])
    filled = _remade(net, replace(net.config, querybank=sized))
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


def _remade(net: CoLLAP, config: ModelConfig) -> CoLLAP:
    """The same weights in a network that has room for more."""
    made = CoLLAP(config).to(net.log_tau.device).eval()
    copy_weights(net, made)
    made.text.remember_as(net.text)  # or every passage would be read once more
    for name in ("gist", "naming", "changes", "narrow"):
        old, new = getattr(net, name), getattr(made, name)
        if old is not None and new is not None:
            new.load_state_dict(old.state_dict())
    return made


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """As many of them, evenly spread, or all."""
    count = min(most, len(rows))
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _long_caption(net: CoLLAP, song: CachedSong) -> str | None:
    """The longest caption of a song, where it is as long as texts of a bank are."""
    assert net.config.querybank is not None
    text = max((caption.text for caption in song.song.captions), key=len, default="")
    return text if text and len(net.split(text)) >= net.config.querybank.full_passages else None
