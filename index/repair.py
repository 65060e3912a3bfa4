"""Dropping what is damaged in a library, and telling what was lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from index.files import Disk
from index.manifest import BACKUP_NAME, Manifest, SegmentEntry
from index.records import song_from_json
from index.segment import Segment
from index.store import Store, read_manifest
from retrieval.errors import DamagedLibraryError, LibraryError


@dataclass
class RepairReport:
    """What a repair found.

    Attributes:
        manifest: whether the manifest was damaged and its copy was taken.
        damaged: damaged files, name -> what is wrong.
        lost_songs: paths of the songs that are dropped, as far as they can be read.
        n_lost_songs, n_lost_texts: how many songs and texts are dropped.
    """

    manifest: bool = False
    damaged: dict[str, str] = field(default_factory=dict)
    lost_songs: list[str] = field(default_factory=list)
    n_lost_songs: int = 0
    n_lost_texts: int = 0


def repair(folder: Path, disk: Disk | None = None) -> RepairReport:
    """Repair a library whose lock is held.

    A segment with a damaged file of songs loses its songs and their texts; one with a damaged file
    of texts loses its texts. All else stays, and files are only deleted when the manifest no
    longer names them.

    Args:
        folder: of the library.
        disk: what changes it.

    Raises:
        LibraryError: there is no library, or neither manifest nor copy can be read.
        LibraryWriteError: the disk refused.
    """
    report = RepairReport()
    manifest = _manifest(folder, report)
    store = Store(folder, manifest, disk)
    report.damaged = store.damaged()
    if not report.damaged and not report.manifest:
        return report
    kept = [_keep(folder, entry, manifest, report) for entry in manifest.segments]
    segments = tuple(entry for entry in kept if entry is not None)
    store.replace_manifest(_without_lost_ids(folder, replace(manifest, segments=segments)))
    return report


def _manifest(folder: Path, report: RepairReport) -> Manifest:
    try:
        return read_manifest(folder)
    except DamagedLibraryError as error:
        report.manifest = True
        try:
            return read_manifest(folder, BACKUP_NAME)
        except LibraryError:
            raise LibraryError(
                f"library {folder}: cannot be repaired, for its manifest and the copy of it are "
                "both damaged; add the songs to a new library"
            ) from error


def _keep(
    folder: Path, entry: SegmentEntry, manifest: Manifest, report: RepairReport
) -> SegmentEntry | None:
    """What stays of a segment."""
    songs, texts = (
        [f for f in entry.files if f"-{kind}." in f.name] for kind in ("songs", "texts")
    )
    if any(file.name in report.damaged for file in songs):
        report.lost_songs += _paths(folder, entry, manifest)
        report.n_lost_songs += entry.songs
        report.n_lost_texts += entry.texts
        return None
    if any(file.name in report.damaged for file in texts):
        report.n_lost_texts += entry.texts
        return replace(entry, texts=0, files=tuple(songs)) if songs else None
    return entry


def _paths(folder: Path, entry: SegmentEntry, manifest: Manifest) -> list[str]:
    """Paths of a segment's songs, where the file with their records is the one that is whole."""
    lines = tuple(file for file in entry.files if file.name.endswith("songs.jsonl"))
    try:
        read = Segment(folder, replace(entry, files=lines)).lines("songs")
        records = [read.parse(i, song_from_json) for i in range(len(read))]
    except DamagedLibraryError:
        return []
    moved = manifest.moved
    living = [record for record in records if record.id not in manifest.dead_songs]
    return [moved[r.id].path if r.id in moved else r.path for r in living]


def _without_lost_ids(folder: Path, manifest: Manifest) -> Manifest:
    """Removed and renamed ids that are no longer in any segment are forgotten."""
    songs: set[int] = set()
    texts: set[int] = set()
    for segment in Store(folder, manifest).segments():
        songs.update(segment.songs.ids.tolist() if segment.songs else ())
        texts.update(segment.texts.ids.tolist() if segment.texts else ())
    return replace(
        manifest,
        dead_songs=manifest.dead_songs & songs,
        dead_texts=manifest.dead_texts & texts,
        moved={id: place for id, place in manifest.moved.items() if id in songs},
    )
