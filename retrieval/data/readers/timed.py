"""Sets whose texts or labels carry times: FUTGA, HarmonixSet, SALAMI."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

from retrieval.data.manifest import Caption, Section, Song
from retrieval.data.readers.tables import AudioFiles, first_file, read_table
from retrieval.errors import ManifestError

_ID_COLUMNS = ("id", "ytid", "track_id", "song_id", "file", "name", "path", "audio")
_TEXT_COLUMNS = ("caption", "futga_caption", "output", "description", "text")
# "[0:13 - 0:28]", "(13.0-28.0 s)", "From 0:13 to 0:28", "[13, 28]".
_CLOCK = r"(\d{1,3}:\d{2}(?:\.\d+)?|\d{1,4}(?:\.\d+)?)"
_RANGE = re.compile(
    rf"[\[(]?\s*(?:from\s+)?{_CLOCK}\s*(?:s|sec|seconds)?\s*(?:-|\u2013|to|,|~)\s*{_CLOCK}"
    r"\s*(?:s\b|sec\b|seconds\b)?\s*[\])]?\s*:?",
    re.IGNORECASE,
)
_SILENT = {"silence", "end", "start", "z", "no_function"}
_MAX_LABEL_BYTES = 1 << 20


def read_futga(folder: Path, audio: Path) -> list[Song]:
    """FUTGA's CSV files (one a source set); times in a caption become its sections."""
    first_file(folder, ("*.csv",))
    files = AudioFiles(audio)
    songs: dict[str, Song] = {}
    for path in sorted(folder.rglob("*.csv")):
        rows = read_table(path, set())
        header = {name.lower(): name for name in rows[0]} if rows else {}
        key = next((header[name] for name in _ID_COLUMNS if name in header), None)
        text = next((header[name] for name in _TEXT_COLUMNS if name in header), None)
        if key is None or text is None:
            raise ManifestError(
                f"{path}: columns {list(header)}, expected one of {_ID_COLUMNS} and one of "
                f"{_TEXT_COLUMNS}"
            )
        found = files.starting(Path(row[key]).stem for row in rows)
        split = "test" if "eval" in path.stem.lower() else None
        for row in rows:
            name = Path(row[key]).stem
            if name in found and row[text].strip() and name not in songs:
                caption = timed_text(row[text].strip())
                songs[name] = Song(name, found[name], (caption,), (), split, "Apache-2.0 (FUTGA)")
    return list(songs.values())


def timed_text(text: str) -> Caption:
    """A generated caption; what follows a time range, up to the next one, is its section."""
    matches = [m for m in _RANGE.finditer(text) if ":" in m[0] or m[0][:1] in "[("]
    sections = []
    ends = [match.start() for match in matches[1:]] + [len(text)]
    for match, until in zip(matches, ends, strict=False):
        start, end = _seconds(match[1]), _seconds(match[2])
        body = text[match.end() : until].strip(" \n*#-")
        if body and end > start:
            sections.append(Section(start, end, body))
    return Caption(text, "generated", tuple(sections), "long")


def _seconds(clock: str) -> float:
    minutes, colon, seconds = clock.partition(":")
    return int(minutes) * 60 + float(seconds) if colon else float(clock)


def read_harmonix(folder: Path, audio: Path) -> list[Song]:
    """HarmonixSet: ``metadata.csv`` and ``segments/*.txt``; the text is the named form."""
    table = first_file(folder, ("metadata.csv",))
    rows = read_table(table, {"File", "Title", "Artist"})
    files = AudioFiles(audio)
    songs = []
    for row in rows:
        name = row["File"]
        labels = table.parent / "segments" / f"{Path(name).name}.txt"
        found = files.named([name])
        if found and labels.is_file():
            caption = structure_caption(read_labels(labels))
            meta: dict[str, str | float] = {"artist": row["Artist"], **_numbers(row)}
            if row.get("Genre"):
                meta["genre"] = row["Genre"]
            songs.append(
                Song(
                    name,
                    found,
                    (caption,),
                    title=row["Title"],
                    licence="see HarmonixSet",
                    meta=meta,
                )
            )
    return songs


def read_salami(folder: Path, audio: Path) -> list[Song]:
    """SALAMI: ``annotations/<id>/parsed/textfile1_functions.txt``; audio named by the song's id.

    Both annotators' labels become captions, where there are two.
    """
    root = folder / "annotations"
    if not root.is_dir():
        raise ManifestError(f"folder: no annotations/ in {folder}, expected SALAMI's layout")
    files = AudioFiles(audio)
    songs = []
    for place in sorted(root.iterdir(), key=lambda p: (len(p.name), p.name)):
        labels = sorted((place / "parsed").glob("textfile[12]_functions.txt"))
        found = files.named([place.name, f"SALAMI_{place.name}"])
        if found and labels:
            texts = [structure_caption(read_labels(path)) for path in labels]
            unique = tuple({caption.text: caption for caption in texts}.values())
            songs.append(Song(f"salami-{place.name}", found, unique, licence="CC0 (SALAMI)"))
    return songs


def read_labels(path: Path) -> list[tuple[float, float, str]]:
    """``time<TAB or space>label`` lines -> sections; each ends where the next one begins.

    Raises:
        ManifestError: a line is not of this form, or fewer than two are.
    """
    try:
        text = path.read_bytes()[:_MAX_LABEL_BYTES].decode("utf-8")
        rows = [line.split(None, 1) for line in text.splitlines() if line.strip()]
        timed = [(float(row[0]), row[1].strip() if len(row) > 1 else "") for row in rows]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ManifestError(f"{path}: expected lines of seconds and label ({error})") from error
    sections = [
        (start, end, label)
        for (start, label), (end, _) in pairwise(timed)
        if end > start and label.lower() not in _SILENT
    ]
    if not sections:
        raise ManifestError(
            f"{path}: {len(timed)} lines, expected at least one section and its end"
        )
    return sections


def structure_caption(labels: list[tuple[float, float, str]]) -> Caption:
    """The form in words, with the times of its sections."""
    sections = []
    for number, (start, end, label) in enumerate(labels):
        name = label.lower().replace("_", " ")
        lead = "It opens with the" if not number else "Then comes the"
        if number and number == len(labels) - 1:
            lead = "It ends with the"
        clock = f"{int(start) // 60}:{int(start) % 60:02d}"
        sections.append(Section(start, end, f"{lead} {name} at {clock}."))
    return Caption(" ".join(s.text for s in sections), "generated", tuple(sections), "long")


def _numbers(row: dict[str, str]) -> dict[str, float]:
    try:
        return {"bpm": float(row["BPM"])} if row.get("BPM") else {}
    except ValueError:
        return {}
