"""The demo pieces that ship with the package."""

from __future__ import annotations

from pathlib import Path


def demo_manifest() -> Path:
    """Manifest of the 16 demo pieces (conf/corpus/demo.yaml, CC0)."""
    return Path(__file__).resolve().parent / "demo" / "manifest.jsonl"
