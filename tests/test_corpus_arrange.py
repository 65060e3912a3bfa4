"""Arranging: MIDI files, chord sheets, POP909."""

from __future__ import annotations

import json
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import mido
import numpy as np
import pytest

from retrieval.data.corpus.arrange.analysis import find_boundaries, find_key, letter_sections
from retrieval.data.corpus.arrange.band import arrange_sheet
from retrieval.data.corpus.arrange.billboard import read_sheet
from retrieval.data.corpus.arrange.harte import parse_label
from retrieval.data.corpus.arrange.midi_file import read_midi
from retrieval.data.corpus.arrange.plain import read_piece
from retrieval.data.corpus.arrange.pop909 import arrange_song, read_annotations
from retrieval.data.corpus.arrange.sheet import lay_out
from retrieval.data.corpus.arrange.sources import BillboardSource, MidiSource, Pop909Source
from retrieval.data.corpus.captions.make import make_texts
from retrieval.data.corpus.compose.plan import make_plan
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.piece import Note, Part
from retrieval.data.corpus.render.midi import to_midi
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.source import ComposeSource
from retrieval.errors import MidiError

RATE = 16_000


def midi(*tracks: list, ticks: int = 480) -> bytes:
    file = mido.MidiFile(ticks_per_beat=ticks)
    for messages in tracks:
        file.tracks.append(mido.MidiTrack(messages))
    out = BytesIO()
    file.save(file=out)
    return out.getvalue()


def on(pitch: int, time: int = 0, channel: int = 0, velocity: int = 80) -> mido.Message:
    return mido.Message("note_on", note=pitch, velocity=velocity, time=time, channel=channel)


def off(pitch: int, time: int = 0, channel: int = 0) -> mido.Message:
    return mido.Message("note_off", note=pitch, time=time, channel=channel)


