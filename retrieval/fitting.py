"""What experts are fitted to: the songs and texts of training, when a network is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from retrieval.beside import Beside, Fit
from retrieval.build import copy_weights
from retrieval.data.cache import CachedSong
from retrieval.gist import fit_gate, fit_gist
from retrieval.inference import LongplayModel
from retrieval.model import CoLLAP, ModelConfig
from retrieval.naming import fit_naming
from retrieval.scoring import embed_texts, encode_songs, score_matrix

Row = TypeVar("Row")
#: Fewer songs with captions, or with long ones, say little about any other.
LEAST_SONGS = 20
#: Songs that tell how scores spread.
SONGS = 200


def with_gist(net: CoLLAP, songs: Sequence[CachedSong]) -> CoLLAP:
    """The network with a gist, by the songs that people wrote of.

    People's are the texts that the corpus builder did not write: those have a form. A song of which
    people wrote more counts for more.
    """
    config = net.config.gist
    told = [song for song in songs if peoples(song)]
    if config is None or not enough(told):
        return net
    net.eval()
    joined = [" ".join(peoples(song)) for song in told]
    vectors = _whole(net, joined)
    separate = _whole(net, [text for song in told for text in peoples(song)])
    built = [texts for s in songs if (texts := [c.text for c in s.song.captions if c.form])]
    others = _whole(net, [text for texts in some_of(built, SONGS) for text in texts])
    rows = some_of(range(len(told)), SONGS)
    spread = _spread_of_scores(net, [told[i] for i in rows], [joined[i] for i in rows])

    inputs = net.config.dim + 2 * net.audio.d_audio
    made = remade(net, replace(net.config, gist=replace(config, inputs=inputs)))
    heard = np.stack([_heard(made, song) for song in told])
    fit = fit_gist(heard, vectors, np.array([len(peoples(song)) for song in told]), config)
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
    if config is None or not enough(told):
        return net
    net.eval()
    inputs = net.config.dim + 2 * net.audio.d_audio
    made = remade(net, replace(net.config, naming=replace(config, inputs=inputs)))
    assert made.naming is not None
    texts = [_short_texts(song) for song in told]
    words = _words(made, [text for own in texts for text in own])
    of = np.repeat(np.arange(len(told)), [len(own) for own in texts])
    heard = np.stack([_heard(made, song) for song in told])
    fit = fit_naming(heard, [song.song.tags for song in told], words, of, config)
    if fit is None:
        return net
    _copy(made.naming, fit)
    rows = some_of(range(len(told)), SONGS)
    asked = [texts[i][0] for i in rows]
    spread = config.strength * _spread_of_scores(net, [told[i] for i in rows], asked)
    _set_scale(made.naming, _words(made, asked), fit.held_out[rows], spread)
    return made


def _short_texts(song: CachedSong) -> list[str]:
    return [caption.text for caption in song.song.captions if caption.form in ("query", "short")]


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


def peoples(song: CachedSong) -> list[str]:
    """What people wrote of a song: the corpus builder's texts have a form."""
    return [caption.text for caption in song.song.captions if not caption.form]


def _spread_of_scores(net: CoLLAP, songs: Sequence[CachedSong], texts: Sequence[str]) -> float:
    """Standard deviation of the scores of texts and songs, before there is a gist."""
    model = LongplayModel(net, digest="")
    clips = list(encode_songs(model, songs))
    return float(score_matrix(embed_texts(model, texts), clips, model.tau).std())


@torch.inference_mode()
def _heard(net: CoLLAP, song: CachedSong) -> np.ndarray:
    """The mean over a song's clips of what experts read of them."""
    device = net.log_tau.device
    clips = net.encode_clips(song.prepared().to(device), song.filled.to(device))
    return clips.mean(dim=0).cpu().numpy()


@torch.inference_mode()
def _whole(net: CoLLAP, texts: Sequence[str]) -> np.ndarray:
    """What a gist reads of texts, ``[texts, d_text]``; each is read by itself."""
    rows = [net.whole_texts([[p.text for p in net.split(text)]]) for text in texts]
    return torch.cat(rows).float().cpu().numpy() if rows else np.zeros((0, net.text.d_text))


def enough(songs: Sequence[object]) -> bool:
    """Whether so many songs say anything about others."""
    return len(songs) >= LEAST_SONGS


def remade(net: CoLLAP, config: ModelConfig) -> CoLLAP:
    """The same weights in a network that has room for more."""
    made = CoLLAP(config).to(net.log_tau.device).eval()
    copy_weights(net, made)
    made.text.remember_as(net.text)  # or every passage would be read once more
    for name in ("gist", "naming", "narrow"):
        old, new = getattr(net, name), getattr(made, name)
        if old is not None and new is not None:
            new.load_state_dict(old.state_dict())
    return made


def some_of(rows: Sequence[Row], most: int) -> list[Row]:
    """As many of them, evenly spread, or all."""
    count = min(most, len(rows))
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]
