"""Captions with positions as one line of text: ``Global text. <0 27> A piano opens. ...``."""

from __future__ import annotations

import re

from retrieval.data.augment import TIME_LABEL
from retrieval.data.manifest import Caption
from retrieval.embedder import CaptionSpan, GeneratedCaption

# Angle brackets stand nowhere else, so that a caption's own numbers and dashes are never taken
# for positions.
_SPAN = re.compile(r"<\s*(\d{1,3})\s+(\d{1,3})\s*>")


def format_caption(caption: Caption, duration_s: float) -> str:
    """A manifest caption as the generator head learns it.

    What is about the whole song comes first, then each section behind its start and end in percent
    (0-100) of the song. A caption without sections is its text.
    """
    if not caption.sections:
        return caption.text
    rest = caption.text
    parts = []
    for section in sorted(caption.sections, key=lambda s: (s.start_s, s.end_s)):
        rest = rest.replace(section.text, " ", 1)
        start = _percent(section.start_s, duration_s)
        end = max(_percent(section.end_s, duration_s), start + 1)
        parts.append(f"<{start} {end}> {section.text.strip()}")
    if caption.form == "timed":
        rest = TIME_LABEL.sub(" ", rest)
    return " ".join([" ".join(rest.split()), *parts]).strip()


def parse_caption(line: str, duration_s: float) -> GeneratedCaption:
    """Undo :func:`format_caption` on generated text; positions become seconds.

    Spans that make no sense (end before start, over 100 %) are left out, their words kept in the
    text.
    """
    pieces = _SPAN.split(line)
    spans = []
    sentences = [_tidy(pieces[0])] if pieces[0].strip() else []
    for start, end, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        words = _tidy(text)
        if not words:
            continue
        sentences.append(words)
        if int(start) < int(end) <= 100:
            scale = duration_s / 100
            spans.append(CaptionSpan(int(start) * scale, int(end) * scale, words))
    return GeneratedCaption(" ".join(sentences), spans)


def _percent(seconds: float, duration_s: float) -> int:
    return min(max(round(100 * seconds / max(duration_s, 1e-6)), 0), 99)


def _tidy(text: str) -> str:
    """No spaces before signs, capital letters at sentence starts: the tower writes neither."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" (?=[,.;:!?])", "", text)
    text = re.sub(r"(?<=\d) - (?=\d)|(?<=\w) - (?=\w)", "-", text)
    return re.sub(r"(^|[.!?] )([a-z])", lambda m: m[1] + m[2].upper(), text)
