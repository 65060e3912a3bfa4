"""A fourth expert: who comes in or drops out, and whether early, halfway or late.

Searches for a moment ("where the drums drop out late in the song") ask for three things at once: a
player, a direction and a place. One vector a clip holds such products badly, and training on more
of these searches did not help (docs/experiments.md). So both sides say them outright.

A song: a linear map names the players of each clip; a change is what the two clips after a border
have more, or less, than the two before it, and of the borders of each third of the song the largest
counts. A text: one regression from its words tells which players it names, another which of the
six directions and places; their product is the change that it asks for. Both are then the numbers
of the ``dim`` directions in which songs differ most, rare changes weighing more, as for tags in
:mod:`retrieval.naming`. As there the score is a sum, ``S' = S + scale * gate(text) * <asked(text),
heard(song)>``, and the gate knows by its words whether a text is about a moment. Where it stands in
the embeddings: :mod:`retrieval.beside`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from retrieval.beside import Beside, held_out, main_axes, ridge
from retrieval.errors import ConfigError
from retrieval.gist import fit_gate
from retrieval.naming import mentions, shortness

#: Where halfway begins and ends, as the corpus builder says it: shares of the song.
PLACES = (0.3, 0.6)
#: In and out, each early, halfway and late.
WAYS = 2 * (len(PLACES) + 1)
_FOLDS = 4
#: Shrinkage of the regressions from words, of which there are many.
_WORDS_SHRINK = 0.01
#: A player counts as named above; how sharply one of the ways is chosen.
_NAMED, _SHARPNESS = 0.15, 8.0


@dataclass(frozen=True)
class ChangesConfig:
    """The fourth expert.

    Attributes:
        dim: coordinates of it.
        shrink: of the regression from clips to players, for inputs of unit variance.
        rarity: share of songs up to which rarer changes weigh more.
        strength: spread of its scores, for songs it was not fitted to, in that of the attention's.
        full_passages: as for :class:`retrieval.naming.NamingConfig`.
        inputs: numbers of a clip that it reads; 0 while a model is trained, which has none yet.
        players: that it knows.
    """

    dim: int = 48
    shrink: float = 0.03
    rarity: float = 0.005
    strength: float = 0.5
    full_passages: int = 8
    inputs: int = 0
    players: int = 0

    def __post_init__(self) -> None:
        if self.dim < 1 or min(self.inputs, self.players) < 0 or self.full_passages < 2:
            raise ConfigError(
                f"changes: dim {self.dim}, inputs {self.inputs}, players {self.players}, "
                f"full_passages {self.full_passages}, expected at least 1, 0, 0 and 2"
            )
        if min(self.shrink, self.rarity, self.strength) <= 0:
            raise ConfigError(
                f"changes: shrink {self.shrink}, rarity {self.rarity}, strength {self.strength}, "
                "expected above 0"
            )


class Changes(Beside):
    """The fitted matrices.

    Args:
        config: with ``inputs`` and ``players`` above 0.
        d_word: width of the text tower's word vectors.
    """

    def __init__(self, config: ChangesConfig, d_word: int):
        super().__init__(config.dim, config.players * WAYS, config.players * WAYS)
        self.config = config
        sizes = {
            "players": (config.players, config.inputs),
            "players_bias": (config.players,),
            "who": (config.players, d_word),
            "who_bias": (config.players,),
            "way": (WAYS, d_word),
            "way_bias": (WAYS,),
            "moment": (d_word,),
            "moment_bias": (),
        }
        for name, size in sizes.items():
            self.register_buffer(name, torch.zeros(size))
        self.players: Tensor
        self.players_bias: Tensor
        self.who: Tensor
        self.who_bias: Tensor
        self.way: Tensor
        self.way_bias: Tensor
        self.moment: Tensor
        self.moment_bias: Tensor

    def of_songs(self, inputs: Tensor, clip_mask: Tensor) -> Tensor:
        """Vectors of songs, unit rows ``[songs, dim]``; see :meth:`Beside.of_songs`."""
        with torch.autocast(inputs.device.type, enabled=False):
            level = F.linear(inputs.float(), self.players, self.players_bias).clamp(0, 1)
            found = changes_of(level, clip_mask.sum(dim=1)).flatten(1)
            return F.normalize(F.linear(found, self.songs, self.songs_bias), dim=-1)

    def read(self, texts: Tensor) -> Tensor:
        """Vectors of texts, unit rows ``[texts, dim]``, from sums of their words' vectors."""
        with torch.autocast(texts.device.type, enabled=False):
            who = (F.linear(texts.float(), self.who, self.who_bias) - _NAMED).relu()
            way = F.linear(texts.float(), self.way, self.way_bias)
            way = (way * _SHARPNESS).softmax(dim=-1)
            asked = (who[:, :, None] * way[:, None, :]).flatten(1)
            return F.normalize(F.linear(asked, self.texts, self.texts_bias), dim=-1)

    def gate(self, texts: Tensor, passages: Tensor) -> Tensor:
        """How much it counts, 0 to 1, for texts of such words and so many passages."""
        with torch.autocast(texts.device.type, enabled=False):
            about = torch.sigmoid(texts.float() @ self.moment + self.moment_bias)
            return about * shortness(passages, self.config.full_passages)


