"""Sets of labels: AudioSet-style tables, and MidiCaps (arXiv 2406.02255)."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from retrieval.data.corpus.captions.grammar import join
from retrieval.data.manifest import Caption, Song
from retrieval.data.readers.tables import (
    AudioFiles,
    first_file,
    read_json_lines,
    read_table,
)
from retrieval.errors import ManifestError

_AUDIOSET = ("eval_segments.csv", "balanced_train_segments.csv", "unbalanced_train_segments.csv")


def read_audioset(folder: Path, audio: Path) -> list[Song]:
    """``*_segments.csv`` with ``class_labels_indices.csv``; labels become a sentence.

    Segments of a file with ``eval`` in its name are ``test``, the others ``train``.
    """
    names = {
        row["mid"]: row["display_name"]
        for row in read_table(
            first_file(folder, ("class_labels_indices.csv",)), {"mid", "display_name"}
        )
    }
    first_file(folder, ("*segments*.csv",))
    files = AudioFiles(audio)
    songs: dict[str, Song] = {}
    for path in sorted(folder.rglob("*segments*.csv")):
        split = "test" if "eval" in path.name else "train"
        rows = _segments(path)
        found = files.starting(row[0] for row in rows)
        for name, start_s, labels in rows:
            known = [names[label] for label in labels if label in names]
            if name in found and known and name not in songs:
                text = f"{join([label.lower() for label in known])}."
                songs[name] = Song(
                    name,
                    found[name],
                    (Caption(text[:1].upper() + text[1:], "generated"),),
                    tuple(label.lower() for label in known),
                    split,
                    "labels CC BY 4.0",
                    meta={"clip_start_s": start_s},
                )
    return list(songs.values())


def _segments(path: Path) -> list[tuple[str, float, list[str]]]:
    """Id, start, labels; the header is a comment and the labels are one quoted field."""
    try:
        lines = [row for row in path.read_text(encoding="utf-8").splitlines() if row]
        rows = list(csv.reader((row for row in lines if row[0] != "#"), skipinitialspace=True))
        return [(row[0], float(row[1]), row[3].split(",")) for row in rows]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ManifestError(
            f"{path}: expected lines of id, start, end, labels as AudioSet writes them ({error})"
        ) from error


def read_midicaps(folder: Path, audio: Path) -> list[Song]:
    """MidiCaps' ``train.json`` (JSON Lines); audio rendered from its MIDI files, by their name.

    ``python -m retrieval.data.corpus corpus=arrange`` renders such files. The official test set
    is ``test``, the others ``train``.
    """
    path = first_file(folder, ("train.json", "*captioned*.json"))
    rows = read_json_lines(path, {"location", "caption"})
    files = AudioFiles(audio)
    # A rendered corpus names files by their whole path: lmd_full.1.1abc.mp3.
    by_name = {stem.rpartition(".")[2]: path for stem, path in files.by_stem.items()}
    songs = []
    for row in rows:
        name = Path(str(row["location"])).stem
        if name in by_name and str(row["caption"]).strip():
            tags = [*_texts(row.get("genre")), *_texts(row.get("mood"))]
            meta = {k: row[k] for k in ("key", "tempo", "time_signature") if _is_scalar(row.get(k))}
            songs.append(
                Song(
                    f"midicaps-{name}",
                    by_name[name],
                    (Caption(str(row["caption"]).strip(), "generated"),),
                    tuple(dict.fromkeys((*tags, *_texts(row.get("instrument_summary"))))),
                    "test" if row.get("test_set") is True else "train",
                    "captions CC BY-SA 4.0",
                    meta=meta,
                )
            )
    return songs


def _texts(value: object) -> list[str]:
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value.replace("'", '"'))
        except ValueError:
            return []
    return [str(item) for item in value] if isinstance(value, list) else []


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and value == value
