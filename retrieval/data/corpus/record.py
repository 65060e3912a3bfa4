"""One finished song on disk, between its rendering and the manifest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from retrieval.data.corpus.captions.make import Texts
from retrieval.data.corpus.source import Made
from retrieval.data.manifest import Caption, Label, Negative, Section


def write_record(path: Path, made: Made, recipe: str) -> None:
    """Write a song's record in one step, after its audio: a song with a record is whole."""
    row = {"recipe": recipe, **asdict(made)}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def read_record(path: Path, recipe: str) -> Made | None:
    """The record, or None where there is none, it is damaged, or another recipe made it."""
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["recipe"] != recipe:
            return None
        texts = row["texts"]
        return Made(
            Texts(
                _captions(texts["fixed"]),
                _captions(texts["shorts"]),
                _captions(texts["queries"]),
                tuple(texts["tags"]),
            ),
            row["title"],
            row["licence"],
            row["meta"],
            tuple(Label(**label) for label in row["labels"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def recipe_digest(settings: Any) -> str:
    """What made a song, in 16 hex digits: records of another recipe are made anew."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[
        :16
    ]


def _captions(rows: list[dict[str, Any]]) -> tuple[Caption, ...]:
    return tuple(_caption(row) for row in rows)


def _caption(row: dict[str, Any]) -> Caption:
    return Caption(
        row["text"],
        row["kind"],
        tuple(Section(**s) for s in row["sections"]),
        row["form"],
        tuple(Negative(**n) for n in row["negatives"]),
    )
