"""Forms: the order of sections, with the theme, the energy and the length of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FormSection:
    """A section of a form.

    Attributes:
        function: as captions say it.
        theme: sections with the same letter return to the same material.
        energy: 0 (bare) to 1 (everything).
        weight: length against the other sections.
        marks: see :class:`retrieval.data.corpus.piece.PieceSection`; here also ``break``, where
            the rhythm section rests.
    """

    function: str
    theme: str
    energy: float
    weight: float = 1.0
    marks: tuple[str, ...] = ()


def _form(text: str) -> tuple[FormSection, ...]:
    """Read ``function:theme:energy:weight[:mark+mark]`` for every section."""
    sections = []
    for word in text.split("|"):
        function, theme, energy, weight, *marks = word.strip().split(":")
        marked = tuple(marks[0].split("+")) if marks else ()
        sections.append(FormSection(function, theme, float(energy), float(weight), marked))
    return tuple(sections)


FORMS: dict[str, tuple[tuple[FormSection, ...], ...]] = {
    "song": (
        _form("intro:A:.25:.6|verse:A:.45:1|chorus:B:.8:1:fill|verse:A:.5:1|chorus:B:.85:1|"
              "bridge:C:.35:.8:break|chorus:B:1:1|outro:A:.25:.6:fade-out"),
        _form("intro:B:.3:.5|verse:A:.4:1|pre-chorus:C:.6:.5:build|chorus:B:.9:1|verse:A:.5:1|"
              "pre-chorus:C:.65:.5:build|chorus:B:1:1|outro:B:.4:.6"),
        _form("verse:A:.35:1|chorus:B:.7:1|verse:A:.5:1:fill|chorus:B:.9:1|solo:A:.75:1|"
              "chorus:B:1:1|outro:B:.3:.6:fade-out"),
        _form("intro:A:.2:.6|verse:A:.4:1|verse:A:.55:1:fill|chorus:B:.9:1|bridge:C:.4:.8|"
              "chorus:B:1:1.2:fade-out"),
        _form("intro:A:.6:.5|verse:A:.4:1:fill|chorus:B:.9:1|breakdown:C:.2:.8|chorus:B:1:1|"
              "outro:A:.5:.5"),
    ),
    "dance": (
        _form("intro:A:.3:1|build-up:A:.55:.7:build|drop:B:1:1.2|breakdown:C:.2:1|"
              "build-up:A:.55:.7:build|drop:B:1:1.2|outro:A:.3:1"),
        _form("intro:A:.35:1|groove:A:.65:1.2|breakdown:B:.2:1:build|drop:B:.95:1.4|outro:A:.3:.8"),
        _form("intro:B:.2:1|groove:A:.6:1|drop:B:.9:1:fill|breakdown:C:.25:1:build|drop:B:1:1.2|"
              "outro:C:.35:.8:fade-out"),
    ),
    "jazz": (
        _form("intro:A:.3:.5|theme:A:.55:1|theme:A:.6:1|bridge:B:.5:1|theme:A:.65:1|solo:A:.8:1.5|"
              "theme:A:.6:1|ending:A:.35:.5"),
        _form("theme:A:.5:1|bridge:B:.65:1|theme:A:.6:1|solo:A:.8:1.5:fill|solo:B:.4:1:break|"
              "theme:A:.7:1|ending:A:.3:.5"),
    ),
    "blues": (
        _form("intro:A:.35:.4|theme:A:.55:1|theme:A:.6:1|solo:A:.85:1:fill|break:A:.3:.6:break|"
              "theme:A:.8:1|ending:A:.4:.4"),
        _form("theme:A:.45:1|theme:A:.6:1:fill|solo:A:.8:1|solo:A:.95:1|theme:A:.5:1:fade-out"),
    ),
    "score": (
        _form("opening:A:.15:1|theme:A:.4:1|development:B:.6:1|build-up:C:.7:.6:build|"
              "climax:A:1:1|ending:A:.2:.8:slows down"),
        _form("opening:C:.2:.8|theme:A:.45:1|contrast:B:.3:1|theme:A:.6:1|climax:B:1:1|"
              "ending:C:.15:.8"),
        _form("opening:A:.5:.8|theme:A:.7:1|calm:B:.2:1|build-up:B:.6:.7:build|climax:A:1:1.2|"
              "ending:A:.6:.5"),
    ),
    "flow": (
        _form("opening:A:.1:1|first layer:A:.3:1|full texture:B:.6:1.2|thinning:A:.3:1|"
              "ending:A:.1:.8:fade-out"),
        _form("opening:A:.2:1|drift:B:.4:1|swell:A:.75:1|stillness:C:.1:.8|return:A:.5:1:fade-out"),
        _form("opening:B:.15:1|drift:A:.35:1|contrast:C:.5:1|return:A:.3:1|ending:B:.1:.8"),
    ),
    "parts": (
        _form("first part:A:.5:1|first part, repeated:A:.6:1|second part:B:.7:1|"
              "second part, repeated:B:.8:1|coda:A:.4:.5:slows down"),
        _form("theme:A:.4:1|episode:B:.6:1|theme:A:.55:1|episode:C:.35:1|theme:A:.8:1|coda:A:.5:.5"),
        _form("introduction:A:.25:.5|first strain:A:.6:1|second strain:B:.75:1|trio:C:.35:1|"
              "second strain:B:.95:1|coda:B:.8:.5"),
        _form("opening:A:.3:.6|tune:A:.5:1|tune:A:.65:1|second tune:B:.6:1|tune:A:.9:1|"
              "ending:A:.3:.5:slows down"),
    ),
    "loop": (
        _form("intro:A:.25:.6|groove:A:.6:1.2|groove:B:.75:1.2|break:A:.3:.6:break|groove:B:.9:1.2|"
              "outro:A:.3:.6:fade-out"),
        _form("intro:B:.3:.6|verse:A:.55:1|hook:B:.85:1|verse:A:.6:1|hook:B:.9:1|break:C:.25:.6|"
              "hook:B:1:1|outro:A:.35:.6"),
    ),
}  # fmt: skip
