"""Songs in two orders of their sections, each with its caption: what only order tells apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.data.augment import heard_sections, one_after_another, stands_alone
from retrieval.data.manifest import Caption
from retrieval.text import Passage

Split = Callable[[str], list[Passage]]


@dataclass(frozen=True)
class Arrangement:
    """A song's sections in one order.

    Attributes:
        clips: int64 ``[n]``, rows of the clips that a step reads, as they are heard.
        place: ``[n, 2]``, start and end of each as a fraction of all of them.
        passages: of its caption.
    """

    clips: np.ndarray
    place: np.ndarray
    passages: list[str]


@dataclass  # not frozen: Lightning moves its tensors in place
class ArrangedSongs:
    """Some songs of a step, each in two arrangements of the same clips; ``2 k`` rows, by pairs.

    Attributes:
        clips: int64 ``[2 k, clips]``, rows among the clips of the whole step.
        mask: bool ``[2 k, clips]``.
        position: int64 ``[2 k, clips]``, as in :class:`retrieval.model.SongBatch`.
        place: ``[2 k, clips, 2]``.
        texts: ``2 k`` texts.
    """

    clips: Tensor
    mask: Tensor
    position: Tensor
    place: Tensor
    texts: list[list[str]]


def draw_arrangements(
    captions: Sequence[Caption], times_s: np.ndarray, split: Split, rng: np.random.Generator
) -> tuple[Arrangement, Arrangement] | None:
    """Two orders of a song's sections; half of the time the first is the song's own.

    Both are made in the same way, so that neither the clips nor the words give the true one away.

    Args:
        captions: of the song; the first is used whose sections can stand alone.
        times_s: ``[clips, 2]``, when the clips of the step begin and end.
        split: a text's passages.
        rng: source of all randomness.

    Returns:
        None where there is no such caption, or its sections give no two different orders.
    """
    alone = [c for c in captions if stands_alone(c)]
    if not alone:
        return None
    stretches = [
        (rows, [p.text for p in split(section.text)])
        for section, rows in heard_sections(alone[0], times_s)
    ]
    if len(stretches) < 2:
        return None
    first = np.arange(len(stretches))
    if rng.random() < 0.5:
        first = rng.permutation(first)
    second = rng.permutation(first)
    pair = _arranged(stretches, first, times_s), _arranged(stretches, second, times_s)
    return None if pair[0].passages == pair[1].passages else pair


def _arranged(
    stretches: list[tuple[np.ndarray, list[str]]], order: np.ndarray, times_s: np.ndarray
) -> Arrangement:
    rows = np.concatenate([stretches[i][0] for i in order])
    times = one_after_another(times_s[rows])
    place = times / max(float(times[-1, 1]), 1e-6)
    return Arrangement(rows, place, [p for i in order for p in stretches[i][1]])


def put_together(
    pairs: Sequence[tuple[int, np.ndarray, tuple[Arrangement, Arrangement]]],
) -> ArrangedSongs:
    """Arrangements of a step as tensors.

    Args:
        pairs: of each song the row of its first clip in the step, the positions of its clips in
            the song, and its two arrangements.
    """
    rows = [(start, position, one) for start, position, pair in pairs for one in pair]
    most = max((len(one.clips) for _, _, one in rows), default=0)
    made = ArrangedSongs(
        torch.zeros(len(rows), most, dtype=torch.int64),
        torch.zeros(len(rows), most, dtype=torch.bool),
        torch.zeros(len(rows), most, dtype=torch.int64),
        torch.zeros(len(rows), most, 2),
        [one.passages for _, _, one in rows],
    )
    for i, (start, position, one) in enumerate(rows):
        n = len(one.clips)
        made.clips[i, :n] = torch.from_numpy(one.clips) + start
        made.mask[i, :n] = True
        # The k-th of them stands where the k-th of them stood.
        made.position[i, :n] = torch.from_numpy(np.sort(position[one.clips]))
        made.place[i, :n] = torch.from_numpy(one.place).float()
    return made
