"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def print_machine(*packages: str) -> None:
    """Cores, Python and the versions of packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = platform.python_version()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, {versions}")
