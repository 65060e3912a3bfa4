"""FAISS: export of one vector a song."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index.exact import check_finite
from retrieval.errors import SearchError


def mean_vector(clip_emb: np.ndarray) -> np.ndarray:
    """Mean of a song's clips, renormalised: ``[clips, dim]`` -> unit float32 ``[dim]``."""
    centre = clip_emb.astype(np.float64).mean(axis=0)
    return (centre / max(float(np.sqrt((centre * centre).sum())), 1e-12)).astype(np.float32)


def write_faiss(path: str | Path, vectors: np.ndarray, ids: Sequence[int]) -> None:
    """Write a plain FAISS file that ranks songs as mean-pooled search does.

    An ``IndexIDMap2`` over an inner-product ``IndexFlat``, written under another name and then
    renamed.

    Args:
        path: file to write.
        vectors: float32 ``[songs, dim]``, unit rows.
        ids: one number a song, all different.

    Raises:
        SearchError: a vector is not finite, or an id stands twice (FAISS would take both).
    """
    import faiss

    check_finite("vectors", vectors)
    if len(set(ids)) != len(vectors):
        raise SearchError(f"ids: got {len(set(ids))} different for {len(vectors)} vectors")
    path = Path(path).expanduser()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.array(ids, np.int64))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        faiss.write_index(index, str(temporary))
    except RuntimeError as error:
        raise SearchError(f"path: {path} cannot be written ({error})") from error
    temporary.replace(path)
