"""MTG-Jamendo (tags) and Song Describer (captions of MTG-Jamendo songs)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from retrieval.data.corpus.captions.grammar import join
from retrieval.data.manifest import Caption, Song
from retrieval.data.readers.tables import AudioFiles, first_file, is_true, read_table
from retrieval.errors import ManifestError

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


def read_song_describer(folder: Path, audio: Path) -> list[Song]:
    """``song_describer.csv``: 706 songs with 1,106 captions, all for testing.

    ``meta["valid"]`` marks songs of the validated subset, and :func:`read_song_describer_valid`
    keeps only its captions.
    """
    return _song_describer(folder, audio, valid=False)


def read_song_describer_valid(folder: Path, audio: Path) -> list[Song]:
    """The validated subset of Song Describer: 746 captions."""
    return _song_describer(folder, audio, valid=True)


def _song_describer(folder: Path, audio: Path, valid: bool) -> list[Song]:
    path = first_file(folder, ("song_describer.csv",))
    rows = read_table(path, {"track_id", "caption", "is_valid_subset", "path"})
    files = AudioFiles(audio)
    by_track: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if row["caption"].strip() and (is_true(row["is_valid_subset"]) or not valid):
            by_track[row["track_id"]].append(row)
    songs = []
    for track, its in by_track.items():
        found = _jamendo_file(files, its[0]["path"], track)
        if found:
            songs.append(
                Song(
                    f"jamendo-{track}",
                    found,
                    tuple(Caption(row["caption"].strip()) for row in its),
                    split="test",
                    licence="captions CC BY-SA 4.0; audio CC, by song",
                    meta={"valid": any(is_true(row["is_valid_subset"]) for row in its)},
                )
            )
    return songs


def read_jamendo(folder: Path, audio: Path) -> list[Song]:
    """MTG-Jamendo's TSV files; tags become a sentence.

    Where the folder holds a split (``autotagging-train.tsv`` and so on, or another subset's three
    files), songs get it; otherwise a whole table (``autotagging.tsv``, ``raw.tsv``) is read.
    """
    tables = _split_tables(folder)
    if not tables:
        tables = [(first_file(folder, ("autotagging.tsv", "raw*.tsv")), None)]
    files = AudioFiles(audio)
    songs: dict[str, Song] = {}
    for path, split in tables:
        for track, artist, relative, tags in _rows(path):
            found = _jamendo_file(files, relative, track)
            if found and tags and track not in songs:
                songs[track] = Song(
                    track,
                    found,
                    (Caption(_sentence(tags), "generated"),),
                    tuple(dict.fromkeys(value for _, value in tags)),
                    split,
                    "audio CC, by song; tags CC BY-NC-SA 4.0",
                    meta={"artist": artist, "group": artist},
                )
    return list(songs.values())


def _split_tables(folder: Path) -> list[tuple[Path, str | None]]:
    """The three files of one split, ``split-0`` where there are several."""
    if not folder.is_dir():
        return []
    for train in sorted(folder.rglob("*-train.tsv")):
        stem = train.name.removesuffix("-train.tsv")
        parts = [(train.with_name(f"{stem}-{name}.tsv"), split) for name, split in _SPLITS.items()]
        if stem.startswith("autotagging") and all(path.is_file() for path, _ in parts):
            return [(path, split) for path, split in parts]
    return []


def _rows(path: Path) -> list[tuple[str, str, str, list[tuple[str, str]]]]:
    """Track, artist, path, and tags as (category, value); the tags fill the last columns."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read ({error})") from error
    header = lines[0].split("\t") if lines else []
    if header[:1] != ["TRACK_ID"] or "TAGS" not in header:
        raise ManifestError(f"{path}: header {header}, expected TRACK_ID ... TAGS")
    at = header.index("TAGS")
    rows = []
    for line in lines[1:]:
        cells = line.split("\t")
        if len(cells) > at:
            tags = [tuple(tag.split("---", 1)) for tag in cells[at:] if "---" in tag]
            rows.append((cells[0], cells[1], cells[header.index("PATH")], tags))
    return rows  # type: ignore[return-value]


def _jamendo_file(files: AudioFiles, relative: str, track: str) -> Path | None:
    """``00/1000.mp3`` under its own name, or as the low-rate or two-minute version."""
    number = track.removeprefix("track_").lstrip("0")
    stem = Path(relative).stem
    for suffix in ("", ".low", ".2min"):
        found = files.at(str(Path(relative).with_name(f"{stem}{suffix}.mp3")))
        if found:
            return found
    names = [f"{name}{suffix}" for name in (stem, number) for suffix in ("", ".low", ".2min")]
    return files.named(names)


def _sentence(tags: list[tuple[str, str]]) -> str:
    """A sentence such as ``Rock and pop music, with guitar, happy in mood or theme.``."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for kind, value in tags:
        by_kind[kind].append(value)
    parts = []
    if by_kind["genre"]:
        parts.append(f"{join(by_kind['genre'])} music")
    if by_kind["instrument"]:
        parts.append(f"with {join(by_kind['instrument'])}")
    if by_kind["mood/theme"]:
        parts.append(f"{join(by_kind['mood/theme'])} in mood or theme")
    text = ", ".join(parts) or join([value for _, value in tags])
    return text[:1].upper() + text[1:] + "."
