"""From embeddings to answers: the song library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.library import Library
    from index.query import Query, Song, Text

__all__ = ["Library", "Query", "Song", "Text"]

_HOME = {"Library": "library", "Query": "query", "Song": "query", "Text": "query"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that importing the package stays quick."""
    if name in _HOME:
        return getattr(import_module(f"index.{_HOME[name]}"), name)
    raise AttributeError(f"module 'index' has no attribute {name!r}")
