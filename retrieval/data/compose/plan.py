"""A seed -> the plan of a piece: style, key, tempo, and sections with who plays how."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from retrieval.data.compose.styles import STYLES, Style

#: Roles of the players; a section lists those that sound.
ROLES = ("lead", "chords", "bass", "drums")
# Shapes of a piece: (kind, roles, loudness 0..1, slot of the progression).
_KINDS: dict[str, tuple[tuple[str, ...], float, str]] = {
    "solo": (("chords",), 0.35, "A"),
    "melody alone": (("lead",), 0.4, "A"),
    "duo": (("lead", "chords"), 0.45, "A"),
    "groove": (("chords", "bass", "drums"), 0.6, "A"),
    "rhythm": (("bass", "drums"), 0.6, "A"),
    "band": (("lead", "chords", "bass", "drums"), 0.75, "A"),
    "full": (("lead", "chords", "bass", "drums"), 1.0, "B"),
    "break": (("chords",), 0.3, "C"),
    "quiet": (("lead", "bass"), 0.35, "C"),
    "drop": (("drums",), 0.7, "A"),
}
_FORMS = (
    ("solo", "band", "full", "solo"),
    ("groove", "full", "break", "full"),
    ("melody alone", "duo", "band", "full"),
    ("full", "band", "quiet", "melody alone"),
    ("rhythm", "groove", "band", "full", "break"),
    ("solo", "duo", "full", "quiet"),
    ("band", "break", "full"),
    ("drop", "groove", "full", "drop"),
    ("quiet", "full", "quiet"),
    ("full", "solo", "full"),
    ("duo", "band", "break", "full", "solo"),
    ("groove", "band", "full", "rhythm"),
)


@dataclass(frozen=True)
class SectionPlan:
    """One section: ``bars`` long, with sounding roles, loudness 0..1 and progression slot."""

    kind: str
    roles: tuple[str, ...]
    loudness: float
    slot: str
    bars: int


@dataclass(frozen=True)
class Plan:
    """A whole piece; ``players`` gives the instrument of each role."""

    seed: int
    style: Style
    tonic: int
    minor: bool
    bpm: int
    players: dict[str, str]
    sections: tuple[SectionPlan, ...]

    @property
    def bar_s(self) -> float:
        """Seconds a bar."""
        return self.style.beats * 60.0 / self.bpm

    def times(self) -> list[tuple[float, float]]:
        """Start and end of each section in seconds."""
        spans, start = [], 0.0
        for section in self.sections:
            end = start + section.bars * self.bar_s
            spans.append((start, end))
            start = end
        return spans


def make_plan(seed: int, min_s: float, max_s: float, style: int | None = None) -> Plan:
    """Draw a plan.

    Args:
        seed: the same seed gives the same plan.
        min_s: shortest length in seconds.
        max_s: longest.
        style: number of a style of ``STYLES``; drawn where None.
    """
    rng = random.Random(f"plan {seed}")
    chosen = STYLES[style if style is not None else rng.randrange(len(STYLES))]
    bpm = rng.randint(*chosen.bpm)
    players = {"lead": rng.choice(chosen.lead), "bass": rng.choice(chosen.bass)}
    others = [name for name in chosen.chords if name != players["lead"]] or list(chosen.chords)
    players["chords"] = rng.choice(others)
    if chosen.drums:
        players["drums"] = rng.choice(chosen.drums)
    kinds = list(rng.choice(_FORMS))
    if not chosen.drums:
        swaps = {"drop": "solo", "rhythm": "quiet"}
        kinds = [swaps.get(kind, kind) for kind in kinds]
    total = rng.uniform(min_s, max_s)
    shares = [rng.uniform(0.7, 1.4) for _ in kinds]
    bar_s = chosen.beats * 60.0 / bpm
    sections = []
    for kind, share in zip(kinds, shares, strict=True):
        roles, loudness, slot = _KINDS[kind]
        bars = max(4, 2 * round(total * share / sum(shares) / bar_s / 2))
        roles = tuple(role for role in roles if role in players)
        sections.append(SectionPlan(kind, roles, loudness, slot, bars))
    return Plan(seed, chosen, rng.randrange(12), rng.random() < 0.5, bpm, players, tuple(sections))


def reorder(plan: Plan) -> Plan:
    """The same piece with its sections in another order, for models that must hear order."""
    sections = plan.sections[1:] + plan.sections[:1]
    if sections == plan.sections:
        sections = plan.sections[::-1]
    return replace(plan, sections=sections)
