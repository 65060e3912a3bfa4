"""What the suites share: their input, their output, texts of a kind, ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retrieval.data.cache import CachedSong
from retrieval.data.manifest import FORMS, KINDS, Caption
from retrieval.errors import ConfigError, ManifestError
from retrieval.inference import LongplayModel
from retrieval.metrics import ranked_gains
from retrieval.report import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_T = TypeVar("_T")

#: Which captions are texts: of a kind, of a form, all, or all of a song joined into one text.
CAPTIONS = ("all", "joined", *KINDS, *FORMS[1:])


@dataclass(frozen=True)
class Task:
    """A model and the pool of songs that it is asked about; several are folds of one measurement.

    Attributes:
        model: a checkpoint.
        songs: the pool, songs without captions among them.
    """

    model: LongplayModel
    songs: Sequence[CachedSong]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        captions: one of :data:`CAPTIONS`.
        poolings: scores to compare, the model's own first.
        bootstrap: resamples behind each interval.
        seed: of the resampling.
        songs: at most so many songs a task where a suite is slow, evenly spread; None for all.
        on_song: called after each song or text, for a progress bar.
    """

    captions: str = "all"
    poolings: tuple[str, ...] = ("attention",)
    bootstrap: int = 2000
    seed: int = 0
    songs: int | None = None
    on_song: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        if self.captions not in CAPTIONS:
            raise ConfigError(
                f"captions: got {self.captions!r}, expected one of {', '.join(CAPTIONS)}"
            )


@dataclass(frozen=True)
class Outcome:
    """What a suite found: tables to print, figures to keep, and a picture where one helps."""

    tables: list[Table]
    figures: dict[str, Any]
    draw: Callable[[Figure], None] | None = None


@dataclass(frozen=True)
class Text:
    """A text and the number of its song in the pool."""

    caption: Caption
    song: int


def texts_of(songs: Sequence[CachedSong], captions: str) -> list[Text]:
    """The texts of a pool.

    Args:
        songs: the pool.
        captions: one of :data:`CAPTIONS`; with ``joined``, all captions of a song as one text.

    Raises:
        ManifestError: there is none.
    """
    found: list[Text] = []
    for j, song in enumerate(songs):
        told = song.song.captions
        if captions == "joined" and told:
            joined = " ".join(c.text for c in told)
            found.append(Text(replace(told[0], text=joined, sections=(), negatives=()), j))
        else:
            found += [Text(c, j) for c in told if captions in ("all", c.kind, c.form)]
    if not found:
        raise ManifestError(f"captions={captions}: none of the songs has a caption of this kind")
    return found


def relevance_of(texts: Sequence[Text], songs: Sequence[CachedSong], captions: str) -> np.ndarray:
    """Bool ``[texts, songs]``: a text fits its own song and every song that has the same text."""
    owners: dict[str, list[int]] = {}
    for text in texts_of(songs, captions):
        owners.setdefault(text.caption.text, []).append(text.song)
    matrix = np.zeros((len(texts), len(songs)), dtype=bool)
    for i, text in enumerate(texts):
        matrix[i, owners.get(text.caption.text, [])] = True
        matrix[i, text.song] = True
    return matrix


def ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rank of the first relevant song of each text, from 1, ties at their worst: ``[texts]``."""
    return ranked_gains(scores, relevant.astype(np.int64)).argmax(axis=1) + 1


def spread(songs: Sequence[_T], most: int | None) -> list[_T]:
    """At most so many of the songs, or of whatever it is, evenly spread over their order."""
    if most is None or len(songs) <= most:
        return list(songs)
    return [songs[i] for i in np.linspace(0, len(songs) - 1, most).round().astype(int)]


def clusters(parts: Iterable[Sequence[int]]) -> np.ndarray:
    """Numbers of songs within tasks -> numbers over all tasks."""
    joined, offset = [], 0
    for part in parts:
        joined += [offset + number for number in part]
        offset += 1 + max(part, default=0)
    return np.asarray(joined)


def percent(figure: dict[str, float | None]) -> str:
    """``61.0 [52-70]``: a share in percent with its interval."""
    value = f"{100 * (figure['value'] or 0):.1f}"
    if figure["low"] is None or figure["high"] is None:
        return value
    return f"{value} \\[{100 * figure['low']:.0f}, {100 * figure['high']:.0f}]"