def changes_of(level: Tensor, clips: Tensor) -> Tensor:
    """The largest change of each player, direction and place: ``[songs, players, WAYS]``.

    Args:
        level: ``[songs, clips, players]``, how much each plays in each clip; padding is not read.
        clips: int64 ``[songs]``, how many there are.
    """
    songs, longest, players = level.shape
    found = level.new_zeros(songs, players, 2, len(PLACES) + 1)
    if longest < 2:
        return found.flatten(2)
    border = torch.arange(1, longest, device=level.device).expand(songs, -1)
    last = (clips - 1)[:, None]

    def take(rows: Tensor) -> Tensor:
        return level.gather(1, rows[..., None].expand(-1, -1, players))

    def mean(first: Tensor, second: Tensor) -> Tensor:
        one, other = (row.clamp(min=0).minimum(last) for row in (first, second))
        return (take(one) + take(other)) / 2

    step = mean(border, border + 1) - mean(border - 1, border - 2)
    place = torch.bucketize(border / clips[:, None], level.new_tensor(PLACES), right=True)
    for way, change in enumerate((step, -step)):
        for number in range(len(PLACES) + 1):
            here = (place == number) & (border <= last)
            masked = (change * here[..., None]).amax(dim=1)
            found[:, :, way, number] = masked.clamp(min=0)
    return found.flatten(2)


@dataclass(frozen=True)
class Heard:
    """A song to be fitted to.

    Attributes:
        clips: ``[clips, n]`` of :func:`retrieval.beside.clip_inputs`.
        level: ``[clips, players]``, how much of each clip each plays.
    """

    clips: np.ndarray
    level: np.ndarray


@dataclass(frozen=True)
class Search:
    """A short text about a song.

    Attributes:
        text: as it is read.
        words: ``[d_word]``, :func:`retrieval.naming.word_inputs` of it.
        way: of :func:`way_of`, None where it is not about a moment.
    """

    text: str
    words: np.ndarray
    way: int | None


def way_of(comes_in: bool, share: float) -> int:
    """Number of a direction and a place, the latter as a share of the song."""
    return (0 if comes_in else len(PLACES) + 1) + int(np.searchsorted(PLACES, share, side="right"))


def fit_changes(
    songs: Sequence[Heard], searches: Sequence[Search], names: Sequence[str], config: ChangesConfig
) -> tuple[dict[str, np.ndarray], np.ndarray] | None:
    """Regressions from clips to players and from words to players, ways and whether any is asked.

    Args:
        songs: whose players are known.
        searches: of any songs, some about moments.
        names: of the players, as texts have them.
        config: width, shrinkage and what rare changes weigh.

    Returns:
        The buffers of :class:`Changes`, and the vectors of the songs by what was fitted without
        them, ``[songs, dim]``; None where no search is about a moment, or none names a player.
    """
    words = np.array([search.words for search in searches], np.float64)
    about = np.array([search.way is not None for search in searches], bool)
    named = mentions([search.text for search in searches], names).astype(np.float64)
    if not about.any() or not named[about].any():
        return None
    counts = np.array([len(song.clips) for song in songs])
    song_of = np.repeat(np.arange(len(songs)), counts)
    clips = np.concatenate([song.clips for song in songs]).astype(np.float64)
    level = np.concatenate([song.level for song in songs]).astype(np.float64)
    every = np.ones(len(clips))
    players, players_bias, mean = ridge(clips, level, every, config.shrink)
    left_out = held_out(clips, level, every, config.shrink, _FOLDS, song_of) + mean
    heard, true = (_changes(rows, counts) for rows in (left_out, level))
    weight = ((true > 0.5).mean(axis=0) + config.rarity) ** -0.5
    middle = heard.mean(axis=0)
    rows = (heard - middle) * weight
    axes = main_axes(rows, config.dim)
    ways = np.eye(WAYS)[[search.way for search in searches if search.way is not None]]
    who, who_bias, _ = ridge(words, named, np.ones(len(words)), _WORDS_SHRINK)
    way, way_bias, _ = ridge(words[about], ways, np.ones(len(ways)), _WORDS_SHRINK)
    moment, moment_bias = fit_gate(words[about], words[~about])
    own = axes * weight
    found = {
        "players": players, "players_bias": players_bias, "songs": own,
        "songs_bias": -own @ middle, "texts": own, "texts_bias": np.zeros(len(own)),
        "who": who, "who_bias": who_bias, "way": way, "way_bias": way_bias, "moment": moment,
        "moment_bias": np.array(moment_bias),
    }  # fmt: skip
    return found, rows @ axes.T


def _changes(level: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """:func:`changes_of` for clips of all songs one after another: ``[songs, players * WAYS]``."""
    padded = torch.zeros(len(counts), int(counts.max()), level.shape[1], dtype=torch.float64)
    mask = torch.arange(padded.shape[1]) < torch.from_numpy(counts)[:, None]
    padded[mask] = torch.from_numpy(level).clamp(0, 1)
    return changes_of(padded, torch.from_numpy(counts)).flatten(1).numpy()
