"""A plan -> a whole song: harmony and tempo, then the players."""

from __future__ import annotations

import random

from retrieval.data.corpus.compose.harmony import choose_progression, lay_chords
from retrieval.data.corpus.compose.perform import describe_sections, fade_length, perform
from retrieval.data.corpus.compose.plan import Plan
from retrieval.data.corpus.piece import Piece, TempoMap

_SLOWER = (0.9, 0.75)


def compose(plan: Plan, name: str) -> Piece:
    """Write every part of a plan.

    Args:
        plan: see :func:`retrieval.data.corpus.compose.plan.make_plan`.
        name: the piece's unique name.
    """
    rng = random.Random(f"notes {plan.seed}")
    family = plan.style.families[int(plan.minor)]
    progressions = {theme: choose_progression(rng, family, theme) for theme in "ABC"}
    tempo = _tempo_map(plan)
    chords = [
        lay_chords(progressions[s.theme], s.start, s.bars, plan.metre.bar, s.tonic)
        for s in plan.sections
    ]
    sections = describe_sections(plan, chords, tempo)
    mood = random.Random(f"mood {plan.seed}").sample(plan.style.moods, 2)
    title = f"{mood[0]} {plan.style.name} {name.removeprefix('composed-')}".title()
    return Piece(
        name, f"composed-{plan.seed}", sections, perform(plan, chords, tempo), plan.style.name,
        tuple(mood), plan.metre.name, plan.steady, fade_length(sections[-1]), title=title,
    )  # fmt: skip


def _tempo_map(plan: Plan) -> TempoMap:
    """Tempo of each section; a section that slows down does so over its last two bars."""
    pulse = plan.metre.pulse
    changes = []
    for section in plan.sections:
        quarters = section.bpm * pulse
        changes.append((section.start, quarters))
        if "slows down" in section.marks:
            end = section.start + section.bars * plan.metre.bar
            for bars, factor in zip((2, 1), _SLOWER, strict=True):
                changes.append((end - bars * plan.metre.bar, quarters * factor))
    return TempoMap.from_changes(changes)
