"""Texts -> passages: whole sentences packed up to a limit, nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from retrieval.errors import TextError

# Ends of sentences. Latin ones count only before a space, so that 3.5 and example.com stay whole;
# the full-width, Arabic and Devanagari ones need none.
_END = re.compile(r"""[.!?…;]+["'”’)\]]*(?=\s|$)|[。！？；؟؛۔।॥]+["'”’)\]」』]*|\n+""")  # noqa: RUF001
_ABBREVIATIONS = frozenset(
    "mr mrs ms dr st vs vol op nr feat ft approx ca cf e.g i.e etc b.p.m".split()
)
_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True)
class Passage:
    """A piece of a text: ``text`` is ``original[start:end]``."""

    text: str
    start: int
    end: int


def split_sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences, without the space around them; ``;`` and line ends divide too."""
    spans = []
    start = 0
    for match in _END.finditer(text):
        if _is_abbreviation(text, match):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    trimmed = (_trim(text, begin, end) for begin, end in spans)
    return [(begin, end) for begin, end in trimmed if begin < end]


def split_passages(text: str, count_tokens: Callable[[str], int], max_tokens: int) -> list[Passage]:
    """Pack sentences into passages.

    Args:
        text: any text.
        count_tokens: length of a text for the text tower.
        max_tokens: longest passage, at least 1.

    Returns:
        Passages in order, each of at most ``max_tokens``. A sentence is divided only where it
        alone is longer, then between words; a word only where it alone is longer. Every
        character that is no space lies in exactly one passage.

    Raises:
        TextError: the text is empty or only space, or one character is over the limit.
    """
    if not text.strip():
        raise TextError(f"text: got {text[:20]!r}, expected words to search for")
    pieces: list[tuple[int, int, int]] = []
    for start, end in split_sentences(text):
        size = count_tokens(text[start:end])
        if size <= max_tokens:
            pieces.append((start, end, size))
        else:
            pieces += _divide(text, start, end, count_tokens, max_tokens)
    return _pack(text, pieces, count_tokens, max_tokens)


def _pack(
    text: str,
    pieces: list[tuple[int, int, int]],
    count_tokens: Callable[[str], int],
    max_tokens: int,
) -> list[Passage]:
    """Join neighbouring pieces while they fit."""
    spans: list[tuple[int, int]] = []
    room = 0
    for start, end, size in pieces:
        # The sum of the parts is only an estimate of the whole, so the whole is counted.
        fits = spans and size <= room and count_tokens(text[spans[-1][0] : end]) <= max_tokens
        if fits:
            spans[-1] = (spans[-1][0], end)
            room -= size
        else:
            spans.append((start, end))
            room = max_tokens - size
    return [Passage(text[start:end], start, end) for start, end in spans]


def _divide(
    text: str, start: int, end: int, count_tokens: Callable[[str], int], max_tokens: int
) -> list[tuple[int, int, int]]:
    """A sentence that is too long -> words, and words that are too long -> halves."""
    pieces = []
    for match in _WORD.finditer(text, start, end):
        begin, stop = _trim(text, match.start(), match.end())
        pieces += _halve(text, begin, stop, count_tokens, max_tokens)
    return pieces


def _halve(
    text: str, start: int, end: int, count_tokens: Callable[[str], int], max_tokens: int
) -> list[tuple[int, int, int]]:
    size = count_tokens(text[start:end])
    if size <= max_tokens:
        return [(start, end, size)]
    if end - start == 1:
        raise TextError(
            f"text: the character {text[start:end]!r} alone is {size} tokens, expected at most "
            f"{max_tokens}"
        )
    middle = (start + end) // 2
    left = _halve(text, start, middle, count_tokens, max_tokens)
    return left + _halve(text, middle, end, count_tokens, max_tokens)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _is_abbreviation(text: str, match: re.Match[str]) -> bool:
    """Whether a full stop belongs to the word before it: ``Mr.``, ``e.g.``, ``J.``."""
    if match[0] != ".":
        return False
    before = re.search(r"[\w.]+$", text[max(match.start() - 12, 0) : match.start()])
    if before is None:
        return False
    word = before[0].lower()
    single_letter = len(word) == 1 and word.isalpha() and before[0].isupper()
    return word in _ABBREVIATIONS or single_letter
