"""Training views: what is said of a stretch or of shuffled sections is true of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.caption_format import format_caption
from retrieval.data.augment import (
    Augment,
    SongView,
    cut_caption,
    draw_span,
    draw_view,
    one_form,
    shuffle_sections,
)
from retrieval.data.manifest import Caption, Section
from retrieval.errors import ConfigError

WORDS = ("Piano.", "Strings join.", "Drums alone.", "All together.")


def timed(lengths: list[float], form: str = "timed") -> Caption:
    ends = np.cumsum(lengths)
    sections = tuple(
        Section(float(end - length), float(end), word)
        for end, length, word in zip(ends, lengths, WORDS, strict=False)
    )
    labels = [
        f"{round(100 * s.start_s / ends[-1])}-{round(100 * s.end_s / ends[-1])} %: {s.text}"
        for s in sections
    ]
    return Caption(f"Calm. {' '.join(labels)}", "generated", sections, form)


def view(duration_s: float, caption: Caption) -> SongView:
    starts = np.arange(0, duration_s - 9.99, 10.0)
    times = np.stack([starts, starts + 10], axis=1)
    return SongView(np.arange(len(times)), times, duration_s, (caption,))


def section_at(caption: Caption, second: float) -> str:
    return next(s.text for s in caption.sections if s.start_s <= second < s.end_s)


lengths = st.lists(st.integers(2, 6).map(lambda n: 10.0 * n), min_size=2, max_size=4)


@given(lengths, st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_shuffled_clips_are_described_as_they_were(parts: list[float], seed: int) -> None:
    caption = timed(parts)
    song = view(sum(parts), caption)
    shuffled = shuffle_sections(song, np.random.default_rng(seed))
    assert shuffled is not None
    assert sorted(shuffled.clips) == list(song.clips)
    assert shuffled.duration_s == pytest.approx(song.duration_s)
    (new,) = shuffled.captions
    for clip, (start, end) in zip(shuffled.clips, shuffled.times_s, strict=True):
        before = song.times_s[clip].mean()
        assert section_at(new, (start + end) / 2) == section_at(caption, before)
    assert all(s.text in new.text for s in new.sections)
    assert [s.start_s for s in new.sections] == sorted(s.start_s for s in new.sections)
    assert "Calm." not in new.text


@given(lengths, st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_stretch_is_described_by_its_own_sections(parts: list[float], seed: int) -> None:
    caption = timed(parts)
    song = view(sum(parts), caption)
    span = draw_span(song, 20, np.random.default_rng(seed))
    if span is None:
        return
    start = song.times_s[span.clips[0], 0]
    assert span.times_s[0, 0] == 0
    assert list(span.clips) == list(range(span.clips[0], span.clips[-1] + 1))
    (new,) = span.captions
    for section in new.sections:
        assert 0 <= section.start_s < section.end_s <= span.duration_s + 1e-6
        middle = (section.start_s + section.end_s) / 2
        assert section_at(caption, start + middle) == section.text
    for old in caption.sections:
        inside = min(old.end_s, start + span.duration_s) - max(old.start_s, start)
        assert (old.text in new.text) == (inside >= 0.5 * (old.end_s - old.start_s))


def test_a_cut_by_hand() -> None:
    cut = cut_caption(timed([10, 20, 10]), 8, 40)
    assert cut is not None
    assert cut.text == "6-69 %: Strings join. 69-100 %: Drums alone."
    assert [(s.start_s, s.end_s) for s in cut.sections] == [(2, 22), (22, 32)]
    assert cut_caption(timed([10, 20, 10]), 12, 18) is None
    query = replace(timed([10, 20, 10]), form="query")  # "late in the song" is so of the whole song
    assert cut_caption(query, 8, 40) is None


def test_only_captions_that_stand_alone_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    assert shuffle_sections(view(40, timed([20, 20], "long")), rng) is None
    assert shuffle_sections(view(40, Caption("No times.")), rng) is None
    assert shuffle_sections(view(40, timed([20, 20], "")), rng) is not None


def test_chances_are_kept() -> None:
    song = view(80, timed([20, 20, 20, 20]))
    rng = np.random.default_rng(1)
    settings_ = Augment(span=0.3, shuffle=0.3, min_span_s=30)
    views = [draw_view(song.times_s, 80, song.captions, settings_, rng) for _ in range(600)]
    whole = sum(list(v.clips) == list(song.clips) for v in views)
    assert whole == pytest.approx(0.4 * 600 + 0.3 * 600 / 24, abs=60)
    as_it_is = draw_view(song.times_s, 80, song.captions, Augment(), rng)
    assert list(as_it_is.clips) == list(song.clips)
    with pytest.raises(ConfigError, match="sum to at most 1"):
        Augment(span=0.7, shuffle=0.7)


def test_each_form_is_as_likely_as_the_others() -> None:
    captions = [Caption("a", form="long"), *[Caption(f"q{i}", form="query") for i in range(6)]]
    rng = np.random.default_rng(2)
    drawn = [one_form(captions, rng)[0].form for _ in range(400)]
    assert drawn.count("long") == pytest.approx(200, abs=45)
    assert len(one_form(captions[1:], rng)) == 6


def test_the_generator_head_learns_no_percentages_as_words() -> None:
    assert format_caption(timed([20, 20]), 40) == "Calm. <0 50> Piano. <50 99> Strings join."
