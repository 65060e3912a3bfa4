"""Composing, facts and captions: everything that needs no sound."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.audio import load_audio
from retrieval.data.corpus.arrange.midi_file import read_midi
from retrieval.data.corpus.captions.long import MAX_WORDS, MIN_WORDS
from retrieval.data.corpus.captions.make import make_texts
from retrieval.data.corpus.captions.short import QUERY_WORDS, SHORT_WORDS, queries
from retrieval.data.corpus.compose.forms import FORMS
from retrieval.data.corpus.compose.metre import METRES
from retrieval.data.corpus.compose.plan import ROLES, make_plan, reorder
from retrieval.data.corpus.compose.styles import STYLES
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.draw import main as draw
from retrieval.data.corpus.draw import notes_of
from retrieval.data.corpus.facts import SongFacts, read_facts
from retrieval.data.corpus.instruments import INSTRUMENTS
from retrieval.data.corpus.piece import Note, Part, Piece, PieceSection, TempoMap
from retrieval.data.corpus.render.midi import MAX_SHIFT_S, to_midi
from retrieval.data.corpus.theory import parse_chord, voice_chord
from retrieval.data.demo_catalog import demo_manifest
from retrieval.data.manifest import read_manifest

SEEDS = range(60)


def facts_of(seed: int) -> SongFacts:
    return read_facts(compose(make_plan(seed), f"song-{seed}"))


def test_tables_name_what_exists() -> None:
    assert len(STYLES) >= 12
    assert {m for style in STYLES for m in style.metres} <= set(METRES)
    assert {"4/4", "3/4", "6/8", "5/4", "7/8"} <= {m for style in STYLES for m in style.metres}
    for style in STYLES:
        assert style.forms in FORMS
        for role in ROLES:
            assert set(getattr(style, role)) <= set(INSTRUMENTS), (style.name, role)


@pytest.mark.parametrize("style", STYLES, ids=lambda s: s.name)
def test_a_song_is_a_function_of_its_seed(style) -> None:
    a, b, other = (compose(make_plan(seed, style=style), "x") for seed in (5, 5, 6))
    assert a == b
    assert to_midi(a, "s") == to_midi(b, "s")
    assert a.parts != other.parts
    assert make_texts(read_facts(a), "w") == make_texts(read_facts(b), "w")


@pytest.mark.parametrize("seed", SEEDS)
def test_who_the_plan_casts_plays_and_nobody_else(seed: int) -> None:
    plan = make_plan(seed)
    piece = compose(plan, "x")
    facts = read_facts(piece)
    assert 50 <= piece.duration_s <= 330
    for planned, section, fact in zip(plan.sections, piece.sections, facts.sections, strict=True):
        heard = {
            part.instrument
            for part in piece.parts
            for note in part.notes
            if section.start_s - 1e-6 <= note.start_s < section.end_s - 1e-6
        }
        assert heard == {plan.players[role] for role in planned.roles} == set(fact.instruments)
        assert section.end_s - section.start_s >= 7
    for part in piece.parts:
        assert all(0 < n.velocity < 128 and n.end_s > n.start_s for n in part.notes)
        if not part.drums:
            instrument = INSTRUMENTS[part.instrument]
            assert all(instrument.low <= n.pitch <= instrument.high for n in part.notes)


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbouring_sections_differ_by_who_plays(seed: int) -> None:
    sections = facts_of(seed).sections
    assert all(set(a.instruments) != set(b.instruments) for a, b in itertools.pairwise(sections))


@pytest.mark.parametrize("seed", range(20))
def test_who_enters_is_heard_within_50_ms_of_the_boundary(seed: int, tmp_path: Path) -> None:
    piece = compose(make_plan(seed), "x")
    path = tmp_path / "x.mid"
    path.write_bytes(to_midi(piece, seed, looseness=1.0))
    played = read_midi(path)
    for section, fact in zip(piece.sections, read_facts(piece).sections, strict=True):
        for name in fact.enters:
            part = next(i for i, p in enumerate(piece.parts) if p.instrument == name)
            program = piece.parts[part].program
            starts = [
                n.start_s
                for p in played.parts
                if p.drums == piece.parts[part].drums and (p.drums or p.program == program)
                for n in p.notes
            ]
            assert min(abs(s - section.start_s) for s in starts) <= MAX_SHIFT_S + 0.002


def test_a_twin_has_the_same_sections_in_another_order() -> None:
    for seed in range(20):
        plan = make_plan(seed)
        twin = reorder(plan)
        assert [s.function for s in twin.sections] != [s.function for s in plan.sections] or [
            s.energy for s in twin.sections
        ] != [s.energy for s in plan.sections]
        strip = [Counter(str(replace(s, start=0.0)) for s in p.sections) for p in (plan, twin)]
        assert strip[0] == strip[1]


def test_every_form_and_metre_is_drawn() -> None:
    plans = [make_plan(seed) for seed in range(600)]
    assert {p.style.name for p in plans} == {s.name for s in STYLES}
    assert {p.metre.name for p in plans} == set(METRES)
    assert sum(not p.steady for p in plans) > 30
    assert any(len({s.tonic for s in p.sections}) > 1 for p in plans)
    assert any("fade-out" in p.sections[-1].marks for p in plans)


@pytest.mark.parametrize("seed", SEEDS)
def test_captions_hold_to_their_lengths_and_name_exactly_who_plays(seed: int) -> None:
    facts = facts_of(seed)
    texts = make_texts(facts, f"song-{seed}")
    long, timed = texts.fixed
    assert MIN_WORDS <= len(long.text.split()) <= MAX_WORDS
    rest = long.text
    for fact, section in zip(facts.sections, long.sections, strict=True):
        assert (section.start_s, section.end_s) == (round(fact.start_s, 3), round(fact.end_s, 3))
        assert section.text in rest  # in this order, word for word
        rest = rest.split(section.text, 1)[1]
        assert named(section.text, facts) - set(fact.leaves) == set(fact.instruments)
    for fact, section in zip(facts.sections, timed.sections, strict=True):
        start, end = (round(100 * s / facts.duration_s) for s in (fact.start_s, fact.end_s))
        assert f"{start}-{end} %: {section.text}" in timed.text
        assert named(section.text, facts) == set(fact.instruments)
    assert texts.shorts
    assert len(texts.queries) >= 6
    assert all(SHORT_WORDS[0] <= len(c.text.split()) <= SHORT_WORDS[1] for c in texts.shorts)
    assert all(QUERY_WORDS[0] <= len(c.text.split()) <= QUERY_WORDS[1] for c in texts.queries)


@pytest.mark.parametrize("seed", range(12))
def test_searches_for_a_moment_know_its_section(seed: int) -> None:
    facts = facts_of(seed)
    told = make_texts(facts, f"w {seed}").queries
    moments = [caption for caption in told if caption.sections]
    by_start = {round(section.start_s, 3): section for section in facts.sections}
    changed = [section for section in facts.sections[1:] if section.enters or section.leaves]
    assert bool(moments) == bool(changed)
    for caption in moments:
        (span,) = caption.sections
        section = by_start[span.start_s]
        assert span.end_s == round(section.end_s, 3)
        assert span.text == caption.text
        share = section.start_s / facts.duration_s
        where = "early on" if share < 0.3 else "halfway" if share < 0.6 else "late in the song"
        assert where in caption.text
        who = section.leaves if re.search(r"\bdrops? out\b", caption.text) else section.enters
        clause = re.split(r"\b(?:where|when)\b", caption.text)[-1]
        assert named(clause, facts)
        assert named(clause, facts) <= set(who)
    assert all("where" not in c.text or c.sections for c in told if changed)


def test_songs_have_up_to_forty_queries_the_first_as_before() -> None:
    facts = facts_of(3)
    few, many = queries(facts, "w", 6), queries(facts, "w", 40)
    assert len(many) == 40
    assert len({caption.text for caption in many}) == len(many)
    assert many[:6] == few


def named(text: str, facts: SongFacts) -> set[str]:
    """Instruments of a song that a text names; ``bass`` inside ``slap bass`` does not count."""
    found = set()
    for name in sorted(facts.instruments, key=len, reverse=True):
        pattern = re.compile(rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
        if pattern.search(text):
            found.add(name)
            text = pattern.sub(" ", text)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_a_negative_changes_one_fact_and_says_which(seed: int) -> None:
    facts = facts_of(seed)
    long, timed = make_texts(facts, f"song-{seed}").fixed
    assert {"swap", "instrument", "tempo", "mode"} <= {n.change for n in long.negatives}
    assert {"swap", "instrument", "boundary"} <= {n.change for n in timed.negatives}
    for negative in (*long.negatives, *timed.negatives):
        assert negative.text not in (long.text, timed.text)
    by_change = {n.change: n.text for n in long.negatives}
    other = {"major": "minor", "minor": "major"}[facts.key[1]]
    assert re.search(rf"\b{other}\b", by_change["mode"])
    assert not re.search(rf"\b{facts.key[1]}\b", by_change["mode"])
    gone = [n for n in facts.instruments if n not in named(by_change["instrument"], facts)]
    assert len(gone) == 1
    # Nothing else was changed, but for the spelling of the tonic (D flat major, C sharp minor).
    blind = [KEY.sub(sounding, t) for t in (by_change["mode"], long.text)]
    assert blind[0] == blind[1]


KEY = re.compile(r"(?:([A-G])( flat| sharp)? )?\b(?:major|minor)\b")


def sounding(match: re.Match[str]) -> str:
    """The tonic's pitch class, and no mode."""
    if not match[1]:
        return "mode"
    shift = {None: 0, " flat": -1, " sharp": 1}[match[2]]
    return f"{('C.D.EF.G.A.B'.index(match[1]) + shift) % 12} mode"


