"""What ``evaluate.py`` can measure, one suite a file; ``suite=NAME`` chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from retrieval.suites.common import Outcome, Settings, Task
from retrieval.suites.fusion import measure_fusion
from retrieval.suites.length import measure_length
from retrieval.suites.moments import measure_moments
from retrieval.suites.order import measure_order
from retrieval.suites.retrieval import measure_retrieval
from retrieval.suites.robustness import measure_robustness

Suite = Callable[[Sequence[Task], Settings], Outcome]

SUITES: dict[str, Suite] = {
    "retrieval": measure_retrieval,
    "fusion": measure_fusion,
    "length": measure_length,
    "order": measure_order,
    "moments": measure_moments,
    "robustness": measure_robustness,
}

__all__ = ["SUITES", "Outcome", "Settings", "Suite", "Task"]