def test_a_midi_file_by_hand(tmp_path: Path) -> None:
    """Two tempi, a program change, a note struck twice, one never ended, drums."""
    path = tmp_path / "x.mid"
    path.write_bytes(
        midi(
            [
                mido.MetaMessage("set_tempo", tempo=500_000, time=0),
                mido.MetaMessage("set_tempo", tempo=1_000_000, time=960),
            ],
            [mido.Message("program_change", program=40, channel=0), on(60), off(60, 480), on(62),
             on(62, 480), off(62, 480), on(64, 0)],
            [on(36, 960, channel=9), off(36, 240, channel=9)],
        )
    )  # fmt: skip
    song = read_midi(path)
    violin, drums = song.parts
    assert (violin.instrument, violin.program, drums.drums) == ("violin", 40, True)
    assert [(n.start_s, n.end_s, n.pitch) for n in violin.notes] == [
        (0.0, 0.5, 60), (0.5, 1.0, 62), (1.0, 2.0, 62), (2.0, 3.0, 64),
    ]  # fmt: skip
    assert [(n.start_s, n.end_s) for n in drums.notes] == [(1.0, 1.5)]
    assert song.tempi == ((0.0, 120.0), (1.0, 60.0))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no MIDI header"),
        (b"RIFF" + b"0" * 100, "no MIDI header"),
        (b"MThd" + b"\xff" * 40, "damaged|expected type 0 or 1"),
        (midi([mido.MetaMessage("set_tempo", tempo=500_000)]), "has no notes"),
        (midi([on(60, 480 * 5000), off(60, 480)]), "2500 s long, expected at most 1200"),
    ],
)
def test_midi_of_no_use_is_one_clear_error(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "x.mid"
    path.write_bytes(data)
    with pytest.raises(MidiError, match=says):
        read_midi(path)


def test_flipped_bytes_of_midi_give_a_song_or_a_typed_error(tmp_path: Path) -> None:
    whole = bytearray(to_midi(compose(make_plan(2, 60, 61), "x"), 0))
    rng = np.random.default_rng(0)
    path = tmp_path / "x.mid"
    for _ in range(60):
        data = bytearray(whole[: rng.integers(20, len(whole))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, min(len(data), 4000), 3):
            data[at] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            assert read_midi(path).parts
        except MidiError:
            pass


def test_a_composed_song_is_found_again_in_its_midi(tmp_path: Path) -> None:
    """Boundaries, key and players, read from the notes alone."""
    found = agreed = keys = 0
    for seed in range(12):
        piece = compose(make_plan(seed, 90, 180), "x")
        path = tmp_path / "x.mid"
        path.write_bytes(to_midi(piece, seed, looseness=0.0))
        read = read_piece(path, "x", "x", "", "midi")
        assert read.duration_s == pytest.approx(piece.duration_s, abs=8)
        starts = [s.start_s for s in read.sections[1:]]
        truth = [s.start_s for s in piece.sections[1:]]
        agreed += sum(min(abs(t - s) for t in truth) < 4 for s in starts)
        found += len(starts)
        fitting = {piece.sections[0].key, None}
        tonic, mode = piece.sections[0].key
        fitting.add(
            (
                (tonic + (3 if mode == "minor" else 9)) % 12,
                {"major": "minor", "minor": "major"}[mode],
            )
        )
        keys += read.sections[0].key in fitting
        for section, fact in zip(read.sections, read_facts(read).sections, strict=True):
            heard = {
                p.instrument for p in read.parts for n in p.notes
                if section.start_s - 1e-6 <= n.start_s < section.end_s - 1e-6
            }  # fmt: skip
            assert heard == set(fact.instruments)
    assert found >= 30
    assert agreed >= 0.7 * found
    assert keys >= 9


def test_key_boundaries_and_letters_by_hand() -> None:
    scale = [
        Note(i, i + 1, 60 + p, 80) for i, p in enumerate((0, 4, 7, 0, 5, 9, 7, 11, 2, 0, 4, 0))
    ]
    assert find_key([Part("piano", 0, tuple(scale))]) == (0, "major")
    assert find_key([Part("drums", 0, tuple(scale), drums=True)]) is None
    blocks = np.array([[1, 0, 0]] * 6 + [[0, 1, 0]] * 6 + [[1, 0, 0]] * 6, dtype=float)
    assert find_boundaries(blocks, 3) == [0, 6, 12]
    assert letter_sections(blocks, [0, 6, 12]) == ["A", "B", "A"]


@pytest.mark.parametrize(
    ("label", "root", "tones"),
    [
        ("C:maj", 0, {0, 4, 7}),
        ("Bb:min7/b3", 10, {10, 1, 5, 8}),
        ("F#:sus4(b7)", 6, {6, 11, 1, 4}),
        ("D:maj(9)", 2, {2, 6, 9, 4}),
        ("G:maj(*3)", 7, {7, 2}),
        ("E:hdim7", 4, {4, 7, 10, 2}),
        ("A", 9, {9, 1, 4}),
    ],
)
def test_chord_labels(label: str, root: int, tones: set[int]) -> None:
    chord = parse_label(label)
    assert chord is not None
    assert (chord.root, set(chord.tones)) == (root, tones)
    assert parse_label("N") is None


@pytest.mark.parametrize("label", ["H:maj", "C:wrong", "C:maj(99)", "", "C:maj/x", "C;maj"])
def test_wrong_chord_labels_are_named(label: str) -> None:
    with pytest.raises(MidiError, match="expected"):
        parse_label(label)


SHEET = """# title: A Song
# artist: Somebody
# metre: 4/4
# tonic: G

0.0\tsilence
0.5\tA, intro, | G:maj | C:maj |
4.5\tB, verse, | G:maj | E:min D:maj | C:maj . D:maj . | G:maj |, (voice
12.5\t| G:maj | (2/4) D:maj | x2
18.5\tC, chorus, | C:maj | D:maj | G:maj | G:maj |
26.5\tsilence
30.0\tend
"""


def test_a_chord_sheet_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "0001.txt"
    path.write_text(SHEET)
    sheet = read_sheet(path)
    assert sheet.title == "A Song (Somebody)"
    assert sheet.key == (7, "major")
    assert [(s.function, s.theme, len(s.bars)) for s in sheet.sections] == [
        ("intro", "A", 2), ("verse", "B", 8), ("chorus", "C", 4),
    ]  # fmt: skip
    verse = sheet.sections[1].bars
    assert [bar.quarters for bar in verse] == [4, 4, 4, 4, 4, 2, 4, 2]
    assert (verse[4].start_s, verse[5].start_s, verse[5].end_s) == (12.5, 14.5, 15.5)
    assert [share for share, _ in verse[2].chords] == [0.0, 0.5]
    grid = lay_out(sheet)
    assert grid.bars == (2, 8, 4)
    for quarter, second in ((0, 0.5), (8, 4.5), (24, 12.5), (28, 14.5), (29, 15.0), (31, 15.5)):
        assert grid.tempo.seconds(quarter) == pytest.approx(second)
    assert grid.is_cut(30.5)
    assert not grid.is_cut(29.5)


def test_a_sheet_becomes_a_song_with_the_annotated_times(tmp_path: Path) -> None:
    path = tmp_path / "0001.txt"
    path.write_text(SHEET)
    for seed in range(8):
        piece = arrange_sheet(read_sheet(path), str(seed), "g", "CC0-1.0", "billboard")
        assert [s.start_s for s in piece.sections] == pytest.approx([0.5, 4.5, 18.5])
        facts = read_facts(piece)
        sets = [set(s.instruments) for s in facts.sections]
        assert sets[0] != sets[1]
        assert make_texts(facts, "x").fixed[0].text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("4/4", "7/4"), "metre 7/4"),
        (("tonic: G", "tonic: Q"), "note 'Q'"),
        (("E:min", "E:what"), "chord 'E:what'"),
        (("12.5\t", "twelve\t"), "time 'twelve'"),
        (("18.5\tC", "99.5\tC"), "bar at"),
    ],
)
def test_a_wrong_sheet_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = tmp_path / "0001.txt"
    path.write_text(SHEET.replace(*change))
    with pytest.raises(MidiError, match=f"0001.txt.*{says}"):
        read_sheet(path)


