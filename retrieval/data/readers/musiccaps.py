"""MusicCaps (arXiv 2301.11325) and LP-MusicCaps (arXiv 2307.16372): clips of 10 s with captions."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from retrieval.data.manifest import Caption, Song
from retrieval.data.readers.tables import AudioFiles, first_file, is_true, read_table

#: Texts that a language model made from the tags; the authors advise against the fourth kind,
#: ``caption_attribute_prediction``, which is left out.
_PSEUDO = ("caption_writing", "caption_summary", "caption_paraphrase")


def read_musiccaps(folder: Path, audio: Path) -> list[Song]:
    """``musiccaps-public.csv`` or ``musiccaps.csv``; audio files named by their YouTube id.

    The official split: clips of AudioSet's evaluation set are ``test``, the others ``train``;
    ``meta["balanced"]`` marks the genre-balanced subset of 1,000 clips of the paper.
    """
    path = first_file(folder, ("musiccaps-public.csv", "musiccaps.csv", "MusicCaps.csv"))
    rows = read_table(path, {"ytid", "caption", "aspect_list", "is_audioset_eval"})
    files = AudioFiles(audio).starting(row["ytid"] for row in rows)
    return [
        _clip(row, files[row["ytid"]], (Caption(row["caption"].strip()),), row["aspect_list"])
        for row in rows
        if row["ytid"] in files and row["caption"].strip()
    ]


def read_lp_musiccaps(folder: Path, audio: Path) -> list[Song]:
    """LP-MusicCaps as CSV: ``LP-MusicCaps-MC.csv``, or the ``-MTT`` and ``-MSD`` ones.

    MC rows have MusicCaps' columns and split, MTT and MSD rows a ``track_id`` and the split in
    their file name (``train``, ``valid``, ``test``).
    """
    first_file(folder, ("LP-MusicCaps*.csv", "lp-musiccaps*.csv"))
    paths = sorted({p for n in ("LP-MusicCaps*.csv", "lp-musiccaps*.csv") for p in folder.rglob(n)})
    songs = []
    for path in paths:
        rows = read_table(path, {"caption_writing", "caption_summary", "caption_paraphrase"})
        key = "ytid" if rows and "ytid" in rows[0] else "track_id"
        files = AudioFiles(audio).starting(row.get(key, "") for row in rows)
        for row in rows:
            found = files.get(row.get(key, ""))
            texts = [row[name].strip() for name in _PSEUDO if row[name].strip()]
            truth = row.get("caption_ground_truth", "").strip()
            captions = [Caption(truth)] if truth else []
            captions += [Caption(text, "generated") for text in dict.fromkeys(texts)]
            if found and captions:
                tags = row.get("aspect_list") or row.get("tag_top50") or row.get("tag") or "[]"
                songs.append(_clip(row, found, tuple(captions), tags, path))
    return songs


def _clip(
    row: dict[str, str], audio: Path, captions: tuple[Caption, ...], tags: str,
    path: Path | None = None,
) -> Song:  # fmt: skip
    name = row.get("ytid") or row["track_id"]
    meta: dict[str, Any] = {"balanced": is_true(row.get("is_balanced_subset", ""))}
    if row.get("start_s"):
        meta["clip_start_s"] = float(row["start_s"])
    if "is_audioset_eval" in row:
        split = "test" if is_true(row["is_audioset_eval"]) else "train"
    else:
        stem = path.stem.lower() if path else ""
        split = "test" if "test" in stem else "val" if "val" in stem else "train"
    return Song(
        name, audio, captions, literal_list(tags), split, "captions CC BY-SA 4.0", meta=meta
    )


def literal_list(text: str) -> tuple[str, ...]:
    """``"['a', 'b']"`` -> its texts; anything else -> nothing. Never evaluated as code."""
    if not text.startswith("[") or len(text) > 10_000:
        return ()
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    return tuple(dict.fromkeys(str(item) for item in value)) if isinstance(value, list) else ()
