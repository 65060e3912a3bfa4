"""The one manifest format: JSON Lines, one song a line (documented in docs/manifest.md)."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.errors import ManifestError

KINDS = ("human", "generated")
SPLITS = ("train", "val", "test")
#: What a caption is for; empty where nobody said.
FORMS = ("", "short", "long", "timed", "query")
#: Ending of the id of a song that a corpus has twice: here with its sections in another order.
TWIN = "-reordered"
_FIELDS = {"id", "audio", "captions", "tags", "split", "licence", "title", "meta", "labels"}
# A line holds a song's texts, not its audio; a longer one is not a manifest.
_MAX_LINE_BYTES = 1 << 20

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Section:
    """A stretch of a song and the part of the caption that is about it; times in seconds."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Negative:
    """A caption with one fact made false; ``change`` says which, such as ``swap`` or ``tempo``."""

    text: str
    change: str


@dataclass(frozen=True)
class Caption:
    """One text about one song.

    Attributes:
        text: the words.
        kind: who wrote it, ``human`` or ``generated``.
        sections: stretches of the song that parts of the text are about.
        form: what it is for, one of :data:`FORMS`.
        negatives: the same text with one fact made false.
    """

    text: str
    kind: str = "human"
    sections: tuple[Section, ...] = ()
    form: str = ""
    negatives: tuple[Negative, ...] = ()


@dataclass(frozen=True)
class Label:
    """A fact about a stretch of a song, such as kind ``instrument``, name ``piano``; seconds."""

    kind: str
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Song:
    """One line of a manifest; ``audio`` is resolved against the manifest's folder."""

    id: str
    audio: Path
    captions: tuple[Caption, ...] = ()
    tags: tuple[str, ...] = ()
    split: str | None = None
    licence: str = ""
    title: str = ""
    meta: Mapping[str, Scalar] = field(default_factory=dict)
    labels: tuple[Label, ...] = ()


def read_manifest(path: str | Path) -> list[Song]:
    """Read a manifest.

    Args:
        path: a ``.jsonl`` file. Blank lines are passed over.

    Returns:
        The songs in file order, with unique ids.

    Raises:
        ManifestError: the file cannot be read, or a line is not as documented; the message names
            the line and the field.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ManifestError(f"manifest {path}: cannot be read ({error.strerror})") from error
    songs: list[Song] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        song = _parse_line(line, f"manifest {path}, line {number}", path.parent)
        if song.id in seen:
            raise ManifestError(
                f"manifest {path}, line {number}: id {song.id!r} stands on line {seen[song.id]} "
                "too; ids must be unique"
            )
        seen[song.id] = number
        songs.append(song)
    return songs


def write_manifest(songs: Iterable[Song], path: str | Path) -> None:
    """Write a manifest in one step (a reader sees the old file or the whole new one).

    Audio inside the manifest's folder is written as a relative path, so that the folder can move.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    root = path.parent.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as out:
        for song in songs:
            out.write(json.dumps(_to_json(song, root), ensure_ascii=False) + "\n")
    temporary.replace(path)


