"""Song collections with the composer's own words, read into the manifest's form."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from retrieval.data.manifest import Caption, Song
from retrieval.errors import ManifestError

_MAX_MANIFEST_BYTES = 64 << 20
# Words that listeners use for a tempo; the boundaries follow common metronome markings.
_TEMPO_WORDS = ((76, "slow"), (108, "medium tempo"), (140, "fast"), (10_000, "very fast"))


def read_real(folder: str | Path) -> list[Song]:
    """Full-length recordings with the composer's description, genre, feel and instruments.

    Each song gets the description as a ``human`` caption, and a ``generated`` one that puts
    genre, feel, instruments and tempo into a sentence.

    Raises:
        ManifestError: ``manifest.jsonl`` in the folder is not as expected.
    """
    folder = Path(folder)
    songs = []
    for row in _rows(folder):
        captions = [Caption(row["description"])] if row["description"].strip() else []
        captions.append(Caption(_facts(row), kind="generated"))
        tags = (row["genre"], *row["feel"], *row["instruments"])
        meta = {"genre": row["genre"], "bpm": row["bpm"], "artist": row["artist"]}
        songs.append(
            Song(
                id=row["id"],
                audio=(folder / row["audio"]).resolve(),
                captions=tuple(captions),
                tags=tuple(tag.lower() for tag in tags if tag),
                licence=row["license"],
                title=row["title"],
                meta=meta,
            )
        )
    return songs


def read_freepd(folder: str | Path) -> list[Song]:
    """Public-domain recordings, some with a genre and a comment, which become captions.

    Raises:
        ManifestError: ``manifest.jsonl`` in the folder is not as expected.
    """
    folder = Path(folder)
    songs = []
    for row in _rows(folder):
        texts = [Caption(row["description"].strip())] if row["description"].strip() else []
        if row["genre"].strip():
            texts.append(Caption(f"{row['genre'].strip()} music.", kind="generated"))
        songs.append(
            Song(
                id=row["id"],
                audio=(folder / row["audio"]).resolve(),
                captions=tuple(texts),
                tags=(row["genre"].lower(),) if row["genre"].strip() else (),
                licence=row["license"],
                title=row["title"],
                meta={"genre": row["genre"], "artist": row["artist"]},
            )
        )
    return songs


def split_songs(
    songs: Sequence[Song], fold: int = 0, folds: int = 3, val: float = 0.2
) -> list[Song]:
    """Give every song a split: one fold is ``test``, a share of the rest is ``val``.

    Songs that share a caption stay together, so that no test text was seen in training. The
    order is by a hash of the texts, so it depends on nothing else.

    Args:
        songs: any songs.
        fold: which of the folds is the test split, from 0.
        folds: how many folds.
        val: share of the other songs that becomes the validation split.
    """
    if not 0 <= fold < folds:
        raise ManifestError(f"fold: got {fold}, expected 0 to {folds - 1}")
    groups: dict[str, list[Song]] = defaultdict(list)
    for song in songs:
        groups[_text_hash(song)].append(song)
    part: dict[str, str] = {}
    rest: list[str] = []
    placed = 0
    for key in sorted(groups):
        in_test = placed * folds // max(len(songs), 1) == fold
        placed += len(groups[key])
        if in_test:
            part[key] = "test"
        else:
            rest.append(key)
    rest.sort(key=lambda key: hashlib.sha256(f"val {key}".encode()).hexdigest())
    wanted = val * sum(len(groups[key]) for key in rest)
    taken = 0
    for key in rest:
        part[key] = "val" if taken < wanted else "train"
        taken += len(groups[key])
    return [replace(song, split=part[_text_hash(song)]) for song in songs]


def _text_hash(song: Song) -> str:
    human = [c.text for c in song.captions if c.kind == "human"]
    text = " ".join(human) if human else song.id
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()


def _facts(row: dict[str, Any]) -> str:
    parts = [row["genre"]]
    if row["feel"]:
        parts.append(_join([feel.lower() for feel in row["feel"]]) + " in feel")
    if row["instruments"]:
        parts.append("played by " + _join([name.lower() for name in row["instruments"]]))
    bpm = row["bpm"]
    if bpm:
        word = next(word for limit, word in _TEMPO_WORDS if bpm < limit)
        parts.append(f"{word}, about {bpm} beats per minute")
    return "; ".join(parts) + "."


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "manifest.jsonl"
    names = {"id", "audio", "title", "artist", "license", "genre", "description"}
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ManifestError(f"{path}: larger than {_MAX_MANIFEST_BYTES} bytes")
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as JSON Lines ({error})") from error
    for number, row in enumerate(rows, start=1):
        missing = names - set(row) if isinstance(row, dict) else names
        if missing:
            raise ManifestError(f"{path}, song {number}: lacks {', '.join(sorted(missing))}")
    return rows
