"""Song collections with the composer's own words, read into the manifest's form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from retrieval.data.corpus.captions.grammar import join
from retrieval.data.manifest import Caption, Song
from retrieval.data.readers.tables import read_json_lines

# Words that listeners use for a tempo; the boundaries follow common metronome markings.
_TEMPO_WORDS = ((76, "slow"), (108, "medium tempo"), (140, "fast"), (10_000, "very fast"))
# Comments that speak of a file's origin and rights: nothing that one could hear.
_ORIGIN = re.compile(
    r"(source:|USUAN\d|(new music )?dedicated (to )?the public domain|available from|released to"
    r"|made with midi files|produced by|cobbled together|if you use).*",
    re.IGNORECASE | re.DOTALL,
)


def read_real(folder: Path, audio: Path) -> list[Song]:
    """Full-length recordings with the composer's description, genre, feel and instruments.

    Each song gets the description as a ``human`` caption, and a ``generated`` one that puts
    genre, feel, instruments and tempo into a sentence.

    Raises:
        ManifestError: ``manifest.jsonl`` in the folder is not as expected.
    """
    songs = []
    for row in _rows(folder):
        captions = [Caption(row["description"])] if row["description"].strip() else []
        captions.append(Caption(_facts(row), kind="generated"))
        tags = (row["genre"], *row["feel"], *row["instruments"])
        meta = {"genre": row["genre"], "bpm": row["bpm"], "artist": row["artist"]}
        songs.append(
            Song(
                id=row["id"],
                audio=(audio / row["audio"]).resolve(),
                captions=tuple(captions),
                tags=tuple(tag.lower() for tag in tags if tag),
                licence=row["license"],
                title=row["title"],
                meta=meta,
            )
        )
    return songs


def read_freepd(folder: Path, audio: Path) -> list[Song]:
    """Public-domain recordings, some with a genre and a comment, which become captions.

    Of the comments, what speaks of rights and origin is left out; some only list feels, in
    capitals (``CALMING,RELAXING``). A song of which nothing is told has its title as caption.

    Raises:
        ManifestError: ``manifest.jsonl`` in the folder is not as expected.
    """
    songs = []
    for row in _rows(folder):
        comment = _ORIGIN.sub("", row["description"]).strip()
        feel = [word.strip().lower() for word in comment.split(",")] if comment.isupper() else []
        genre = row["genre"].strip()
        facts = ([f"{genre} music"] if genre else []) + ([f"{join(feel)} in feel"] if feel else [])
        texts = [Caption(comment)] if comment and not feel else []
        if facts:
            texts.append(Caption("; ".join(facts) + ".", kind="generated"))
        # Titles such as "Hip Hop Thick Beat" say more than nothing.
        texts = texts or [Caption(row["title"], kind="generated")]
        songs.append(
            Song(
                id=row["id"],
                audio=(audio / row["audio"]).resolve(),
                captions=tuple(texts),
                tags=tuple(tag for tag in (genre.lower(), *feel) if tag),
                licence=row["license"],
                title=row["title"],
                meta={"genre": row["genre"], "artist": row["artist"]},
            )
        )
    return songs


def _facts(row: dict[str, Any]) -> str:
    parts = [row["genre"]]
    if row["feel"]:
        parts.append(join([feel.lower() for feel in row["feel"]]) + " in feel")
    if row["instruments"]:
        parts.append("played by " + join([name.lower() for name in row["instruments"]]))
    bpm = row["bpm"]
    if bpm:
        word = next(word for limit, word in _TEMPO_WORDS if bpm < limit)
        parts.append(f"{word}, about {bpm} beats per minute")
    return "; ".join(parts) + "."


def _rows(folder: Path) -> list[dict[str, Any]]:
    return read_json_lines(
        folder / "manifest.jsonl",
        {"id", "audio", "title", "artist", "license", "genre", "description"},
    )
