"""Labels of songs -> targets for clips: what the encoder learns to name while it trains."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.data.manifest import Song


@dataclass(frozen=True)
class LabelKind:
    """The labels of one kind.

    Attributes:
        kind: such as ``instrument``.
        names: in rising order.
        exclusive: at any time a song has at most one, such as a key.
    """

    kind: str
    names: tuple[str, ...]
    exclusive: bool


class LabelSet:
    """The kinds and names that training knows, and how much of each is in a clip.

    Args:
        kinds: as :meth:`from_songs` finds them.
    """

    def __init__(self, kinds: Sequence[LabelKind]):
        self.kinds = tuple(kinds)
        self._column = {
            (k.kind, name): i
            for i, (k, name) in enumerate((k, name) for k in self.kinds for name in k.names)
        }

    def __len__(self) -> int:
        return len(self._column)

    @classmethod
    def from_songs(cls, songs: Sequence[Song], fewest: int = 5) -> LabelSet:
        """All labels that at least ``fewest`` songs have; kinds with one name teach nothing."""
        counts: Counter[tuple[str, str]] = Counter()
        overlapping: set[str] = set()
        for song in songs:
            counts.update({(label.kind, label.name) for label in song.labels})
            overlapping |= _overlapping_kinds(song)
        names: dict[str, list[str]] = defaultdict(list)
        for (kind, name), count in sorted(counts.items()):
            if count >= fewest:
                names[kind].append(name)
        return cls(
            [LabelKind(k, tuple(v), k not in overlapping) for k, v in names.items() if len(v) > 1]
        )

    def target(self, song: Song, clip_times: Tensor) -> Tensor:
        """How much of each clip every label holds in.

        Args:
            song: with its labels.
            clip_times: ``[clips, 2]`` in seconds.

        Returns:
            float ``[clips, labels]``, 0..1; NaN in all columns of a kind of which the song has no
            label, since nobody knows.
        """
        known = {label.kind for label in song.labels}
        unknown = [k.kind not in known for k in self.kinds for _ in k.names]
        told = [
            (column, label.start_s, label.end_s)
            for label in song.labels
            if (column := self._column.get((label.kind, label.name))) is not None
        ]
        times = clip_times.numpy()
        target = np.zeros((len(times), len(self)), dtype=np.float32)
        if told:
            columns, start_s, end_s = np.array(told).T
            end = np.minimum(times[:, 1:], end_s)
            shared = np.clip(end - np.maximum(times[:, :1], start_s), 0, None)
            length = np.clip(times[:, 1:] - times[:, :1], 1e-6, None)
            np.add.at(target.T, columns.astype(np.int64), (shared / length).T)
        target[:, unknown] = np.nan
        return torch.from_numpy(target).clamp(max=1.0)


def _overlapping_kinds(song: Song) -> set[str]:
    """Kinds of which two labels of the song hold at once."""
    by_kind = defaultdict(list)
    for label in song.labels:
        by_kind[label.kind].append((label.start_s, label.end_s))
    return {
        kind
        for kind, spans in by_kind.items()
        if any(a[1] > b[0] + 0.01 for a, b in zip(sorted(spans), sorted(spans)[1:], strict=False))
    }
