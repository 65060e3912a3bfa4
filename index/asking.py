"""What a library can be asked: the half of :class:`index.library.Library` that ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from index.exact import pair_score
from index.hits import Hit, Hits, TextHit
from index.keywords import fuse_ranks
from index.moments import find_moments
from index.query import Query, QueryEmbedding, Song, embed_query
from index.records import Scalar, SongRecord
from index.search import QUICK, as_passages, search_each, search_texts
from index.snapshot import Snapshot
from index.walk import Ranking
from retrieval.embedder import Embedder
from retrieval.errors import SearchError

#: Values of the names with a colon in a ``where`` expression.
Params = Mapping[str, Scalar] | None


class Asking(ABC):
    """Questions to one state of a library."""

    @property
    @abstractmethod
    def model(self) -> Embedder:
        """What embeds the questions."""

    @property
    @abstractmethod
    def _state(self) -> Snapshot:
        """The state that is asked."""

    def search(
        self,
        query: str | Query,
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        exact: str = "always",
        budget: int | None = None,
        mode: str = "auto",
        pooling: str = "attention",
        hybrid: bool = False,
    ) -> Hits:
        """Songs that fit a text of any length, or a sum of texts and songs.

        Args:
            query: what the song is like, or ``Text("slow") + 0.5 * Song("a.mp3") - Text("drums")``;
                files that are asked with are left out of the answer.
            k: most songs to return.
            where: SQL expression that songs must meet, such as ``bpm > 120`` or
                ``has(tags, :tag)``.
            params: values of the names with a colon in ``where``.
            exact: ``always``, or ``budget``: then at most ``budget`` songs are scored, best bound
                first, and the answer says whether it is proven, and if not, by how much another
                song might at most score higher. ``never`` makes no bounds: in a large library only
                the ``budget`` songs are scored whose clips are nearest in the mean, which takes
                a fraction of the time and may miss a song that fits in a single moment.
            budget: of ``exact="budget"``, 100, or ten times k where that is more; of
                ``exact="never"``, 1000, or ten times k.
            mode: how the answer is found, which does not change it: ``exact`` scores every song,
                ``certified`` bounds all and scores those that can win, ``auto`` takes the quicker.
            pooling: the model's ``attention``, or a baseline score.
            hybrid: rank by sound and by words together: the best 100 of each (10 k where that is
                more), joined by reciprocal rank fusion. ``exact`` then tells of the sound.

        Raises:
            TextError: a text is empty. AudioError: a file gives no usable sound.
            FilterError: ``where`` is not valid. SearchError: no part has a weight above 0,
            or ``exact``, ``budget`` or ``mode`` is out of range.
        """
        if not hybrid:
            return self.search_each(
                [query], k, where,
                params=params, exact=exact, budget=budget, mode=mode, pooling=pooling,
            )[0]  # fmt: skip
        words = query if isinstance(query, str) else query.words
        depth = max(100, 10 * k)
        asked, rows = self._asked(query, self._state.rows(where, params))
        (ranking,) = self._rank(
            [asked], depth, [rows], exact=exact, budget=budget, mode=mode, pooling=pooling
        )
        by_sound = self._state.song_ids[ranking.rows].tolist()
        by_words = [id for id, _ in self._by_words(words, rows, every=False)[:depth]]
        fused = fuse_ranks([by_sound, by_words])[:k]
        chosen = [self._state.row_of(id) for id, _ in fused]
        return self._answer(asked, chosen, ranking, pooling)

    def search_each(
        self,
        queries: Sequence[str | Query],
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        exact: str = "always",
        budget: int | None = None,
        mode: str = "auto",
        pooling: str = "attention",
    ) -> list[Hits]:
        """What :meth:`search` answers to each query, in less time than one by one."""
        rows = self._state.rows(where, params)
        asked = [self._asked(query, rows) for query in queries]
        rankings = self._rank(
            [query for query, _ in asked], k, [own for _, own in asked],
            exact=exact, budget=budget, mode=mode, pooling=pooling,
        )  # fmt: skip
        return [
            self._answer(query, ranking.rows.tolist(), ranking, pooling)
            for (query, _), ranking in zip(asked, rankings, strict=True)
        ]

    def find(
        self, words: str, k: int = 10, where: str | None = None, *, params: Params = None
    ) -> list[tuple[SongRecord, float]]:
        """Songs with all these words in title, tags or captions, by BM25; no model is needed.

        Returns:
            Records and scores, best first.

        Raises:
            SearchError: there is no word. FilterError: ``where`` is not valid.
        """
        state = self._state
        found = self._by_words(words, state.rows(where, params), every=True)[:k]
        return [(state.record(state.row_of(id)), score) for id, score in found]

    def similar(
        self,
        path: str | Path,
        k: int = 10,
        where: str | None = None,
        *,
        params: Params = None,
        start_s: float = 0.0,
        end_s: float = float("inf"),
    ) -> Hits:
        """Songs that sound like a file, or like a moment of it; the file itself is left out.

        Raises:
            AudioError: the file gives no usable sound. SearchError: the moment is not in it.
        """
        return self.search(Song(path, start_s, end_s), k, where, params=params)

    def texts(self, path: str | Path, k: int = 5) -> list[TextHit]:
        """Stored texts that fit a song best, the same text once.

        Raises:
            AudioError: the file gives no usable sound.
        """
        song = self.model.embed_song(path)
        ranking = search_texts(
            song.clip_emb,
            self._state.passages,
            self._state.manifest.tau,
            k,
            rows=self._state.distinct_texts,
            codes=lambda: self._state.passage_codes,
        )
        hits = []
        for row, score in zip(ranking.rows, ranking.scores, strict=True):
            record = self._state.text(int(row))
            hits.append(TextHit(record.id, record.text, float(score), record.song))
        return hits

    def _asked(self, query: str | Query, rows: np.ndarray) -> tuple[QueryEmbedding, np.ndarray]:
        """A query's embedding, and ``rows`` without the files that it asks with."""
        asked = embed_query(query, self.model)
        for content in asked.contents:
            rows = np.setdiff1d(rows, self._state.same_content(content))
        return asked, rows

    def _rank(
        self,
        asked: Sequence[QueryEmbedding],
        k: int,
        rows: Sequence[np.ndarray],
        *,
        exact: str,
        budget: int | None,
        mode: str,
        pooling: str,
    ) -> list[Ranking]:
        state = self._state
        return search_each(
            [as_passages(query.passage_emb, query.passage_weight) for query in asked],
            state.clips,
            self._state.manifest.tau,
            k,
            rows=rows,
            mode=mode,
            codes=lambda: state.clip_codes,
            budget=_budget(exact, budget, k),
            proven=exact != "never",
            pooling=pooling,
        )

    def _answer(
        self, query: QueryEmbedding, rows: Sequence[int], ranking: Ranking, pooling: str
    ) -> Hits:
        """Rows as hits, with their scores by sound and the moments in which they fit."""
        tau, state, hits = self._state.manifest.tau, self._state, []
        known = dict(zip(ranking.rows.tolist(), ranking.scores.tolist(), strict=True))
        for row in rows:
            clips, times = state.clips.rows(row), state.clip_times(row)
            moments = find_moments(query.passage_emb, clips, times, tau)
            score = known.get(row)
            if score is None:
                score = pair_score(query.passage_emb, query.passage_weight, clips, tau, pooling)
            r = state.record(row)
            hits.append(Hit(r.id, r.path, r.title, score, r.duration_s, moments))
        return Hits(hits, ranking, query.passages)

    def _by_words(self, text: str, rows: np.ndarray, *, every: bool) -> list[tuple[int, float]]:
        allowed = set(self._state.song_ids[rows].tolist())
        found = self._state.keywords.search(text, every=every)
        return [(id, score) for id, score in found if id in allowed]


def _budget(exact: str, budget: int | None, k: int) -> int | None:
    least = {"budget": 100, "never": QUICK}
    if exact in least:
        return max(least[exact], 10 * k) if budget is None else budget
    if exact != "always":
        raise SearchError(f"exact: got {exact!r}, expected always, budget or never")
    if budget is not None:
        raise SearchError(f"budget: got {budget}, which needs exact='budget' or 'never'")
    return None
