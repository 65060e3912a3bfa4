from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import TextError
from retrieval.text import split_passages, split_sentences


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A piano. Then strings! Why? It ends.", 4),
        ("a bare piano opening; halfway strings lift it; it ends alone again", 3),
        ("At 3.5 minutes Mr. Smith plays vol. 2, e.g. op. 9 by J. Field.", 1),
        ("first line\nsecond line\n\nthird", 3),
        ("静かなピアノ。弦が入る！終わり", 3),
        ("بيانو هادئ؟ ثم أوتار؛ النهاية", 3),
        ("🎹 alone… then 🎻!", 2),
    ],
)
def test_sentences(text: str, sentences: int) -> None:
    spans = split_sentences(text)
    assert len(spans) == sentences, [text[a:b] for a, b in spans]


@given(st.text(max_size=300), st.integers(1, 12))
def test_nothing_is_lost_and_limits_hold(text: str, limit: int) -> None:
    def letters(piece: str) -> int:
        return len("".join(piece.split()))

    if not text.strip():
        with pytest.raises(TextError, match="text"):
            split_passages(text, letters, limit)
        return
    passages = split_passages(text, letters, limit)
    assert all(text[p.start : p.end] == p.text for p in passages)
    assert all(1 <= letters(p.text) <= limit for p in passages)
    assert "".join("".join(p.text.split()) for p in passages) == "".join(text.split())
    assert all(a.end <= b.start for a, b in pairwise(passages))


def test_ten_thousand_words_are_read_whole() -> None:
    calls = 0

    def count(text: str) -> int:
        nonlocal calls
        calls += 1
        return words(text)

    text = " ".join(f"word{i}{'.' if i % 9 == 0 else ''}" for i in range(10_000))
    passages = split_passages(text, count, 40)
    assert sum(words(p.text) for p in passages) == 10_000
    assert calls < 3 * 1200
    one = split_passages(text.replace(".", ""), words, 40)
    assert sum(words(p.text) for p in one) == 10_000


def test_sentences_are_packed_and_not_cut() -> None:
    passages = split_passages("One two three. Four five. Six seven eight nine.", words, 5)
    assert [p.text for p in passages] == ["One two three. Four five.", "Six seven eight nine."]
