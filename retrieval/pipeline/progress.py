"""A progress bar with songs an hour and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Task


@contextmanager
def song_progress(title: str, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on standard error while the context lasts; nothing where that is no terminal.

    Args:
        title: stands before the bar.
        quiet: show nothing.

    Yields:
        What to call after each file, with its path, the number done and the number in all.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class SongsAnHour(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{3600 * speed:,.0f} songs/h")

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SongsAnHour(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    # The speed is a mean over the last minutes: single songs take very different times.
    progress = Progress(
        *columns,
        console=console,
        speed_estimate_period=180,
        disable=quiet or not console.is_terminal,
    )
    with progress:
        task = progress.add_task(title, total=None)
        yield lambda path, done, total: progress.update(task, completed=done, total=total)
