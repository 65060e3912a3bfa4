"""Captions of a manifest, each statement said again and put back in its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from retrieval.data.corpus.paraphrase.check import find_lost_facts
from retrieval.data.corpus.paraphrase.writers import Writer
from retrieval.data.manifest import Caption, Section

#: Forms that are paraphrased; timed captions keep the form that the generator head learns.
FORMS = ("long", "short", "query")


class Paraphraser:
    """Says texts again, and keeps the original where no attempt keeps its facts.

    Args:
        writer: a language model.
        attempts: how often it is asked.
        known: texts with what became of them; new ones are added.
    """

    def __init__(self, writer: Writer, attempts: int = 3, known: dict[str, str] | None = None):
        self.writer, self.attempts = writer, attempts
        self.known = {} if known is None else known
        self.kept = self.changed = 0
        self.on_text: Callable[[str, str], None] = lambda text, other: None

    def say(self, text: str) -> str:
        """The text in other words, or as it is."""
        if text not in self.known:
            self.known[text] = self._ask(text)
            self.on_text(text, self.known[text])
        self.changed += self.known[text] != text
        self.kept += self.known[text] == text
        return self.known[text]

    def _ask(self, text: str) -> str:
        for attempt in range(self.attempts):
            answer = re.sub(r"\s+", " ", self.writer.write(text, attempt)).strip().strip('"')
            if answer and not find_lost_facts(text, answer):
                return answer
        return text

    def caption(self, caption: Caption) -> Caption:
        """A caption whose opening and sections were said again one by one.

        So their order and their times stay. Its negatives are dropped: they are in the old words.
        """
        if caption.form not in FORMS or caption.kind != "generated":
            return caption
        if not caption.sections:
            return replace(caption, text=self.say(caption.text), negatives=())
        rest, parts, sections = caption.text, [], []
        for section in caption.sections:
            before, _, rest = rest.partition(section.text)
            if before.strip():
                parts.append(self.say(before.strip()))
            other = self.say(section.text)
            sections.append(Section(section.start_s, section.end_s, other))
            parts.append(other)
        if rest.strip():
            parts.append(self.say(rest.strip()))
        return replace(caption, text=" ".join(parts), sections=tuple(sections), negatives=())
