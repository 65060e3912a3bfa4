"""Sources that read files: any folder of MIDI, POP909 with labels, Billboard's chord sheets."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from retrieval.data.corpus.arrange.band import arrange_sheet
from retrieval.data.corpus.arrange.billboard import read_sheet
from retrieval.data.corpus.arrange.plain import read_piece
from retrieval.data.corpus.arrange.pop909 import Annotated, arrange_song, read_annotations
from retrieval.data.corpus.arrange.recast import maybe_recast
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.source import Entry, Made, render_and_describe
from retrieval.errors import ConfigError, MidiError

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


def list_files(folder: str | Path | None, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of a folder and its subfolders, in a fixed order.

    Raises:
        ConfigError: no folder, or no such file in it.
    """
    if folder is None:
        raise ConfigError("corpus.folder: not given; name the folder with the source files")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ConfigError(f"corpus.folder: {root} is no folder")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not paths:
        raise ConfigError(f"corpus.folder: no {' or '.join(suffixes)} file in {root}")
    return paths


def name_of(path: Path, root: Path) -> str:
    """A song's id from its path: safe as a file name, unique within the folder."""
    inside = path.relative_to(root).with_suffix("").as_posix()
    plain = _UNSAFE.sub("-", inside.replace("/", "."))
    digest = hashlib.sha256(inside.encode()).hexdigest()[:6]
    return plain if plain == inside else f"{plain}-{digest}"


def _first(entries: list[Entry], songs: int | None) -> list[Entry]:
    return entries if songs is None else entries[:songs]


@dataclass(frozen=True)
class MidiSource:
    """MIDI files as they are; texts are derived from the notes.

    Attributes:
        folder: searched with its subfolders.
        rendering: how they sound.
        songs: at most so many, or None.
        licence: of the files.
    """

    folder: str
    rendering: Rendering
    songs: int | None = None
    licence: str = ""

    def entries(self, seed: int) -> list[Entry]:
        """One song a file; files with the same content are of one group."""
        root = Path(self.folder or "").expanduser()
        found = []
        for path in list_files(self.folder, (".mid", ".midi")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            found.append(Entry(name_of(path, root), f"midi-{digest}", path))
        return _first(found, self.songs)

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Read, render and describe a file."""
        piece = read_piece(_path(entry), entry.name, entry.group, self.licence, "midi")
        return render_and_describe(piece, self.rendering, audio, f"{seed} {entry.name}")


@dataclass(frozen=True)
class BillboardSource:
    """Chord sheets of the McGill Billboard project, arranged for a band.

    Attributes:
        folder: with one ``.txt`` file a sheet.
        rendering: how they sound.
        songs: at most so many, or None.
        recast: share of them that are for other players
            (:mod:`retrieval.data.corpus.arrange.recast`).
    """

    folder: str
    rendering: Rendering
    songs: int | None = None
    recast: float = 0.0

    def entries(self, seed: int) -> list[Entry]:
        """One song a sheet; sheets of the same title and artist are of one group."""
        root = Path(self.folder or "").expanduser()
        found = []
        for path in list_files(self.folder, (".txt",)):
            found.append(Entry(f"billboard-{name_of(path, root)}", _sheet_group(path), path))
        return _first(found, self.songs)

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Read, arrange, render and describe a sheet."""
        sheet = replace(read_sheet(_path(entry)), name=entry.name)
        name = f"{seed} {entry.name}"
        piece = arrange_sheet(sheet, name, entry.group, "CC0-1.0 (McGill Billboard)", "billboard")
        piece = maybe_recast(piece, self.recast, name)
        return render_and_describe(piece, self.rendering, audio, name)


@dataclass(frozen=True)
class Pop909Source:
    """POP909 with phrase labels, re-orchestrated.

    Attributes:
        folder: with ``manifest.jsonl`` and the MIDI files.
        rendering: how they sound.
        songs: at most so many, or None.
        versions: orchestrations of each song.
        recast: share of them that are for other players
            (:mod:`retrieval.data.corpus.arrange.recast`).
    """

    folder: str
    rendering: Rendering
    songs: int | None = None
    versions: int = 1
    recast: float = 0.0

    def entries(self, seed: int) -> list[Entry]:
        """Each song with its orchestrations, which are of one group."""
        songs = read_annotations(self.folder)[: self.songs]
        return [
            Entry(song.id if not v else f"{song.id}-v{v + 1}", song.id, song.midi, v)
            for song in songs
            for v in range(self.versions)
        ]

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Arrange, render and describe a song."""
        song = _annotations(self.folder).get(entry.group)
        if song is None:
            raise MidiError(f"{entry.group}: no longer in the manifest of {self.folder}")
        name = f"{seed} {entry.name}"
        piece = maybe_recast(arrange_song(song, entry.name, name), self.recast, name)
        return render_and_describe(piece, self.rendering, audio, name)


@lru_cache(maxsize=1)
def _annotations(folder: str) -> dict[str, Annotated]:
    """A folder's songs by id, read once a process."""
    return {song.id: song for song in read_annotations(folder)}


def _sheet_group(path: Path) -> str:
    """Title and artist; a sheet that has none is a group of its own."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:10]
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip().lower() for line in lines
             if line.startswith(("# title:", "# artist:"))]  # fmt: skip
    title = " ".join(found)
    return f"billboard-{hashlib.sha256((title or path.name).encode()).hexdigest()[:16]}"


def _path(entry: Entry) -> Path:
    if entry.path is None:
        raise MidiError(f"{entry.name}: no file")
    return entry.path
