from __future__ import annotations

import json
from pathlib import Path

import pytest

from retrieval.data.convert import main
from retrieval.data.manifest import (
    Caption,
    Section,
    Song,
    read_manifest,
    write_manifest,
)
from retrieval.data.readers.composers import read_freepd
from retrieval.errors import ManifestError

GOOD = {"id": "a", "audio": "a.mp3"}
SECTION = {"start_s": 0, "end_s": 5, "text": "x"}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sections = (Section(0.0, 61.5, "Bare piano."), Section(61.5, 90.0, "Strings."))
    songs = [
        Song("a", tmp_path / "in" / "a.mp3", (Caption("Bare piano. Strings.", "human", sections),)),
        Song("ü", Path("/elsewhere/b.flac"), (), ("jazz",), "val", "CC0-1.0", "Bé", {"bpm": 90}),
    ]
    write_manifest(songs, tmp_path / "m.jsonl")
    assert read_manifest(tmp_path / "m.jsonl") == songs
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["audio"] for line in lines] == ["in/a.mp3", "/elsewhere/b.flac"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not a JSON object"),
        ("[]", "line 2: got list"),
        (json.dumps({**GOOD, "id": ""}), "'id' is ''"),
        (json.dumps({"id": "b"}), "'audio' is None"),
        (json.dumps({**GOOD, "bpm": 3}), "unknown field 'bpm'.*belong in 'meta'"),
        (json.dumps({**GOOD, "id": "first"}), "stands on line 1 too"),
        (json.dumps({**GOOD, "split": "dev"}), "split is 'dev'"),
        (json.dumps({**GOOD, "tags": "jazz"}), "'tags' is 'jazz', expected a list"),
        (json.dumps({**GOOD, "captions": ["x"]}), "captions: got 'x'"),
        (json.dumps({**GOOD, "captions": [{"text": "x", "kind": "ai"}]}), "kind is 'ai'"),
        (
            json.dumps(
                {**GOOD, "captions": [{"text": "x", "sections": [{**SECTION, "start_s": 9}]}]}
            ),
            "expected 0 <= start_s < end_s",
        ),
        (
            json.dumps(
                {**GOOD, "captions": [{"text": "x", "sections": [{**SECTION, "end_s": "1:00"}]}]}
            ),
            "end_s is '1:00', expected seconds",
        ),
        ('{"id": "a", "audio": "a", "meta": {"bpm": NaN}}', "meta 'bpm' is nan"),
        (json.dumps({**GOOD, "meta": {"x": [{}]}}), r"meta 'x' is \[{}\]"),
        ("[" * 100_000, "not a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({"id": "first", "audio": "a"}) + "\n" + line + "\n")
    with pytest.raises(ManifestError, match=says):
        read_manifest(path)


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "none.jsonl")


@pytest.mark.parametrize(("name", "count"), [("real", 73), ("freepd", 306)])
def test_collections_are_converted(
    shared_data: Path, tmp_path: Path, name: str, count: int
) -> None:
    out = tmp_path / "m.jsonl"
    assert main([name, str(shared_data / name), str(out)]) == 0
    songs = read_manifest(out)
    assert len(songs) == count
    assert all(song.audio.is_file() for song in songs)
    assert sum(bool(song.captions) for song in songs) > 0.75 * count
    assert {song.split for song in songs} == {"train", "val", "test"}
    assert sum(song.split == "test" for song in songs) == pytest.approx(count / 3, rel=0.15)


def test_comments_about_rights_are_no_captions(tmp_path: Path) -> None:
    rows = [
        {"description": "Nice harp piece. Source: someone", "genre": "Folk"},
        {"description": "CALMING,RELAXING", "genre": "Acoustic"},
        {"description": "USUAN1100438 - incompetech.com", "genre": ""},
    ]
    common = {"audio": "a.mp3", "title": "Slow Harp", "artist": "x", "license": "CC0"}
    lines = [json.dumps({"id": str(i), **common, **row}) for i, row in enumerate(rows)]
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    texts = [[c.text for c in song.captions] for song in read_freepd(tmp_path, tmp_path)]
    assert texts == [
        ["Nice harp piece.", "Folk music."],
        ["Acoustic music; calming and relaxing in feel."],
        ["Slow Harp"],
    ]
