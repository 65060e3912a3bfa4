"""Vectors of training passages from a frozen text tower, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from retrieval.data.augment import stands_alone
from retrieval.data.manifest import Song
from retrieval.model import CoLLAP

_BATCH_TOKENS = 4096


def training_passages(net: CoLLAP, songs: Sequence[Song], workers: int = 0) -> list[str]:
    """All passages of captions, of their false versions and of sections alone, each once.

    Args:
        net: divides texts.
        songs: any.
        workers: processes that share the songs; 0 for none beside this one.
    """
    each: DataLoader[list[str]] = DataLoader(
        songs,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        collate_fn=partial(_passages, net),
    )
    return list(dict.fromkeys(passage for passages in each for passage in passages))


def _passages(net: CoLLAP, song: Song) -> list[str]:
    texts = dict.fromkeys(
        text
        for caption in song.captions
        for text in (
            caption.text,
            *(negative.text for negative in caption.negatives),
            *(section.text for section in caption.sections if stands_alone(caption)),
        )
    )
    return list(dict.fromkeys(p.text for text in texts for p in net.split(text)))


def warm_texts(
    net: CoLLAP,
    passages: list[str],
    folder: str | Path,
    on_passages: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Give a frozen text tower the vectors of passages, from disk or computed in batches.

    Passages of the same number of tokens go through the tower together, in bfloat16 where the
    device computes in it, and are kept in float16: their cosine to the tower's own vectors is at
    least 0.999 (tested). That is for training; evaluation and search never read these files.

    Args:
        net: its text tower; nothing happens where it is trained.
        passages: each once.
        folder: of the cache.
        on_passages: called with how many are done, and of how many.
    """
    if not net.text.frozen or not passages:
        return
    path = _file(net, Path(folder).expanduser())
    known = _read(path)
    missing = [p for p in passages if _key(p) not in known]
    for i, (part, vectors) in enumerate(_encode(net, missing)):
        known.update(zip(map(_key, part), vectors.half(), strict=True))
        if i % 20 == 0:
            on_passages(sum(_key(p) in known for p in missing), len(missing))
    if missing:
        _write(path, known)
    net.text.remember(passages, torch.stack([known[_key(p)] for p in passages]).float())


def _encode(net: CoLLAP, passages: list[str]):  # type: ignore[no-untyped-def]
    """Batches of passages with as many tokens each, and their vectors."""
    by_length: dict[int, list[str]] = {}
    for passage in passages:
        by_length.setdefault(net.text.count_tokens(passage), []).append(passage)
    for length, group in sorted(by_length.items()):
        size = max(_BATCH_TOKENS // (length + 2), 1)
        for start in range(0, len(group), size):
            part = group[start : start + size]
            yield part, net.text.encode_together(part)


def _key(passage: str) -> bytes:
    return hashlib.sha256(passage.encode()).digest()[:16]


def _file(net: CoLLAP, folder: Path) -> Path:
    identity = json.dumps(net.text.identity(), sort_keys=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"texts-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.safetensors"


def _read(path: Path) -> dict[bytes, Tensor]:
    from safetensors.torch import load_file

    if not path.exists():
        return {}
    stored = load_file(path)
    keys = stored["keys"].numpy()
    return {row.tobytes(): vector for row, vector in zip(keys, stored["vectors"], strict=True)}


def _write(path: Path, known: dict[bytes, Tensor]) -> None:
    from safetensors.torch import save

    keys = torch.frombuffer(bytearray(b"".join(known)), dtype=torch.uint8).reshape(-1, 16)
    data = save({"keys": keys, "vectors": torch.stack(list(known.values()))})
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
