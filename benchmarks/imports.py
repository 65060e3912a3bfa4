"""``python -m benchmarks.imports``: how long importing the packages takes, beside Python alone."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time

REPEATS = 7
CASES = {
    "python alone": "pass",
    "import retrieval, index": "import retrieval, index",
    "from index import Library": "from index import Library",
    "import torch (for comparison)": "import torch",
}


def start_s(code: str) -> float:
    """Median seconds of a fresh interpreter that runs some code."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print a table: median seconds, and as multiples of Python alone."""
    print(f"Python {platform.python_version()}, {platform.machine()}, median of {REPEATS}")
    alone = None
    for name, code in CASES.items():
        seconds = start_s(code)
        alone = alone or seconds
        print(f"{name:32} {seconds:6.2f} s   {seconds / alone:5.1f} x")


if __name__ == "__main__":
    main()
