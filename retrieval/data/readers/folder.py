"""A plain folder of songs: tags in the files, captions in sidecar files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from retrieval.data.corpus.captions.grammar import join
from retrieval.data.manifest import Caption, Song, parse_song
from retrieval.data.readers.tables import AUDIO_SUFFIXES
from retrieval.errors import ManifestError

_MAX_SIDECAR_BYTES = 1 << 20


def read_folder(folder: Path, audio: Path) -> list[Song]:
    """Every audio file of a folder.

    A song's captions are, in this order: ``song.json`` (the fields of a manifest line but ``id``
    and ``audio``; ``caption`` may stand for ``captions``), ``song.txt`` (one caption), and a
    sentence from its tags (title, artist, genre, comment), which needs the extra ``tags``.
    """
    if not audio.is_dir():
        raise ManifestError(f"folder: {audio} is no folder")
    paths = [p for p in sorted(audio.rglob("*")) if p.suffix.lower() in AUDIO_SUFFIXES]
    if not paths:
        raise ManifestError(f"folder: no audio file in {audio}")
    return [_song(path, audio) for path in paths]


def _song(path: Path, root: Path) -> Song:
    row: dict[str, Any] = _json_sidecar(path.with_suffix(".json"))
    tags = read_tags(path)
    captions = list(row.get("captions") or [])
    if isinstance(row.get("caption"), str):
        captions.append(row["caption"])
    row.pop("caption", None)
    text = path.with_suffix(".txt")
    if text.is_file():
        captions.append(_read(text).strip())
    row["captions"] = [{"text": c} if isinstance(c, str) else c for c in captions if c]
    inside = path.relative_to(root).as_posix()
    row |= {"id": hashlib.sha256(inside.encode()).hexdigest()[:16], "audio": path.as_posix()}
    row.setdefault("title", tags.get("title", path.stem))
    row.setdefault("meta", {k: v for k, v in tags.items() if k in ("artist", "genre", "album")})
    song = parse_song(row, f"{path.with_suffix('.json')}", root)
    sentence = _sentence(tags)
    if not song.captions and sentence:
        generated = (Caption(sentence, "generated"),)
        return Song(song.id, song.audio, generated, song.tags or _genres(tags), song.split,
                    song.licence, song.title, song.meta)  # fmt: skip
    return song


def read_tags(path: Path) -> dict[str, str]:
    """Title, artist, album, genre and comment of a file; nothing where they cannot be read.

    Raises:
        ManifestError: the extra ``tags`` is not installed.
    """
    try:
        import mutagen
    except ImportError as error:
        raise ManifestError("folder: needs mutagen; pip install 'longplay[tags]'") from error
    try:
        file = mutagen.File(path, easy=True)
    except (mutagen.MutagenError, OSError, ValueError):
        return {}
    found = {}
    for name in ("title", "artist", "album", "genre", "comment", "bpm"):
        try:
            values = file.get(name) if file is not None and file.tags is not None else None
        except (KeyError, ValueError):
            values = None
        if values and str(values[0]).strip():
            found[name] = str(values[0]).strip()
    return found


def _genres(tags: dict[str, str]) -> tuple[str, ...]:
    return (tags["genre"].lower(),) if "genre" in tags else ()


def _sentence(tags: dict[str, str]) -> str:
    parts = []
    if "genre" in tags:
        parts.append(f"{tags['genre']} music")
    if "bpm" in tags:
        parts.append(f"at {tags['bpm']} BPM")
    text = join([" ".join(parts)] if parts else [])
    comment = tags.get("comment", "")
    return " ".join(s for s in (f"{text}." if text else "", comment) if s)


def _json_sidecar(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        row = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{path}: got {type(row).__name__}, expected a JSON object")
    return row


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_SIDECAR_BYTES:
            raise ManifestError(f"{path}: larger than {_MAX_SIDECAR_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error
