"""What a source of songs is, and the one that composes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from retrieval.data.corpus.arrange.recast import maybe_recast
from retrieval.data.corpus.captions.make import Texts, make_texts
from retrieval.data.corpus.compose.plan import make_plan, reorder
from retrieval.data.corpus.compose.styles import STYLES
from retrieval.data.corpus.compose.write import compose
from retrieval.data.corpus.facts import read_facts
from retrieval.data.corpus.labels import make_labels
from retrieval.data.corpus.piece import Piece
from retrieval.data.corpus.render.song import Rendering, render_piece
from retrieval.data.manifest import TWIN, Label
from retrieval.errors import ConfigError

Meta = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Entry:
    """A song to be made.

    Attributes:
        name: the song's id, unique in the corpus, usable as a file name.
        group: songs that share a theme, a MIDI file or a clip; never in two splits.
        path: the source file, or None.
        number: what else tells entries of one group apart.
        split: fixed by the source, or None to be drawn from the group.
    """

    name: str
    group: str
    path: Path | None = None
    number: int = 0
    split: str | None = None


@dataclass(frozen=True)
class Made:
    """A song that was made: its texts and what the manifest says beside them."""

    texts: Texts
    title: str
    licence: str
    meta: Meta = field(default_factory=dict)
    labels: tuple[Label, ...] = ()


class Source(Protocol):
    """Where songs come from: a small dataclass, since it is pickled to the workers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def entries(self, seed: int) -> Sequence[Entry]:
        """All songs, in a fixed order."""

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Write a song's audio.

        Raises:
            LongplayError: the source file is of no use; the song is then skipped and named.
        """


def render_and_describe(piece: Piece, rendering: Rendering, audio: Path, seed: str) -> Made:
    """The second half of every source of notes: sound, facts, texts."""
    chain = render_piece(piece, rendering, audio, seed)
    facts = replace(read_facts(piece), sound=chain.audible())
    meta: Meta = {"source": piece.source, "genre": piece.style, "group": piece.group}
    meta |= {"duration_s": round(piece.duration_s, 2), "steady": piece.steady}
    if facts.bpm:
        meta["bpm"] = round(facts.bpm, 1)
    if facts.key:
        meta["key"] = f"{facts.key[0]} {facts.key[1]}"
    if piece.metre:
        meta["metre"] = piece.metre
    meta |= piece.meta
    meta |= {f"render_{name}": value for name, value in chain.summary().items()}
    texts = make_texts(facts, f"{seed} {piece.name}")
    return Made(texts, piece.title or piece.name, piece.licence, meta, make_labels(facts))


@dataclass(frozen=True)
class ComposeSource:
    """Songs composed from seeds.

    Attributes:
        songs: how many themes; their twins come on top.
        rendering: how they sound.
        min_s, max_s: length in seconds.
        twins: share of songs that come a second time with their sections in another order.
        styles: names to draw from in turn; empty draws from all by chance.
        recast: share of themes that are for other players
            (:mod:`retrieval.data.corpus.arrange.recast`).
    """

    songs: int
    rendering: Rendering
    min_s: float = 60.0
    max_s: float = 300.0
    twins: float = 0.0
    styles: tuple[str, ...] = ()
    recast: float = 0.0

    def entries(self, seed: int) -> list[Entry]:
        """Themes by number, each followed by its twin where it has one."""
        if not 10 <= self.min_s <= self.max_s <= 600:
            raise ConfigError(
                f"min_s, max_s: {self.min_s}, {self.max_s}, expected 10 <= min_s <= max_s <= 600"
            )
        entries = []
        for i in range(self.songs):
            group = f"composed-{seed + i}"
            entries.append(Entry(group, group, number=seed + i))
            if (i + 1) * self.twins // 1 > i * self.twins // 1:
                entries.append(Entry(f"{group}{TWIN}", group, number=seed + i))
        return entries

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Compose, render and describe one song."""
        style = None
        if self.styles:
            by_name = {style.name: style for style in STYLES}
            name = self.styles[(entry.number - seed) % len(self.styles)]
            if name not in by_name:
                raise ConfigError(f"styles: {name!r}, expected some of {', '.join(by_name)}")
            style = by_name[name]
        plan = make_plan(entry.number, self.min_s, self.max_s, style)
        if entry.name != entry.group:
            plan = reorder(plan)
        piece = compose(plan, entry.name)
        piece = maybe_recast(piece, self.recast, entry.group)
        piece.meta.update(min_s=self.min_s, max_s=self.max_s)
        return render_and_describe(piece, self.rendering, audio, entry.name)
