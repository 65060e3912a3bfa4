"""Which segments to join: few segments to search, and few bytes written again."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Neighbours of one size class that are joined. A song is written again about once a class, so
#: log_8(n / 16) times in a library of n songs that were added 16 at a time.
FAN = 8
_SMALLEST = 16


def size_class(size: int) -> int:
    """0 up to 16 songs and texts, then one more for each factor of :data:`FAN`."""
    return max(math.ceil(math.log(max(size, 1) / _SMALLEST, FAN) - 1e-9), 0)


def due_run(sizes: Sequence[int]) -> tuple[int, int] | None:
    """The segments to join now, ``first, last``, or None.

    The longest run at the end in which no segment is of a higher class than some class that
    :data:`FAN` of them have (as in log-structured merge trees, O'Neil 1996).

    Args:
        sizes: songs and texts of each segment, in their order.
    """
    classes = [size_class(size) for size in sizes]
    for most in sorted(set(classes), reverse=True):
        first = len(classes)
        while first and classes[first - 1] <= most:
            first -= 1
        if len(classes) - first >= FAN and classes[first:].count(most) >= FAN:
            return first, len(classes)
    return None
