"""Full-text search over what is written about songs: SQLite's FTS5, in memory."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence

from retrieval.errors import SearchError

_WORD = re.compile(r"\w+")
#: Titles weigh most, then tags, then captions, which are long.
_WEIGHTS = (8.0, 4.0, 1.0)
#: Constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009).
RRF_K = 60


class Keywords:
    """Titles, tags and captions of songs.

    Args:
        songs: id, title, tags and captions of each, as plain texts.
    """

    def __init__(self, songs: Iterable[tuple[int, str, str, str]]):
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            self._db.execute(
                "CREATE VIRTUAL TABLE words USING fts5(title, tags, captions, "
                "tokenize='porter unicode61 remove_diacritics 2')"
            )
        except sqlite3.OperationalError as error:
            raise SearchError(
                f"keywords: this Python's SQLite has no FTS5 ({error}); search without them"
            ) from error
        self._db.executemany(
            "INSERT INTO words(rowid, title, tags, captions) VALUES (?, ?, ?, ?)", songs
        )

    def search(self, text: str, *, every: bool = True) -> list[tuple[int, float]]:
        """Songs in which words of a text stand, by BM25, best first.

        Args:
            text: words in any order, upper and lower case alike, by their stems; signs count as
                spaces, so that nothing in it is read as a query language.
            every: whether all words must stand there, or any.

        Returns:
            Ids and scores, higher is better; equal ones by rising id.

        Raises:
            SearchError: there is no word in the text.
        """
        words = _WORD.findall(text)
        if not words:
            raise SearchError(f"keywords: got {text!r}, expected at least one word")
        query = (" AND " if every else " OR ").join(f'"{word}"' for word in dict.fromkeys(words))
        marks = ", ".join(map(str, _WEIGHTS))
        found = self._db.execute(
            f"SELECT rowid, -bm25(words, {marks}) FROM words WHERE words MATCH ? "
            "ORDER BY 2 DESC, rowid",
            (query,),
        )
        return [(int(id), float(score)) for id, score in found]


def fuse_ranks(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Reciprocal rank fusion: ``sum over rankings of 1 / (60 + rank)``, ranks from 1.

    Args:
        rankings: ids, best first; an id may be missing in some of them.

    Returns:
        Ids and fused scores, best first; equal ones by rising id.
    """
    total: dict[int, float] = {}
    for ranking in rankings:
        for rank, id in enumerate(ranking, start=1):
            total[id] = total.get(id, 0.0) + 1 / (RRF_K + rank)
    return sorted(total.items(), key=lambda pair: (-pair[1], pair[0]))
