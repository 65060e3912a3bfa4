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

    The longest run at the end in which :data:`FAN` segments are of the highest class (as in
    log-structured merge trees, O'Neil 1996). A small segment before a larger one counts as one of
    the larger's class: it would wait as long, and such ones would add up.

    Args:
        sizes: songs and texts of each segment, in their order.
    """
    classes = [size_class(size) for size in sizes]
    for i in range(len(classes) - 2, -1, -1):
        classes[i] = max(classes[i], classes[i + 1])
    for most in sorted(set(classes), reverse=True):
        if classes.count(most) >= FAN:
            return classes.index(most), len(classes)
    return None
