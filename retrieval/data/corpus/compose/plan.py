"""A seed -> the plan of a song: style, key, metre, tempo, players, and sections with who plays."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from retrieval.data.corpus.compose.forms import FORMS, FormSection
from retrieval.data.corpus.compose.metre import METRES, Metre
from retrieval.data.corpus.compose.styles import STYLES, Style

#: Players of a song, in the order in which captions name them.
ROLES = ("lead", "counter", "chords", "pad", "bass", "drums")
_MIN_SECTION_S = 7.5
_KEY_CHANGE = 0.15
_TEMPO_CHANGE = 0.35
# In which order players join as the energy rises, by what a section is for.
_JOINING: dict[str, tuple[str, ...]] = {
    "melody": ("lead", "chords", "bass", "drums", "pad", "counter"),
    "rhythm": ("drums", "bass", "chords", "lead", "counter", "pad"),
    "calm": ("pad", "chords", "lead", "counter", "bass"),
    "solo": ("counter", "chords", "bass", "drums", "pad"),
}
_KINDS = {
    **dict.fromkeys(("groove", "drop", "hook", "build-up"), "rhythm"),
    **dict.fromkeys(("breakdown", "stillness", "calm", "thinning"), "calm"),
    "solo": "solo",
}


@dataclass(frozen=True)
class SectionPlan:
    """A section: what it is for, who plays, how loud, and where (unit: quarter notes)."""

    function: str
    theme: str
    energy: float
    start: float
    bars: int
    roles: tuple[str, ...]
    tonic: int
    bpm: float
    marks: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """Everything about a song that is decided before its notes."""

    seed: int
    style: Style
    metre: Metre
    tonic: int
    minor: bool
    players: dict[str, str]
    sections: tuple[SectionPlan, ...]

    @property
    def mode(self) -> str:
        """``major`` or ``minor``."""
        return "minor" if self.minor else "major"

    @property
    def steady(self) -> bool:
        """One tempo throughout."""
        slows = any("slows down" in section.marks for section in self.sections)
        return not slows and len({section.bpm for section in self.sections}) == 1


def make_plan(
    seed: int, min_s: float = 60.0, max_s: float = 300.0, style: Style | None = None
) -> Plan:
    """Draw a plan.

    Args:
        seed: the same seed gives the same plan.
        min_s: shortest length in seconds, kept to within a few bars.
        max_s: longest length in seconds.
        style: one of :data:`STYLES`, or None to draw one.
    """
    rng = random.Random(f"plan {seed}")
    drawn = rng.choice(STYLES)
    style = style or drawn
    metre = METRES[rng.choice(style.metres)]
    bpm = rng.randint(*style.bpm)
    minor = rng.random() < 0.5
    tonic = rng.randrange(12)
    players = draw_players(style, rng)
    form = rng.choice(FORMS[style.forms])
    roles = cast_players(form, players, rng)
    bars = _bars(form, metre, bpm, rng.uniform(min_s, max_s))
    tempos = _tempos(form, style, bpm, rng)
    shift_from = _key_change(form, style, rng)
    sections, start = [], 0.0
    for number, part in enumerate(form):
        key = (tonic + 2) % 12 if shift_from is not None and number >= shift_from else tonic
        section = SectionPlan(
            part.function, part.theme, part.energy, start, bars[number], roles[number], key,
            tempos[number], _marks(part, style, roles[number]),
        )  # fmt: skip
        sections.append(section)
        start += section.bars * metre.bar
    return Plan(seed, style, metre, tonic, minor, players, tuple(sections))


def reorder(plan: Plan) -> Plan:
    """The same song with its middle sections in another order: same notes, other story."""
    middle = list(plan.sections[1:-1])
    random.Random(f"order {plan.seed}").shuffle(middle)
    if middle == list(plan.sections[1:-1]):
        middle = middle[::-1]
    sections, start = [], 0.0
    for section in (plan.sections[0], *middle, plan.sections[-1]):
        sections.append(replace(section, start=start))
        start += section.bars * plan.metre.bar
    return replace(plan, sections=tuple(sections))


def draw_players(style: Style, rng: random.Random) -> dict[str, str]:
    """Draw one instrument a role, no instrument twice."""
    players: dict[str, str] = {}
    for role in ROLES:
        options = [n for n in getattr(style, role) if n not in players.values()]
        optional = role in ("counter", "pad")
        if options and not (optional and rng.random() < 0.3):
            players[role] = rng.choice(options)
    return players


def cast_players(
    form: tuple[FormSection, ...], players: dict[str, str], rng: random.Random
) -> list[tuple[str, ...]]:
    """Who plays in each section; neighbours always differ."""
    cast: list[tuple[str, ...]] = []
    opening = rng.choice(["melody", "rhythm", "calm", "calm"])
    for number, part in enumerate(form):
        kind = _KINDS.get(part.function, "melody")
        if number == 0 and part.energy < 0.5:
            kind = opening
        if "break" in part.marks or (part.energy < 0.3 and number):
            kind = "calm" if kind != "solo" else kind
        order = [role for role in _JOINING[kind] if role in players]
        wanted = max(1, min(round(0.6 + part.energy * len(players)), len(order)))
        roles = set(order[:wanted])
        if cast and roles == set(cast[-1]):
            roles = _vary(roles, order, rng)
        cast.append(tuple(role for role in ROLES if role in roles))
    return cast


def _vary(roles: set[str], order: list[str], rng: random.Random) -> set[str]:
    unused = [role for role in order if role not in roles]
    if unused:
        return roles | {unused[0]}
    spare = [role for role in order[1:] if role in roles]
    return roles - {rng.choice(spare)} if spare else roles


def _bars(form: tuple[FormSection, ...], metre: Metre, bpm: int, total_s: float) -> list[int]:
    bar_s = metre.bar / metre.pulse * 60 / bpm
    weight = sum(part.weight for part in form)
    bars = []
    for part in form:
        wanted = total_s * part.weight / weight / bar_s
        step = 4 if wanted >= 6 else 2
        count = max(step, step * round(wanted / step))
        while count * bar_s < _MIN_SECTION_S:
            count += 2
        bars.append(count)
    return bars


def _tempos(
    form: tuple[FormSection, ...], style: Style, bpm: int, rng: random.Random
) -> list[float]:
    tempos = [float(bpm)] * len(form)
    changes = rng.random() < _TEMPO_CHANGE
    if not style.free or not changes:
        return tempos
    calmest = min(range(1, len(form)), key=lambda i: form[i].energy)
    factor = rng.choice((0.75, 0.8, 1.25, 1.33))
    tempos[calmest] = float(round(bpm * factor))
    return tempos


def _key_change(form: tuple[FormSection, ...], style: Style, rng: random.Random) -> int | None:
    """From which section the music stands a whole tone higher."""
    if style.forms not in ("song", "parts", "score") or rng.random() >= _KEY_CHANGE:
        return None
    loudest = max(range(len(form)), key=lambda i: (form[i].energy, i))
    return loudest if loudest > 1 else None


def _marks(part: FormSection, style: Style, roles: tuple[str, ...]) -> frozenset[str]:
    marks = set(part.marks) - {"break"}
    if "drums" not in roles:
        marks -= {"fill"}
    if not style.free:
        marks -= {"slows down"}
    return frozenset(marks)
