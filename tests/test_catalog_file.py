from __future__ import annotations

from pathlib import Path

import pytest
from fake_embedder import FakeEmbedder

from index import Library, catalog_file
from index.catalog import Catalog
from index.code_files import FOLDER
from index.records import SongRecord
from retrieval.errors import DamagedLibraryError, FilterError


def caches(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.catalog1"))


def test_a_catalogue_is_cached_checked_and_made_again(
    library: Library, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_file, "LEAST_SONGS", 1)
    folder, where = tmp_path / "music.lp", "duration_s > 100 AND has(tags, 'x') = 0"
    library.add([music])
    expected = [song.id for song in library.songs(where)]
    assert 0 < len(expected) < 12
    (file,) = caches(folder)
    whole = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "__init__", None)  # it is read, not made
        again = Library.open(folder, FakeEmbedder())
        assert [song.id for song in again.songs(where)] == expected
        assert again.info()["columns"] == library.info()["columns"]
        for wrong in ("nothing > 1", "1; DROP TABLE songs", "load_extension('x') = 1"):
            with pytest.raises(FilterError):
                again.songs(wrong)
    for damaged in (b"", whole[:-1], b"\0" * len(whole), whole[:500] + b"?" + whole[501:]):
        file.write_bytes(damaged)
        again = Library.open(folder, FakeEmbedder())
        assert [song.id for song in again.songs(where)] == expected
        assert file.read_bytes() == whole


def test_every_change_of_songs_is_another_catalogue(
    library: Library, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_file, "LEAST_SONGS", 1)
    folder = tmp_path / "music.lp"
    library.add([music])
    assert len(library.songs("id > 0")) == 12
    library.remove([3])
    assert [s.id for s in library.songs("id > 0")] == [1, 2, *range(4, 13)]
    (music / "00.mp3").rename(music / "new.mp3")
    library.add([music / "new.mp3"])
    assert len(library.songs("path LIKE '%new.mp3'")) == 1
    library.compact()
    assert len(library.songs("path LIKE '%new.mp3'")) == 1
    assert len(caches(folder)) == 1


def test_a_folder_that_takes_no_cache_is_filtered_all_the_same(
    library: Library, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_file, "LEAST_SONGS", 1)
    library.add([music])
    (tmp_path / "music.lp" / FOLDER).write_text("in the way")
    assert len(library.songs("id > 0")) == 12


def test_what_is_no_catalogue_is_refused() -> None:
    songs = [SongRecord(i, f"{i}.mp3", 1, 1, "0" * 64, 1.0, meta={"bpm": i}) for i in (1, 2)]
    data = Catalog(songs).dump()
    assert Catalog.load(data, 2).filter("bpm = 2") == [2]
    for wrong, count in ((data, 3), (b"x" * 5000, 2), (data[:512], 2), (b"", 2)):
        with pytest.raises(DamagedLibraryError, match="catalogue"):
            Catalog.load(wrong, count)
