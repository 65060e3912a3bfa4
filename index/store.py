"""A library on disk: immutable segments, and one manifest that says which of them count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from index.files import Disk, Tally, read_bounded
from index.manifest import (
    BACKUP_NAME,
    FILE_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    FileEntry,
    Manifest,
    SegmentEntry,
    dump_manifest,
    file_name,
    load_manifest,
)
from index.records import SongRecord, TextRecord
from index.renames import Moved
from index.segment import Segment, merged_files, new_files
from index.tiers import due_run
from retrieval.embedder import SongEmbedding, TextEmbedding
from retrieval.errors import LibraryError, LibraryWriteError

#: So few removed or renamed songs are never worth writing a library again.
_FEW = 256


class Store:
    """Reads and changes a library's folder; the caller holds the writer lock for changes.

    Args:
        folder: of the library.
        manifest: the state that is read, and that the next change starts from.
        disk: what changes the folder.
        opened: segments that are open already, by number; they never change.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        disk: Disk | None = None,
        opened: Mapping[int, Segment] | None = None,
    ):
        self.folder, self.manifest, self.disk = folder, manifest, disk or Disk()
        self._opened = dict(opened or {})

    @classmethod
    def create(cls, folder: Path, manifest: Manifest, disk: Disk | None = None) -> Store:
        """Make a new, empty library; LibraryError where something is there already."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LibraryError(f"library {folder}: exists already; open it, or choose another name")
        store = cls(folder, manifest, disk)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            store._write_manifest(manifest)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LibraryWriteError(f"library {folder}: cannot be made ({reason})") from error
        return store

    @classmethod
    def open(cls, folder: Path, disk: Disk | None = None) -> Store:
        """Open the last committed state.

        Raises:
            LibraryError: there is no library.
            DamagedLibraryError: its manifest is damaged.
        """
        return cls(folder, read_manifest(folder), disk)

    def latest(self) -> Store:
        """The last committed state of the same folder; what is open stays open."""
        manifest = read_manifest(self.folder)
        return Store(self.folder, manifest, self.disk, self._opened)

    def segments(self) -> list[Segment]:
        """All segments, their files held open; each file is checked when it is first read.

        Raises:
            DamagedLibraryError: a file is missing or has another length.
        """
        entries = self.manifest.segments
        self._opened = {
            e.number: self._opened.get(e.number) or Segment(self.folder, e) for e in entries
        }
        return list(self._opened.values())

    def commit(
        self,
        songs: Sequence[tuple[SongRecord, SongEmbedding]] = (),
        texts: Sequence[tuple[TextRecord, TextEmbedding]] = (),
        dead_songs: frozenset[int] = frozenset(),
        dead_texts: frozenset[int] = frozenset(),
        moved: Mapping[int, Moved] | None = None,
    ) -> None:
        """Add, remove and rename in one step: all of it holds then, or after a crash none of it.

        Raises:
            LibraryWriteError: the disk refused; the library is as it was.
        """
        old = self.manifest
        places = {**old.moved, **(moved or {})}
        manifest = replace(
            old,
            moved={id: place for id, place in places.items() if id not in dead_songs},
            dead_songs=old.dead_songs | dead_songs,
            dead_texts=old.dead_texts | dead_texts,
            next_song=max([old.next_song, *(r.id + 1 for r, _ in songs)]),
            next_text=max([old.next_text, *(r.id + 1 for r, _ in texts)]),
        )
        files = new_files(songs, texts, old.dtype)
        self._change(manifest, len(old.segments), files, len(songs), len(texts))

    def compact(self, *, everything: bool = False) -> bool:
        """Join small neighbouring segments, and leave out what was removed from them.

        Args:
            everything: all segments become one; otherwise only a run of segments that is due
                (:func:`index.tiers.due_run`), so that adding stays cheap.

        Returns:
            Whether there was anything to do.

        Raises:
            DamagedLibraryError: a segment is damaged; nothing is changed.
            LibraryWriteError: the disk refused; the library is as it was.
        """
        old = self.manifest
        segments = self.segments()
        if everything:
            changed = old.dead_songs or old.dead_texts or old.moved
            tidy = len(segments) <= 1 and not changed
            run = None if tidy else (0, len(segments))
        else:
            run = due_run([e.songs + e.texts for e in old.segments])
        if run is None:
            return False
        first, last = run
        chosen = segments[first:last]
        files, n_songs, n_texts = merged_files(chosen, old)
        gone_songs = {int(i) for s in chosen if s.songs for i in s.songs.ids}
        gone_texts = {int(i) for s in chosen if s.texts for i in s.texts.ids}
        manifest = replace(
            old,
            segments=old.segments[:first] + old.segments[last:],
            dead_songs=old.dead_songs - gone_songs,  # a song's texts are in its own segment
            dead_texts=old.dead_texts - gone_texts,
            moved={id: place for id, place in old.moved.items() if id not in gone_songs},
        )
        self._change(manifest, first, files, n_songs, n_texts)
        self._sweep_or_fail()
        return True

    def tidy(self) -> None:
        """Compact as far as it is due; raises as :meth:`compact` does."""
        sizes = [e.songs + e.texts for e in self.manifest.segments]
        dead = len(self.manifest.dead_songs) + len(self.manifest.dead_texts)
        moved = len(self.manifest.moved)
        # Both stand in the manifest, which is written with each commit.
        overgrown = dead > max(sum(sizes) // 2, _FEW) or moved > max(sum(sizes) // 8, _FEW)
        if overgrown or due_run(sizes) is not None:
            self.compact(everything=overgrown)

    def damaged(self) -> dict[str, str]:
        """Files that are missing or differ in any bit: name -> what is wrong. It reads them all."""
        found: dict[str, str] = {}
        for entry in self.manifest.segments:
            for file in entry.files:
                alone = replace(entry, files=(file,))
                try:
                    for checked in Segment(self.folder, alone).files.values():
                        _ = checked.data
                except LibraryError as error:
                    found[file.name] = str(error)
        return found

    @property
    def n_files(self) -> int:
        """Files that the manifest names, and itself."""
        return 1 + sum(len(segment.files) for segment in self.manifest.segments)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Make a manifest with no new files the current state; LibraryWriteError if it cannot."""
        self._change(manifest, len(manifest.segments), {}, 0, 0)

    def _change(
        self,
        manifest: Manifest,
        place: int,
        files: Mapping[str, Iterator[bytes]],
        n_songs: int,
        n_texts: int,
    ) -> None:
        """Write the files of a new segment, then the manifest in which it stands at ``place``."""
        number = self.manifest.next_segment
        try:
            self._sweep()
            entries = tuple(self._write_part(number, part, data) for part, data in files.items())
            segments = list(manifest.segments)
            if entries:
                segments.insert(place, SegmentEntry(number, n_songs, n_texts, entries))
            manifest = replace(
                manifest,
                generation=self.manifest.generation + 1,
                next_segment=number + 1,
                segments=tuple(segments),
            )
            self.disk.sync_folder(self.folder)
            self._write_manifest(manifest)
        except OSError as error:
            raise self._refused(error) from error
        self.manifest = manifest

    def _write_part(self, number: int, part: str, pieces: Iterator[bytes]) -> FileEntry:
        path, tally = self.folder / file_name(number, part), Tally()
        self.disk.write(path, tally.over(pieces))
        self.disk.sync_file(path)
        return FileEntry(path.name, tally.n_bytes, tally.sha256)

    def _write_manifest(self, manifest: Manifest) -> None:
        """The copy first: after a crash between the two the old state holds, and is whole."""
        data = dump_manifest(manifest)
        self.disk.write_atomically(self.folder / BACKUP_NAME, data)
        self.disk.write_atomically(self.folder / MANIFEST_NAME, data)

    def _sweep(self) -> None:
        """Delete what an interrupted commit left behind, or a compaction has replaced."""
        known = {file.name for segment in self.manifest.segments for file in segment.files}
        for path in self.folder.iterdir():
            if FILE_NAME.fullmatch(path.name) and path.name not in known:
                self.disk.unlink(path)

    def _sweep_or_fail(self) -> None:
        try:
            self._sweep()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> LibraryWriteError:
        return LibraryWriteError(
            f"library {self.folder}: cannot be changed ({error.strerror or error}); it is as "
            "it was. Is the disk full or read-only?"
        )


def read_manifest(folder: Path, name: str = MANIFEST_NAME) -> Manifest:
    """The manifest of a library; raises as :meth:`Store.open` does."""
    path = folder / name
    if not path.exists():
        raise LibraryError(f"library {folder}: not found, expected a folder with {name}")
    return load_manifest(read_bounded(path, MAX_MANIFEST_BYTES), str(folder))
