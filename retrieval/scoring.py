"""Score matrices of a whole set of songs, for validation and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from retrieval.data.cache import CachedSong
from retrieval.data.manifest import Caption
from retrieval.errors import ManifestError
from retrieval.fusion import fused_score
from retrieval.inference import LongplayModel
from retrieval.model import song_places

#: Songs whose scores with all texts are computed together, so that memory stays small.
_BLOCK = 16


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
    embedded = {c.text: model.embed_text(c.text) for c, _ in captions}
    longest = max(len(e.passage_weight) for e in embedded.values())
    passage_emb = torch.zeros(len(captions), longest, model.dim)
    weight = torch.zeros(len(captions), longest)
    for i, (caption, _) in enumerate(captions):
        text = embedded[caption.text]
        passage_emb[i, : len(text.passage_weight)] = torch.from_numpy(text.passage_emb)
        weight[i, : len(text.passage_weight)] = torch.from_numpy(text.passage_weight)
    columns: dict[str, list[np.ndarray]] = {pooling: [] for pooling in poolings}
    for start in range(0, len(songs), _BLOCK):
        block_songs = songs[start : start + _BLOCK]
        clip_emb, clip_mask = _pad(list(encode_songs(model, block_songs, on_song)))
        for pooling in poolings:
            block = fused_score(passage_emb, weight, clip_emb, clip_mask, model.tau, pooling)
            columns[pooling].append(block.numpy())
    scores = {pooling: np.concatenate(parts, axis=1) for pooling, parts in columns.items()}
    return scores, np.array([j for _, j in captions]), [c for c, _ in captions]


def relevance(
    captions: Sequence[Caption], text_song: np.ndarray, songs: Sequence[CachedSong]
) -> np.ndarray:
    """Bool ``[texts, songs]``: a text fits its own song and every song that has the same text."""
    texts = [{c.text for c in song.song.captions} for song in songs]
    shared = [[caption.text in of_song for of_song in texts] for caption in captions]
    matrix = np.array(shared, dtype=bool)
    matrix[np.arange(len(captions)), text_song] = True
    return matrix


def encode_songs(
    model: LongplayModel, songs: Sequence[CachedSong], on_song: Callable[[], None] = lambda: None
) -> Iterator[np.ndarray]:
    """Clips of each song, one song at a time: float32 ``[clips, dim]``, unit rows."""
    for song in songs:
        place = song_places(song.times, song.duration_s)
        state = model.encode_prepared(song.prepared(), song.filled, place)
        on_song()
        yield state.clip_emb[0].float().cpu().numpy()


def _pad(clips: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    most = max(len(c) for c in clips)
    clip_emb = torch.zeros(len(clips), most, clips[0].shape[1])
    clip_mask = torch.zeros(len(clips), most, dtype=torch.bool)
    for j, c in enumerate(clips):
        clip_emb[j, : len(c)] = torch.from_numpy(c)
        clip_mask[j, : len(c)] = True
    return clip_emb, clip_mask
