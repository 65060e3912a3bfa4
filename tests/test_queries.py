from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from index import Library, Song, Text
from index.cli import main
from index.exact import pair_score
from retrieval.errors import (
    FilterError,
    SearchError,
)


def make_catalogue(tmp_path: Path, library: Library) -> None:
    rows = [
        {"id": f"s{i}", "audio": f"music/{i:02d}.mp3", "title": title, "tags": tags,
         "captions": [{"text": caption}], "meta": {"bpm": bpm, "moods": moods}}
        for i, title, tags, caption, bpm, moods in [
            (0, "Café at Night", ["Jazz", "piano"], "A walking bass opens.", 90, ["calm", "dark"]),
            (2, "Morning run", ["rock"], "Guitars and a piano hurry along.", 171.5, ["happy"]),
            (4, "Slow river", ["folk"], "One guitar, walking slowly.", None, []),
        ]
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    library.add([tmp_path / "m.jsonl"])


def test_sums_and_differences_of_texts_and_songs(library: Library, music: Path) -> None:
    library.add([music])
    song = music / "00.mp3"
    query = Text("a piano. then strings") + 0.5 * Song(song) - 0.4 * Text("drums")
    e = library.model
    parts = [(1.0, e.embed_text("a piano. then strings")), (-0.4, e.embed_text("drums"))]
    heard = e.embed_song(song).clip_emb
    expected = {}
    for record in library.songs():
        clips = e.embed_song(record.path).clip_emb
        own = 0.5 * pair_score(heard, np.full(len(heard), 1 / len(heard)), clips, e.tau)
        texts = [w * pair_score(t.passage_emb, t.passage_weight, clips, e.tau) for w, t in parts]
        expected[record.path] = (own + sum(texts)) / 1.5
    del expected[str(song)]
    for mode in ("exact", "certified"):
        hits = library.search(query, k=20, mode=mode)
        assert [h.path for h in hits] == sorted(expected, key=lambda p: -expected[p])
        assert np.allclose([h.score for h in hits], sorted(expected.values(), reverse=True))
        assert hits.exact
        assert hits.passages[:3] == ["a piano", "then strings", "00 0-10 s"]
        assert hits.passages[-1] == "not: drums"
    plain = library.search("a piano", k=3)
    assert [h.score for h in library.search(2 * Text("a piano"), k=3)] == [h.score for h in plain]
    with pytest.raises(SearchError, match="above 0"):
        library.search(-Text("drums"))


def test_more_like_this_moment(library: Library, music: Path) -> None:
    library.add([music])
    whole = library.similar(music / "00.mp3", k=12)
    moment = library.similar(music / "00.mp3", k=12, start_s=12, end_s=21)
    assert len(whole.passages) > len(moment.passages) == 2
    assert moment.passages == ["10-20 s", "20-30 s"]
    with pytest.raises(SearchError, match="behind the end"):
        library.similar(music / "00.mp3", start_s=4000)
    with pytest.raises(SearchError, match="moment"):
        library.similar(music / "00.mp3", start_s=5, end_s=5)


@pytest.mark.parametrize(
    ("where", "params", "expected"),
    [
        ("has(tags, 'jazz')", {}, ["00"]),
        ("has(tags, :tag)", {"tag": "x' OR 1=1 --"}, []),
        ("bpm > :bpm", {"bpm": 100}, ["02"]),
        ("bpm IS NULL", {}, ["04"]),
        ("typeof(bpm) = 'real'", {}, None),  # not among the functions that are allowed
        ("has(moods, 'dark') OR json_array_length(moods) = 0", {}, ["00", "04"]),
        ("added > '2026-01-01' AND date(added) <= date('now')", {}, ["00", "02", "04"]),
        ("tempo > 3", {}, None),
        ("bpm > :missing", {}, None),
    ],
)
def test_filters_over_a_typed_catalogue(
    tmp_path: Path, library: Library, music: Path, where: str, params: dict, expected: list | None
) -> None:
    make_catalogue(tmp_path, library)
    if expected is None:
        with pytest.raises(FilterError, match="bpm, moods"):
            library.songs(where, params=params)
        return
    assert [Path(s.path).stem for s in library.songs(where, params=params)] == expected
    hits = library.search("a piano", where=where, params=params)
    assert sorted(Path(h.path).stem for h in hits) == expected
    if expected:
        assert hits.exact


def test_words_are_found_by_their_stems(tmp_path: Path, library: Library, music: Path) -> None:
    make_catalogue(tmp_path, library)

    def names(words: str, **options: object) -> list[str]:
        return [Path(record.path).stem for record, _ in library.find(words, **options)]

    assert names("cafe") == ["00"]
    assert names("walk") == ["04", "00"]  # the shorter caption weighs more
    assert names("piano") == ["00", "02"]  # a tag weighs more than a caption
    assert names("guitar slow") == ["04"]
    assert names('NEAR("rock" AND OR *') == []
    assert names("piano", where="bpm > 100") == ["02"]
    with pytest.raises(SearchError, match="word"):
        library.find(" -- ")


def test_hybrid_search_joins_two_rankings(tmp_path: Path, library: Library, music: Path) -> None:
    make_catalogue(tmp_path, library)
    library.add([music])
    text = "walking slowly. folk"
    by_sound = [h.id for h in library.search(text, k=100)]
    by_words = [id for id, _ in library._state.keywords.search(text, every=False)]
    score = {
        id: sum(1 / (61 + r.index(id)) for r in (by_sound, by_words) if id in r) for id in by_sound
    }
    hits = library.search(text, k=5, hybrid=True)
    assert [h.id for h in hits] == sorted(score, key=lambda id: (-score[id], id))[:5]
    known = {h.id: h.score for h in library.search(text, k=100)}
    assert all(h.score == known[h.id] for h in hits)
    assert main(["find", str(tmp_path / "music.lp"), "walking", "--json"]) == 0
    without = library.search(Text("bass") - Text("guitar river"), k=2, hybrid=True)
    assert "00" in [Path(h.path).stem for h in without]  # nothing is looked up for what is unwanted
    assert (Text("bass") - Text("guitar river")).words == "bass"
    with pytest.raises(SearchError, match="word"):
        library.search(Song(music / "00.mp3"), hybrid=True)


@pytest.mark.parametrize(
    "where",
    ["", "nope = 1", "1); DROP TABLE songs; --", "id IN (SELECT 1 FROM sqlite_master)",
     "load_extension('x')", "title = \"unclosed"],
)  # fmt: skip
def test_bad_filters_are_refused(library: Library, music: Path, where: str) -> None:
    library.add([music])
    with pytest.raises(FilterError, match="where"):
        library.search("x", where=where)
    assert len(library.songs("duration_s > 0 AND path LIKE '%.mp3'")) == 12
