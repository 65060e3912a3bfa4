"""Pieces for other players: who plays changes, what is played does not."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from test_corpus_arrange import SHEET

from retrieval.data.corpus import pipeline
from retrieval.data.corpus import source as composing
from retrieval.data.corpus.arrange import sources as arranging
from retrieval.data.corpus.arrange.programs import instrument_of
from retrieval.data.corpus.arrange.recast import maybe_recast, recast
from retrieval.data.corpus.captions.long import MAX_WORDS, MIN_WORDS
from retrieval.data.corpus.captions.make import make_texts
from retrieval.data.corpus.compose.plan import make_plan, reorder
from retrieval.data.corpus.compose.styles import STYLES
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.draw import notes_of
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.labels import make_labels
from retrieval.data.corpus.piece import Note, Part, Piece, PieceSection, notes_between
from retrieval.data.corpus.render.midi import to_midi
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.source import ComposeSource
from retrieval.data.manifest import Song
from retrieval.errors import ConfigError

SEEDS = range(24)
RENDERING = Rendering((), 16_000)


@cache
def composed(seed: int) -> Piece:
    return compose(make_plan(seed, 60, 180, None), f"song-{seed}")


@cache
def changed(seed: int) -> Piece:
    return recast(composed(seed), f"composed-{seed}")


def players(piece: Piece) -> set[tuple[str, int]]:
    return {(part.instrument, part.program) for part in piece.parts}


def test_players_are_a_function_of_the_seed() -> None:
    piece = composed(3)
    assert recast(piece, "a") == recast(piece, "a")
    assert to_midi(recast(piece, "a"), "s") == to_midi(recast(piece, "a"), "s")
    casts = {frozenset(players(recast(piece, str(seed)))) for seed in range(10)}
    assert len(casts) == 10


def test_bands_are_of_several_sizes() -> None:
    added = Counter(len(changed(s).parts) - len(composed(s).parts) for s in SEEDS)
    assert {0, 1, 2} <= set(added) <= {0, 1, 2, 3}
    assert sum(players(changed(s)) <= players(composed(s)) for s in SEEDS) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_played_is_played_by_others(seed: int) -> None:
    before, after = composed(seed), changed(seed)
    assert after.sections == before.sections
    assert (after.style, after.moods, after.meta["recast"]) == ("", (), before.style)
    assert (after.name, after.group, after.metre) == (before.name, before.group, before.metre)
    assert "recast" not in before.meta
    for was, now in zip(before.parts, after.parts, strict=False):
        assert (now.notes, now.lead, now.drums) == (was.notes, was.lead, was.drums)
        assert now.manner == ""
        if was.drums:
            assert (now.instrument, now.program) == ("drums", was.program)
    names = [part.instrument for part in after.parts]
    assert len(names) == len(set(names))
    assert all(p.instrument == instrument_of(p.program) for p in after.parts if not p.drums)
    for part in after.parts:
        assert part.notes
        assert all(0 <= n.pitch <= 127 for n in part.notes)
        assert all(0 <= n.start_s < min(n.end_s, after.duration_s) for n in part.notes)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_doubles_plays_with_another_and_rests_with_the_section(seed: int) -> None:
    before, after = composed(seed), changed(seed)
    for double in after.parts[len(before.parts) :]:
        assert not double.drums
        assert not double.lead
        played = {(n.start_s, n.end_s, n.velocity, n.pitch % 12) for n in double.notes}
        sources = [
            part
            for part in before.parts
            if not part.drums
            and played <= {(n.start_s, n.end_s, n.velocity, n.pitch % 12) for n in part.notes}
        ]
        assert sources
        kinds = {
            (s.function, s.theme)
            for s in after.sections
            if any(notes_between(double, s.start_s, s.end_s))
        }
        whole = [
            note
            for s in after.sections
            if (s.function, s.theme) in kinds
            for note in notes_between(sources[0], s.start_s, s.end_s)
        ]
        assert len(double.notes) == len(whole)  # all that is played in these kinds of sections


def test_doubling_by_hand() -> None:
    """One player, five pitches again and again, three kinds of sections, the first twice."""
    pitches = (1, 30, 60, 90, 126)
    notes = tuple(Note(i, i + 0.5, pitches[i % 5], 80) for i in range(40))
    sections = tuple(
        PieceSection(10 * i, 10 * i + 10, function) for i, function in enumerate("abac")
    )
    piece = Piece("x", "x", sections, (Part("piano", 0, notes),))
    doubles = [part for seed in range(40) for part in recast(piece, str(seed)).parts[1:]]
    assert 40 <= len(doubles) <= 80  # none to three, each as often
    casts, octaves = set(), set()
    for part in doubles:
        heard = [len(list(notes_between(part, s.start_s, s.end_s))) for s in sections]
        assert set(heard) <= {0, 10}
        assert heard[0] == heard[2]
        casts.add(tuple(n > 0 for n in heard[1:]))
        moved = {pitches[int(n.start_s) % 5]: n.pitch for n in part.notes}
        octave = moved[60] - 60
        octaves.add(octave)
        low = 30 if octave < 0 else 30 + octave  # 18 would be too low
        assert moved == {1: 1, 30: low, 60: 60 + octave, 90: 90 + octave, 126: 126}
    assert len(casts) == 7  # all but silence
    assert octaves == {-12, 0, 12}
    short = Piece("x", "x", sections[:1], (Part("piano", 0, notes[:10]),))
    added = Counter(len(recast(short, str(seed)).parts) - 1 for seed in range(40))
    assert set(added) == {0, 1, 2, 3}
    assert sum(count * n for count, n in added.items()) >= 45  # nobody is left without a section


def test_low_parts_go_to_basses() -> None:
    for seed in SEEDS:
        for part in changed(seed).parts[: len(composed(seed).parts)]:
            if not part.drums and sum(n.pitch for n in part.notes) < 48 * len(part.notes):
                assert part.program in (*range(32, 40), 43, 58, 87)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_twin_has_the_same_players_in_the_same_sections(seed: int) -> None:
    order = compose(reorder(make_plan(seed, 60, 180, None)), f"song-{seed}-reordered")
    twin = recast(order, f"composed-{seed}")
    assert players(twin) == players(changed(seed))
    casts = [
        Counter(
            (section.function, section.theme, frozenset(section.instruments))
            for section in read_facts(piece).sections
        )
        for piece in (twin, changed(seed))
    ]
    assert casts[0] == casts[1]


def test_a_piece_of_drums_alone_has_nobody_to_double() -> None:
    piece = composed(0)
    drums = tuple(part for part in piece.parts if part.drums)
    assert drums
    for seed in range(10):
        alone = recast(Piece("x", "x", piece.sections, drums, "march"), str(seed))
        assert [p.notes for p in alone.parts] == [p.notes for p in drums]


def test_a_share_of_the_pieces_is_recast() -> None:
    piece = composed(1)
    for seed in map(str, range(20)):
        assert maybe_recast(piece, 0, seed) is piece
        assert maybe_recast(piece, 0.0, seed) is piece
        assert maybe_recast(piece, 1, seed) == recast(piece, seed)
    chosen = sum(maybe_recast(piece, 0.5, str(seed)) is not piece for seed in range(60))
    assert 18 <= chosen <= 42


@pytest.mark.parametrize("share", [-0.1, 1.01, 50, float("nan")])
def test_a_share_that_is_none_is_named(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"corpus\.recast: got {share}, expected .* 0 to 1"):
        maybe_recast(composed(1), share, "x")


@pytest.mark.parametrize("seed", SEEDS)
def test_captions_name_who_plays_and_no_style(seed: int) -> None:
    facts = read_facts(changed(seed))
    assert set(facts.instruments) == {p.instrument for p in changed(seed).parts}
    texts = make_texts(facts, f"song-{seed}")
    assert MIN_WORDS <= len(texts.fixed[0].text.split()) <= MAX_WORDS
    assert texts.shorts
    assert len(texts.queries) >= 6
    every = [*texts.fixed, *texts.shorts, *texts.queries]
    said = [c.text for c in every] + [n.text for c in every for n in c.negatives]
    for style in STYLES:
        pattern = re.compile(rf"\b{re.escape(style.name)}\b", re.IGNORECASE)
        assert not any(pattern.search(text) for text in said)
        assert style.name not in texts.tags
    assert {"style", "mood"}.isdisjoint(label.kind for label in make_labels(facts))
    for fact, section in zip(facts.sections, texts.fixed[1].sections, strict=True):
        assert all(name.lower() in section.text.lower() for name in fact.instruments)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources give the piece itself, without sound and texts."""
    for module in (composing, arranging):
        monkeypatch.setattr(module, "render_and_describe", lambda piece, *_: piece)


