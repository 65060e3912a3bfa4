"""Players at work: a plan, its chords and its tempo -> notes in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from retrieval.data.corpus.compose.accompany import write_bass, write_chords, write_pad
from retrieval.data.corpus.compose.drums import write_drums
from retrieval.data.corpus.compose.harmony import ChordSpan
from retrieval.data.corpus.compose.melody import Theme, make_theme, write_counter, write_melody
from retrieval.data.corpus.compose.plan import Plan, SectionPlan
from retrieval.data.corpus.compose.stage import Event, Stage
from retrieval.data.corpus.instruments import INSTRUMENTS
from retrieval.data.corpus.piece import Note, Part, PieceSection, TempoMap
from retrieval.data.corpus.theory import chord_name

_SWUNG = 2 / 3
_FADE_S = 14.0


def perform(
    plan: Plan,
    chords: Sequence[Sequence[ChordSpan]],
    tempo: TempoMap,
    is_cut: Callable[[float], bool] = lambda quarter: False,
) -> tuple[Part, ...]:
    """Write every part of a plan.

    Args:
        plan: who plays when.
        chords: of each section, covering it without a gap.
        tempo: quarter notes to seconds.
        is_cut: whether an event at a place, in quarter notes, is left out.
    """
    rng = random.Random(f"themes {plan.seed}")
    letters = sorted({section.theme for section in plan.sections})
    themes = {letter: make_theme(rng, plan.metre, rng.uniform(0.2, 0.8)) for letter in letters}
    events: dict[str, list[Event]] = {role: [] for role in plan.players}
    heard = dict.fromkeys(letters, 0)
    before: tuple[str, ...] = ()
    for section, spans in zip(plan.sections, chords, strict=True):
        for role in section.roles:
            stage = _stage(plan, section, role, spans, heard[section.theme])
            written = _write(plan, role, section.roles, stage, themes[section.theme])
            written = [event for event in written if not is_cut(event.start)]
            events[role] += _enter(written, section.start, role not in before)
        heard[section.theme] += 1
        before = section.roles
    return tuple(_part(plan, role, events[role], tempo) for role in plan.players if events[role])


def describe_sections(
    plan: Plan, chords: Sequence[Sequence[ChordSpan]], tempo: TempoMap
) -> tuple[PieceSection, ...]:
    """The plan's sections in seconds."""
    return tuple(
        _section(plan, section, spans, tempo)
        for section, spans in zip(plan.sections, chords, strict=True)
    )


def fade_length(section: PieceSection) -> float:
    """Seconds of fade-out at the end of a song whose last section is given."""
    return min(_FADE_S, section.end_s - section.start_s) if "fade-out" in section.marks else 0.0


def _stage(
    plan: Plan, section: SectionPlan, role: str, chords: Sequence[ChordSpan], take: int
) -> Stage:
    # A twin of a song has its sections in another order: a player's notes depend on the section
    # itself, not on its number.
    rng = random.Random(f"{plan.seed} {section.function} {section.energy} {role}")
    return Stage(
        plan.metre, section.start, section.bars, section.energy, section.marks, tuple(chords),
        INSTRUMENTS[plan.players[role]], rng, (section.tonic, plan.mode), take,
    )  # fmt: skip


def _write(
    plan: Plan, role: str, roles: tuple[str, ...], stage: Stage, theme: Theme
) -> list[Event]:
    style = plan.style
    if role == "drums":
        return write_drums(stage, style.beat)
    if role == "bass":
        return write_bass(stage, style.bassline)
    if role == "chords":
        return write_chords(stage, style.comping)
    if role == "pad":
        return write_pad(stage)
    if role == "counter" and "lead" in roles:
        return write_counter(stage)
    return write_melody(stage, theme)


def _enter(events: list[Event], start: float, enters: bool) -> list[Event]:
    """A player that enters is heard from the first beat: boundaries are where they are stated."""
    if not enters or not events:
        return events
    first = min(event.start for event in events)
    if first <= start + 1e-6:
        return events
    return [
        replace(event, start=start, length=event.length + first - start)
        if event.start == first
        else event
        for event in events
    ]


def _section(
    plan: Plan, section: SectionPlan, chords: Sequence[ChordSpan], tempo: TempoMap
) -> PieceSection:
    end = section.start + section.bars * plan.metre.bar
    names = tuple(chord_name(span.chord, section.tonic, plan.mode) for span in chords)
    return PieceSection(
        tempo.seconds(section.start), tempo.seconds(end), section.function, section.theme,
        (section.tonic, plan.mode), section.bpm, _cycle(names), section.marks,
    )  # fmt: skip


def _cycle(names: tuple[str, ...]) -> tuple[str, ...]:
    """The shortest pattern that, repeated, gives the chords."""
    for length in range(1, len(names)):
        if all(name == names[i % length] for i, name in enumerate(names)):
            return names[:length]
    return names


def _part(plan: Plan, role: str, events: list[Event], tempo: TempoMap) -> Part:
    instrument = INSTRUMENTS[plan.players[role]]
    notes = []
    for event in sorted(events, key=lambda e: (e.start, e.pitch)):
        start = _swing(event.start) if plan.style.swing else event.start
        pitch = event.pitch
        velocity = max(1, min(127, round(event.velocity * instrument.gain)))
        end = max(event.start + event.length, start + 0.05)
        notes.append(Note(tempo.seconds(start), tempo.seconds(end), pitch, velocity))
    return Part(
        instrument.name, instrument.program, tuple(notes), instrument.drums, role == "lead",
        _manner(plan, role),
    )  # fmt: skip


def _manner(plan: Plan, role: str) -> str:
    """How a player plays throughout, as captions may say it."""
    style = plan.style
    in_four = plan.metre.name == "4/4"
    if role == "drums":
        return f"beat {style.beat}" if in_four else ""
    if role == "bass":
        return f"bass {style.bassline}" if in_four or style.bassline in ("walking", "held") else ""
    return f"chords {style.comping}" if role == "chords" else role if role == "pad" else ""


def _swing(quarter: float) -> float:
    whole, share = divmod(quarter, 1.0)
    return whole + _SWUNG if abs(share - 0.5) < 1e-6 else quarter