def test_no_statement_about_a_melody_where_nobody_knows_it() -> None:
    notes = tuple(Note(i / 4, i / 4 + 0.2, 60 + i % 5, 80) for i in range(160))
    halves = (PieceSection(0, 20), PieceSection(20, 40))
    parts = (Part("piano", 0, notes), Part("flute", 73, notes[:80]))
    facts = read_facts(Piece("x", "x", halves, parts))
    for seed in range(50):
        text = make_texts(facts, str(seed)).fixed[0].text.lower()
        assert "melody" not in text
        assert "tune" not in text.replace("a tune on", "")


def effort(pitches, previous, centre: int) -> float:
    """How far the voices move, how far the chord lies from the centre, and how wide it is."""
    moved = 0.0
    if previous and len(previous) == len(pitches):
        moved = sum(abs(a - b) for a, b in zip(previous, pitches, strict=True))
    elif previous:
        moved = sum(min(abs(a - b) for b in previous) for a in pitches)
    return moved + 0.4 * abs(sum(pitches) / 3 - centre) + 0.05 * (pitches[-1] - pitches[0])


@given(st.integers(0, 11), st.integers(50, 70), st.data())
@settings(max_examples=60, deadline=None)
def test_voicings_are_the_smoothest_of_all(tonic: int, centre: int, data) -> None:
    symbols = ("I", "ii7", "V7", "bVImaj7", "iv", "viidim", "Isus4", "I5")
    chords = [parse_chord(s, tonic) for s in data.draw(st.permutations(symbols))]
    previous = None
    for chord in chords:
        voicing = voice_chord(chord, previous, centre)
        assert {p % 12 for p in voicing} <= set(chord.tones)
        assert list(voicing) == sorted(voicing)
        if len(chord.tones) == 3:
            every = [
                pitches
                for pitches in itertools.combinations(range(centre - 11, centre + 12), 3)
                if sorted(p % 12 for p in pitches) == sorted(chord.tones)
                and pitches[2] - pitches[0] <= 14
                and min(pitches[1] - pitches[0], pitches[2] - pitches[1]) >= 2
            ]
            assert (
                effort(voicing, previous, centre)
                <= min(effort(pitches, previous, centre) for pitches in every) + 1e-9
            )
        previous = voicing