@pytest.mark.usefixtures("unheard")
def test_a_share_of_composed_themes_is_recast_with_their_twins() -> None:
    source, plain = (ComposeSource(16, RENDERING, 60, 70, 1.0, (), r) for r in (0.5, 0.0))
    entries = source.entries(1)
    made = [source.make(entry, Path("x"), 1) for entry in entries]
    for theme, twin in zip(made[::2], made[1::2], strict=True):
        assert theme.meta.get("recast") == twin.meta.get("recast")
        assert players(theme) == players(twin)
        assert theme.meta["max_s"] == 70
    assert 3 <= sum("recast" in piece.meta for piece in made[::2]) <= 13
    for entry, piece in zip(entries, made, strict=True):
        before = plain.make(entry, Path("x"), 1)
        assert (piece == before) == ("recast" not in piece.meta)


@pytest.mark.usefixtures("unheard")
def test_recast_notes_are_written_again_from_what_the_manifest_says() -> None:
    """Also where the style was asked for by name, which the manifest's genre no longer says."""
    for styles in ((), ("waltz", "march")):
        source = ComposeSource(3, RENDERING, 60, 70, 1.0, styles, 1.0)
        for entry in source.entries(1):
            made = source.make(entry, Path("x"), 1)
            meta = {"source": "compose", "genre": made.style, "group": made.group} | made.meta
            again = notes_of(Song(entry.name, Path("x"), meta=meta))
            assert again is not None
            assert (again.parts, again.sections) == (made.parts, made.sections)


def test_a_corpus_made_before_there_was_recast_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []

    def noted(settings: list) -> str:
        digests.append(str(settings))
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "recipe_digest", noted)
    for share in (0.0, 0.5):
        source = ComposeSource(2, RENDERING, 60, 70, recast=share)
        with pytest.raises(KeyboardInterrupt):
            pipeline.make_corpus(source, pipeline.Recipe(tmp_path, 1, "flac", 0.0, 0.0))
    assert "recast" not in digests[0]
    assert "'recast': 0.5" in digests[1]


@pytest.mark.usefixtures("unheard")
def test_arranged_songs_are_recast_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.txt").write_text(SHEET)
    row = {"id": "pop909-001", "midi": "1.mid", "key": "C:maj", "sections": [], "chords": []}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    monkeypatch.setattr(arranging, "arrange_song", lambda song, name, seed: composed(2))
    for kind in (arranging.BillboardSource, arranging.Pop909Source):
        whole, plain = (kind(str(tmp_path), RENDERING, recast=r) for r in (1.0, 0.0))
        (entry,) = whole.entries(1)
        before, after = (s.make(entry, Path("x"), 1) for s in (plain, whole))
        assert "recast" not in before.meta
        assert after == recast(before, f"1 {entry.name}")