def manifest_digest(path: str | Path) -> str:
    """SHA-256 of the manifest's bytes, in hex."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _to_json(song: Song, root: Path) -> dict[str, Any]:
    audio = song.audio.absolute()
    inside = audio.is_relative_to(root)
    row: dict[str, Any] = {
        "id": song.id,
        "audio": audio.relative_to(root).as_posix() if inside else audio.as_posix(),
        "title": song.title,
        "captions": [_caption_to_json(caption) for caption in song.captions],
        "tags": list(song.tags),
        "split": song.split,
        "licence": song.licence,
    }
    if song.meta:
        row["meta"] = dict(song.meta)
    if song.labels:
        row["labels"] = [[x.kind, x.name, x.start_s, x.end_s] for x in song.labels]
    return row


def _caption_to_json(caption: Caption) -> dict[str, Any]:
    row: dict[str, Any] = {"text": caption.text, "kind": caption.kind}
    if caption.sections:
        row["sections"] = [
            {"start_s": s.start_s, "end_s": s.end_s, "text": s.text} for s in caption.sections
        ]
    if caption.form:
        row["form"] = caption.form
    if caption.negatives:
        row["negatives"] = [{"text": n.text, "change": n.change} for n in caption.negatives]
    return row


def _parse_line(line: bytes, where: str, root: Path) -> Song:
    if len(line) > _MAX_LINE_BYTES:
        raise ManifestError(f"{where}: {len(line)} bytes, expected at most {_MAX_LINE_BYTES}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{where}: not a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {type(row).__name__}, expected a JSON object")
    return parse_song(row, where, root)


def parse_song(row: dict[str, Any], where: str, root: Path) -> Song:
    """A song from the fields of a manifest's line.

    Args:
        row: see docs/manifest.md.
        where: what an error calls it.
        root: folder against which ``audio`` is resolved.

    Raises:
        ManifestError: a field is not as documented.
    """
    unknown = sorted(set(row) - _FIELDS)
    if unknown:
        raise ManifestError(
            f"{where}: unknown field {unknown[0]!r}, expected {', '.join(sorted(_FIELDS))}; "
            "facts of your own belong in 'meta'"
        )
    split = row.get("split")
    if split is not None and split not in SPLITS:
        raise ManifestError(f"{where}: split is {split!r}, expected one of {SPLITS} or null")
    captions = _typed(row, "captions", list, where, [])
    return Song(
        id=_required_text(row, "id", where),
        audio=root / Path(_required_text(row, "audio", where)).expanduser(),
        captions=tuple(_parse_caption(c, f"{where}, captions") for c in captions),
        tags=_parse_tags(row, where),
        split=split,
        licence=_typed(row, "licence", str, where, ""),
        title=_typed(row, "title", str, where, ""),
        meta=_parse_meta(row, where),
        labels=tuple(
            _parse_label(x, f"{where}, labels") for x in _typed(row, "labels", list, where, [])
        ),
    )


def _parse_tags(row: dict[str, Any], where: str) -> tuple[str, ...]:
    tags = _typed(row, "tags", list, where, [])
    for tag in tags:
        if not isinstance(tag, str):
            raise ManifestError(f"{where}: tag {tag!r} is no text")
    return tuple(tags)


def _parse_meta(row: dict[str, Any], where: str) -> dict[str, Scalar]:
    meta = _typed(row, "meta", dict, where, {})
    for key, value in meta.items():
        if not all(map(_is_scalar, value if isinstance(value, list) else [value])):
            raise ManifestError(
                f"{where}: meta {key!r} is {value!r}, expected a text, a finite number, "
                "true, false or null, or a list of such"
            )
    return meta


def _is_scalar(value: Any) -> bool:
    finite = not isinstance(value, float) or math.isfinite(value)
    return finite and isinstance(value, str | int | float | bool | None)


def _parse_caption(row: Any, where: str) -> Caption:
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {row!r}, expected an object with 'text'")
    kind = row.get("kind", "human")
    if kind not in KINDS:
        raise ManifestError(f"{where}: kind is {kind!r}, expected one of {KINDS}")
    form = row.get("form", "")
    if form not in FORMS:
        raise ManifestError(f"{where}: form is {form!r}, expected one of {FORMS}")
    sections = _typed(row, "sections", list, where, [])
    negatives = _typed(row, "negatives", list, where, [])
    return Caption(
        text=_required_text(row, "text", where),
        kind=kind,
        sections=tuple(_parse_section(s, f"{where}, sections") for s in sections),
        form=form,
        negatives=tuple(_parse_negative(n, f"{where}, negatives") for n in negatives),
    )


def _parse_negative(row: Any, where: str) -> Negative:
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {row!r}, expected an object with 'text' and 'change'")
    return Negative(_required_text(row, "text", where), _required_text(row, "change", where))


def _parse_section(row: Any, where: str) -> Section:
    if not isinstance(row, dict):
        raise ManifestError(f"{where}: got {row!r}, expected start_s, end_s and text")
    start_s, end_s = _parse_times(row.get("start_s"), row.get("end_s"), where)
    return Section(start_s, end_s, _required_text(row, "text", where))


def _parse_label(row: Any, where: str) -> Label:
    if not isinstance(row, list) or len(row) != 4 or not all(isinstance(x, str) for x in row[:2]):
        raise ManifestError(f"{where}: got {row!r}, expected [kind, name, start_s, end_s]")
    return Label(row[0], row[1], *_parse_times(row[2], row[3], where))


def _parse_times(start_s: Any, end_s: Any, where: str) -> tuple[float, float]:
    for name, value in (("start_s", start_s), ("end_s", end_s)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ManifestError(f"{where}: {name} is {value!r}, expected seconds")
    if not (0 <= start_s < end_s < math.inf):
        raise ManifestError(
            f"{where}: {start_s}-{end_s}, expected 0 <= start_s < end_s, in seconds "
            "(percent, or the two exchanged?)"
        )
    return float(start_s), float(end_s)


def _required_text(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(f"{where}: {name!r} is {value!r}, expected a text that is not empty")
    return value


def _typed(row: dict[str, Any], name: str, kind: type, where: str, default: Any) -> Any:
    value = row.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        raise ManifestError(f"{where}: {name!r} is {value!r}, expected a {kind.__name__}")
    return value
