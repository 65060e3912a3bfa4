"""Whether a paraphrase says what its text said: numbers, instruments, keys and their order."""

from __future__ import annotations

import re
from collections import Counter

from retrieval.data.corpus.arrange.programs import PROGRAMS
from retrieval.data.corpus.instruments import INSTRUMENTS

_NUMBER = re.compile(r"\d+(?::\d+|[.,]\d+)?")
_NAMES = sorted({*INSTRUMENTS, *PROGRAMS}, key=len, reverse=True)
_INSTRUMENT = re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, _NAMES))})(?![\w-])", re.IGNORECASE)
_KEY = re.compile(r"(?:\b[A-G](?:[#b]| sharp| flat)? )?\b(?:major|minor)\b")
_CHORD = re.compile(r"(?<![\w])[A-G](?:#|b)?(?:maj|min|m|dim|sus|add|\d)[\w#]*(?![\w-])")
# What turns a statement into its opposite; as many of each as before must be there.
_TURNS = (
    ("louder", "stronger", "jump in volume", "step up"),
    ("quieter", "softer", "drop in volume", "step down"),
    ("faster", "picks up"),
    ("higher",),
    ("lower",),
)
# Entering and leaving: a paraphrase may use other words of the same row, and no other row.
_ENTERS = ("join", "come in", "comes in", "coming in", "enter", "added", "appear", "replace")
_LEAVES = (
    "drop out",
    "drops out",
    "dropping out",
    "stop",
    "leav",
    "thins out",
    "thin out",
    "without",
    "fall silent",
    "falls silent",
    "gone",
    "disappear",
    "give way",
    "gives way",
)
_LENGTHS = (0.5, 2.0)


def find_lost_facts(text: str, paraphrase: str) -> list[str]:
    """What a paraphrase changed; empty where it may be used.

    Args:
        text: one statement: the opening of a caption, or one section.
        paraphrase: the same in other words.
    """
    found = []
    if Counter(_NUMBER.findall(text)) != Counter(_NUMBER.findall(paraphrase)):
        found.append("numbers")
    if _order(_INSTRUMENT, text) != _order(_INSTRUMENT, paraphrase):
        found.append("instruments or their order")
    if _order(_KEY, text) != _order(_KEY, paraphrase):
        found.append("keys")
    if _order(_CHORD, text) != _order(_CHORD, paraphrase):
        found.append("chords")
    if any(_has(words, text) != _has(words, paraphrase) for words in _TURNS):
        found.append("louder or softer, faster, higher or lower")
    if any(_has(words, text) != _has(words, paraphrase) for words in (_ENTERS, _LEAVES)):
        found.append("who enters or leaves")
    ratio = len(paraphrase.split()) / max(len(text.split()), 1)
    if not _LENGTHS[0] <= ratio <= _LENGTHS[1]:
        found.append("length")
    return found


def _order(pattern: re.Pattern[str], text: str) -> list[str]:
    """What is named, once each, in the order of its first mention."""
    return list(dict.fromkeys(match[0].lower() for match in pattern.finditer(text)))


def _has(words: tuple[str, ...], text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in words)