def test_tempo_map_is_hand_checkable() -> None:
    tempo = TempoMap.from_changes([(0.0, 120.0), (8.0, 60.0)])
    assert [tempo.seconds(q) for q in (0, 4, 8, 10)] == [0.0, 2.0, 4.0, 6.0]


def test_midi_of_a_piece_is_a_file_that_others_read() -> None:
    import mido

    piece = compose(make_plan(3), "x")
    file = mido.MidiFile(file=BytesIO(to_midi(piece, 0, looseness=0.0)))
    notes = sum(m.type == "note_on" for m in file)
    assert notes == sum(len(part.notes) for part in piece.parts)
    assert file.length == pytest.approx(
        max(n.end_s for p in piece.parts for n in p.notes), abs=0.01
    )


def test_the_shipped_pieces_are_described_as_their_files_are() -> None:
    songs = read_manifest(demo_manifest())
    assert len({song.meta["genre"] for song in songs}) == 16
    assert {song.licence for song in songs} == {"CC0-1.0"}
    for song in songs:
        piece = notes_of(song)
        assert piece is not None
        for section, planned in zip(song.captions[0].sections, piece.sections, strict=True):
            assert section.start_s == round(planned.start_s, 3)
        heard = len(load_audio(song.audio, 8000)) / 8000
        assert piece.duration_s - 0.1 <= heard < piece.duration_s + 2.5


def test_pictures_are_drawn_from_the_command_line(tmp_path: Path, capsys) -> None:
    assert draw(["--id", "composed-900003", str(demo_manifest()), str(tmp_path)]) == 0
    assert (tmp_path / "composed-900003.png").stat().st_size > 20_000
    assert draw(["--id", "nobody", str(demo_manifest()), str(tmp_path)]) == 2
    assert "expected ids of" in capsys.readouterr().err
