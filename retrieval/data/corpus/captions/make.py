"""All texts about one song."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.data.corpus.captions.long import long_caption
from retrieval.data.corpus.captions.negatives import with_negatives
from retrieval.data.corpus.captions.short import queries, short_captions, tags, timed_caption
from retrieval.data.corpus.facts import SongFacts
from retrieval.data.manifest import Caption

SHORTS, QUERIES, MOST_QUERIES = 1, 6, 40
_SPARES = 6


@dataclass(frozen=True)
class Texts:
    """What is written about a song.

    Attributes:
        fixed: the long and the timed caption, with their negatives.
        shorts, queries: more than a manifest takes, so that no text is used for two songs.
        tags: without order or weight.
    """

    fixed: tuple[Caption, ...]
    shorts: tuple[Caption, ...]
    queries: tuple[Caption, ...]
    tags: tuple[str, ...]


def make_texts(facts: SongFacts, seed: str) -> Texts:
    """Write a song's texts; the same facts and seed give the same words."""
    return Texts(
        (with_negatives(facts, seed, long_caption), with_negatives(facts, seed, timed_caption)),
        tuple(short_captions(facts, seed, SHORTS + _SPARES)),
        tuple(queries(facts, seed, MOST_QUERIES + _SPARES)),
        tags(facts),
    )
