"""Score matrices of a whole set of songs, for validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.data.cache import CachedSong
from retrieval.data.manifest import Caption
from retrieval.errors import ManifestError
from retrieval.fusion import fused_score
from retrieval.inference import LongplayModel
from retrieval.model import song_places

#: Songs, and texts, whose scores are computed together, so that memory stays small.
_SONGS, _TEXTS = 16, 512


@dataclass(frozen=True)
class Texts:
    """Embedded texts: ``passage_emb [n, passages, dim]``, ``passage_weight [n, passages]``."""

    passage_emb: Tensor
    passage_weight: Tensor


def embed_texts(
    model: LongplayModel, texts: Sequence[str], on_text: Callable[[], None] = lambda: None
) -> Texts:
    """Each text by itself, and each different one once."""
    known = {}
    for text in dict.fromkeys(texts):
        known[text] = model.embed_text(text)
        on_text()
    longest = max(len(e.passage_weight) for e in known.values())
    passage_emb = torch.zeros(len(texts), longest, model.dim)
    weight = torch.zeros(len(texts), longest)
    for i, text in enumerate(texts):
        embedded = known[text]
        passage_emb[i, : len(embedded.passage_weight)] = torch.from_numpy(embedded.passage_emb)
        weight[i, : len(embedded.passage_weight)] = torch.from_numpy(embedded.passage_weight)
    return Texts(passage_emb, weight)


def score_matrix(
    texts: Texts, clips: Sequence[np.ndarray], tau: float, pooling: str = "attention"
) -> np.ndarray:
    """Every text with every song: float32 ``[texts, songs]``.

    Args:
        texts: of :func:`embed_texts`.
        clips: ``[clips, dim]`` of each song, unit rows.
        tau: temperature.
        pooling: of :data:`retrieval.fusion.POOLINGS`.
    """
    columns = []
    for start in range(0, len(clips), _SONGS):
        clip_emb, clip_mask = pad_clips(clips[start : start + _SONGS])
        rows = [
            fused_score(emb, weight, clip_emb, clip_mask, tau, pooling)
            for emb, weight in zip(
                texts.passage_emb.split(_TEXTS), texts.passage_weight.split(_TEXTS), strict=True
            )
        ]
        columns.append(torch.cat(rows).numpy())
    return np.concatenate(columns, axis=1)


def score_own(
    texts: Texts,
    owner: Sequence[int],
    clips: Sequence[np.ndarray],
    tau: float,
    pooling: str = "attention",
) -> np.ndarray:
    """Every text with the one song that it is about: float32 ``[texts]``."""
    scores = np.zeros(len(owner), np.float32)
    owners = np.asarray(owner)
    for j in np.unique(owners):
        rows = np.flatnonzero(owners == j)
        emb, weight = texts.passage_emb[rows], texts.passage_weight[rows]
        clip_emb, clip_mask = pad_clips([clips[j]])
        scores[rows] = fused_score(emb, weight, clip_emb, clip_mask, tau, pooling)[:, 0].numpy()
    return scores


def score_songs(
    model: LongplayModel,
    songs: Sequence[CachedSong],
    poolings: Sequence[str],
    keep: Callable[[Caption], bool] = lambda caption: True,
    on_song: Callable[[], None] = lambda: None,
) -> tuple[dict[str, np.ndarray], np.ndarray, list[Caption]]:
    """Scores of every caption with every song; each song and text is encoded once, by itself.

    Args:
        model: a model.
        songs: the pool.
        poolings: scores to compute, of :data:`retrieval.fusion.POOLINGS`.
        keep: which captions become texts.
        on_song: called after each song.

    Returns:
        float32 ``[texts, songs]`` by pooling; int64 ``[texts]``, each text's song; the captions.

    Raises:
        ManifestError: no caption is kept.
    """
    captions = [(c, j) for j, song in enumerate(songs) for c in song.song.captions if keep(c)]
    if not captions:
        raise ManifestError("evaluation: none of the songs has a caption of this kind")
    texts = embed_texts(model, [c.text for c, _ in captions])
    clips = list(encode_songs(model, songs, on_song))
    scores = {pooling: score_matrix(texts, clips, model.tau, pooling) for pooling in poolings}
    return scores, np.array([j for _, j in captions]), [c for c, _ in captions]


def encode_songs(
    model: LongplayModel, songs: Sequence[CachedSong], on_song: Callable[[], None] = lambda: None
) -> Iterator[np.ndarray]:
    """Clips of each song, one song at a time: float32 ``[clips, dim]``, unit rows."""
    for song in songs:
        place = song_places(song.times, song.duration_s)
        state = model.encode_prepared(song.prepared(), song.filled, place)
        on_song()
        yield state.clip_emb[0].float().cpu().numpy()


def pad_clips(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """``[clips, dim]`` of each song -> float32 ``[songs, most clips, dim]``, and which are real."""
    most = max(len(c) for c in clips)
    clip_emb = torch.zeros(len(clips), most, clips[0].shape[1])
    clip_mask = torch.zeros(len(clips), most, dtype=torch.bool)
    for j, c in enumerate(clips):
        clip_emb[j, : len(c)] = torch.from_numpy(c)
        clip_mask[j, : len(c)] = True
    return clip_emb, clip_mask
