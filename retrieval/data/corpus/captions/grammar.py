"""A small grammar: ``{one|other}`` is a choice, ``<name>`` a fact; choices may nest."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from retrieval.data.corpus.instruments import INSTRUMENTS

_CHOICE = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"<(\w+)>")


def say(rng: random.Random, template: str, **facts: str) -> str:
    """Expand a template: first the choices, innermost first, then the facts."""
    while (match := _CHOICE.search(template)) is not None:
        chosen = rng.choice(match[1].split("|"))
        template = template[: match.start()] + chosen + template[match.end() :]
    text = _SLOT.sub(lambda match: facts[match[1]], template)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r" (?=[,;.])", "", text)  # where a fact is not known, its place is empty


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip().rstrip(".,;")
    return text[:1].upper() + text[1:] + "."


def join(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return names[0] if names else ""
    return ", ".join(names[:-1]) + " and " + names[-1]


def the(names: Sequence[str]) -> str:
    """The names with one article before them all."""
    return "the " + join(names)


def many(names: Sequence[str]) -> bool:
    """Whether a verb after the names is in the plural."""
    if len(names) > 1:
        return True
    instrument = INSTRUMENTS.get(names[0])
    if instrument:
        return instrument.plural
    return names[0].endswith("s") and not names[0].endswith("ss")


def verb(names: Sequence[str], word: str) -> str:
    """A verb in the third person that agrees with the names; ``be`` gives is or are."""
    if word == "be":
        return "are" if many(names) else "is"
    if many(names):
        return word
    return word + ("es" if word.endswith(("sh", "ch", "s", "x")) else "s")


def words(text: str) -> int:
    """Number of words."""
    return len(text.split())
