"""Results for people: a table, a JSON file, a plot of recall against k."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.evaluation import DIRECTIONS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

_TITLES = {"text_to_music": "Text to music", "music_to_text": "Music to text"}
_COLUMNS = {
    "recall@1": "R@1",
    "recall@5": "R@5",
    "recall@10": "R@10",
    "mrr": "MRR",
    "map@10": "mAP@10",
    "ndcg@10": "nDCG@10",
}
#: Wider than any table: what is written to a file is not cut off.
_PIPED_WIDTH = 200


@dataclass(frozen=True)
class Table:
    """A table for people: ``rows`` of cells, the first of each its name."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]
    note: str = ""


def recall_tables(results: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """One table for each direction; a row for each score, in percent with 95 % intervals."""
    tables = []
    for direction in DIRECTIONS:
        first = next(iter(results.values()))[direction]
        rows = []
        for method, result in results.items():
            figures = result[direction]
            rows.append([method, *(_percent(figures[name]) for name in _COLUMNS), _rank(figures)])
        chance = [f"{100 * first['chance'][n]:.1f}" for n in _COLUMNS if n in first["chance"]]
        empty = [""] * (len(_COLUMNS) + 1 - len(chance))
        rows.append(["(chance)", *chance, *empty])
        tables.append(
            Table(
                f"{_TITLES[direction]}: {first['queries']} queries, pool of {first['pool']}",
                ("score", *_COLUMNS.values(), "median"),
                rows,
                "R = recall; percent, below it the 95 % interval (bootstrap over songs); "
                "median rank, also as % of the pool",
            )
        )
    return tables


def print_tables(tables: Sequence[Table], console: Console | None = None) -> None:
    """Print tables as wide as the terminal; into a file or a pipe as wide as they are."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid

    console = console or Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    for table in tables:
        grid = Grid(
            title=table.title,
            caption=table.note,
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title_justify="left",
            caption_justify="left",
        )
        for number, name in enumerate(table.columns):
            grid.add_column(name, justify="right" if number else "left", no_wrap=True)
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)


def write_json(figures: Mapping[str, Any], path: Path, context: Mapping[str, Any]) -> None:
    """Write all figures, and what they were measured on, as one JSON object."""
    data = {"context": dict(context), "results": dict(figures)}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def save_picture(draw: Callable[[Figure], None], path: Path) -> None:
    """Draw a figure and write it as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(path, dpi=150)


def draw_recall(results: Mapping[str, Mapping[str, Any]], figure: Figure) -> None:
    """Draw recall against k for both directions, with chance."""
    axes = figure.subplots(1, 2, sharey=True)
    for axis, direction in zip(axes, DIRECTIONS, strict=True):
        for number, (method, result) in enumerate(results.items()):
            curve = [100 * value for value in result[direction]["recall_curve"]]
            style = {"linewidth": 2.4} if number == 0 else {"linewidth": 1.2, "alpha": 0.85}
            axis.plot(range(1, len(curve) + 1), curve, label=method, **style)
        chance = [100 * value for value in result[direction]["chance_curve"]]
        axis.plot(range(1, len(chance) + 1), chance, color="0.5", linestyle=":", label="chance")
        figures = result[direction]
        axis.set_title(
            f"{_TITLES[direction]} ({figures['queries']} queries, pool of {figures['pool']})",
            loc="left",
            fontsize=11,
        )
        axis.set_xlabel("k")
        axis.set_xlim(1, max(len(chance), 2))
        axis.set_ylim(0, 102)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("recall@k (%)")
    axes[1].legend(frameon=False, loc="lower right")


def _percent(figure: Mapping[str, float | None]) -> str:
    text = f"{100 * (figure['value'] or 0):.1f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text}\n\\[{100 * figure['low']:.0f}-{100 * figure['high']:.0f}]"


def _rank(figures: Mapping[str, Any]) -> str:
    rank, percent = figures["median_rank"]["value"], figures["median_rank_percent"]["value"]
    return f"{rank:.1f}\n{percent:.0f} %"
