"""A sheet -> a plan for a band: a style that fits, players, and who plays in which section."""

from __future__ import annotations

import random
import statistics

from retrieval.data.corpus.arrange.sheet import Grid, Sheet, lay_out
from retrieval.data.corpus.compose.forms import FormSection
from retrieval.data.corpus.compose.perform import describe_sections, fade_length, perform
from retrieval.data.corpus.compose.plan import Plan, SectionPlan, cast_players, draw_players
from retrieval.data.corpus.compose.styles import STYLES, Style
from retrieval.data.corpus.piece import Piece
from retrieval.errors import MidiError

# How full a section usually is, by its function.
_ENERGY = {
    "intro": 0.3, "verse": 0.5, "pre-chorus": 0.6, "chorus": 0.85, "bridge": 0.4, "solo": 0.75,
    "interlude": 0.45, "break": 0.25, "outro": 0.45, "coda": 0.5, "theme": 0.65, "ending": 0.4,
}  # fmt: skip
_STEADY = 0.06  # tempi that differ by less are one tempo to a listener
_MOST_S = 600.0


def arrange_sheet(sheet: Sheet, seed: str, group: str, licence: str, source: str) -> Piece:
    """Arrange all parts from the chords.

    Args:
        sheet: chords and sections with times.
        seed: of style, players and notes.
        group: see :class:`Piece`.
        licence: of the sheet.
        source: what the manifest calls it.

    Raises:
        MidiError: the sheet is over 10 minutes long.
    """
    sheet_grid = lay_out(sheet)
    plan = plan_sheet(sheet, sheet_grid, random.Random(f"band {seed}"))
    sections = describe_sections(plan, sheet_grid.chords, sheet_grid.tempo)
    if sections[-1].end_s > _MOST_S:
        raise MidiError(
            f"{sheet.name}: {sections[-1].end_s:.0f} s long, expected at most {_MOST_S}"
        )
    parts = perform(plan, sheet_grid.chords, sheet_grid.tempo, sheet_grid.is_cut)
    mood = random.Random(f"mood {seed}").sample(plan.style.moods, 2)
    return Piece(
        sheet.name, group, sections, parts, plan.style.name, tuple(mood), sheet.metre.name,
        plan.steady, fade_length(sections[-1]), licence,
        f"{sheet.title}, as a {plan.style.name}", source,
    )  # fmt: skip


def plan_sheet(sheet: Sheet, grid: Grid, rng: random.Random) -> Plan:
    """Choose a style by metre and tempo, then cast the sections."""
    bpms = section_tempi(sheet)
    style = fitting_style(sheet, statistics.median(bpms), rng)
    players = draw_players(style, rng)
    lift = rng.uniform(-0.1, 0.1)
    form = []
    chorus = 0
    for section in sheet.sections:
        energy = _ENERGY.get(section.function, 0.35 + 0.12 * (ord(section.theme[:1] or "A") % 4))
        chorus += section.function == "chorus"
        # A later chorus is fuller than the first.
        energy += 0.07 * max(chorus - 1, 0) if section.function == "chorus" else lift
        form.append(FormSection(section.function, section.theme, min(max(energy, 0.15), 1.0), 1.0))
    sections = [
        SectionPlan(
            part.function, part.theme, part.energy, start, bars, roles, sheet.key[0], bpm,
            section.marks,
        )
        for part, section, start, bars, roles, bpm in zip(
            form, sheet.sections, grid.starts, grid.bars,
            cast_players(tuple(form), players, rng), bpms, strict=True,
        )
    ]  # fmt: skip
    seed = rng.getrandbits(32)
    minor = sheet.key[1] == "minor"
    return Plan(seed, style, sheet.metre, sheet.key[0], minor, players, tuple(sections))


def section_tempi(sheet: Sheet) -> list[float]:
    """Pulses a minute of every section; one that is close to the usual one counts as that."""
    bpms = [
        round(60 * sum(bar.quarters for bar in s.bars) / sheet.metre.pulse
              / (s.bars[-1].end_s - s.bars[0].start_s), 1)
        for s in sheet.sections
    ]  # fmt: skip
    usual = statistics.median(bpms)
    return [usual if abs(bpm - usual) <= _STEADY * usual else bpm for bpm in bpms]


def fitting_style(sheet: Sheet, bpm: float, rng: random.Random) -> Style:
    """A style of the sheet's metre whose tempi come near to the sheet's."""

    def distance(style: Style) -> float:
        low, high = style.bpm
        return max(low / bpm, bpm / high, 1.0)

    fitting = [s for s in STYLES if sheet.metre.name in s.metres] or list(STYLES)
    near = [s for s in fitting if distance(s) <= 1.05]
    return rng.choice(near) if near else min(fitting, key=distance)