def test_pop909_keeps_the_melody_and_changes_players_at_boundaries(tmp_path: Path) -> None:
    line = [60, 62, 64, 65, 67, 69, 71, 72] * 8

    def track(name: str, pitches: list[int]) -> list:
        messages: list = [mido.MetaMessage("track_name", name=name)]
        for pitch in pitches:
            messages += [on(pitch), off(pitch, 480)]
        return messages

    tracks = [track("MELODY", line), track("BRIDGE", line), track("PIANO", line)]
    (tmp_path / "1.mid").write_bytes(midi(*tracks))
    row = {
        "id": "pop909-001", "midi": "1.mid", "key": "C:maj",
        "sections": [
            {"start_s": i * 8.0, "end_s": (i + 1) * 8.0, "label": label, "bars": 4}
            for i, label in enumerate("iABo")
        ],
        "chords": [[i * 2.0, i * 2.0 + 2.0, "C:maj" if i % 2 else "G:7"] for i in range(16)],
    }  # fmt: skip
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    (song,) = read_annotations(tmp_path)
    casts = set()
    for seed in range(10):
        piece = arrange_song(song, "x", str(seed))
        assert [s.start_s for s in piece.sections] == pytest.approx([0, 8, 16, 24], abs=0.01)
        assert [s.function for s in piece.sections] == ["intro", "", "", "outro"]
        lead = next(part for part in piece.parts if part.lead)
        assert [n.pitch % 12 for n in lead.notes] == [p % 12 for p in line]
        casts.add(lead.instrument)
        sets = [set(s.instruments) for s in read_facts(piece).sections]
        assert sum(a != b for a, b in pairwise(sets)) >= 2
    assert len(casts) > 2


@pytest.mark.parametrize("name", ["freedoom", "billboard", "pop909"])
def test_real_sources_can_be_read(shared_data: Path, name: str) -> None:
    folder = shared_data / "symbolic" / name
    made = failed = 0
    paths = sorted(folder.glob("*.mid" if name == "freedoom" else "*.txt"))[:25]
    jobs = (
        [lambda s=s: arrange_song(s, s.id, s.id) for s in read_annotations(folder)[:15]]
        if name == "pop909"
        else [lambda p=p: read_piece(p, p.stem, p.stem, "", name) for p in paths]
        if name == "freedoom"
        else [lambda p=p: arrange_sheet(read_sheet(p), p.stem, "g", "", name) for p in paths]
    )
    for job in jobs:
        try:
            piece = job()
        except MidiError:
            failed += 1
            continue
        made += 1
        texts = make_texts(read_facts(piece), "x")
        assert len(texts.fixed) == 2
    assert failed <= 0.1 * made


def test_what_shares_material_shares_a_group(tmp_path: Path) -> None:
    """One MIDI content, one title and artist, one POP909 song: each is in one split only."""
    rendering = Rendering((), RATE)
    data = midi([on(60), off(60, 480)])
    for name, content in (("a.mid", data), ("copy/b.mid", data), ("c.mid", data + b"\0")):
        (tmp_path / "midi" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "midi" / name).write_bytes(content)
    entries = {e.name: e.group for e in MidiSource(str(tmp_path / "midi"), rendering).entries(1)}
    assert len(entries) == 3
    assert entries["a"] != entries["c"]
    assert len(set(entries.values())) == 2
    (tmp_path / "sheets").mkdir()
    for name, text in (("1", SHEET), ("2", SHEET), ("3", SHEET.replace("A Song", "B Song"))):
        (tmp_path / "sheets" / f"{name}.txt").write_text(text)
    sheets = BillboardSource(str(tmp_path / "sheets"), rendering).entries(1)
    assert [e.group == sheets[0].group for e in sheets] == [True, True, False]
    row = {"id": "pop909-001", "midi": "1.mid", "key": "C:maj", "sections": [], "chords": []}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    songs = Pop909Source(str(tmp_path), rendering, versions=3).entries(1)
    assert [e.name for e in songs] == ["pop909-001", "pop909-001-v2", "pop909-001-v3"]
    assert len({e.group for e in songs}) == 1
    themes = ComposeSource(8, rendering, twins=0.5).entries(1)
    assert len(themes) == 12
    assert all(e.name.removesuffix("-reordered") == e.group for e in themes)
