"""Results for people: a table, a JSON file, a plot of recall against k."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.evaluation import DIRECTIONS

if TYPE_CHECKING:
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


def print_report(results: Mapping[str, Mapping[str, Any]], console: Console | None = None) -> None:
    """Print one table for each direction; a row for each score, in percent with 95 % intervals."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = console or Console()
    for direction in DIRECTIONS:
        first = next(iter(results.values()))[direction]
        table = Table(
            title=f"{_TITLES[direction]}: {first['queries']} queries, pool of {first['pool']}",
            caption="R = recall; percent, below it the 95 % interval (bootstrap over songs); "
            "median rank, also as % of the pool",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("score", no_wrap=True)
        for name in (*_COLUMNS.values(), "median"):
            table.add_column(name, justify="right", no_wrap=True)
        for method, result in results.items():
            figures = result[direction]
            cells = [_percent(figures[name]) for name in _COLUMNS]
            table.add_row(method, *cells, _rank(figures))
        chance = [f"{100 * first['chance'][n]:.1f}" for n in _COLUMNS if n in first["chance"]]
        table.add_row("(chance)", *chance, style="dim")
        console.print(table)


def write_json(
    results: Mapping[str, Mapping[str, Any]], path: Path, context: Mapping[str, Any]
) -> None:
    """Write all figures, and what they were measured on, as one JSON object."""
    data = {"context": dict(context), "results": dict(results)}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def plot_recall(results: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw recall against k for both directions, with chance, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
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
    figure.savefig(path, dpi=150)


def _percent(figure: Mapping[str, float | None]) -> str:
    text = f"{100 * (figure['value'] or 0):.1f}"
    if figure["low"] is None or figure["high"] is None:
        return text
    return f"{text}\n\\[{100 * figure['low']:.0f}-{100 * figure['high']:.0f}]"


def _rank(figures: Mapping[str, Any]) -> str:
    rank, percent = figures["median_rank"]["value"], figures["median_rank_percent"]["value"]
    return f"{rank:.1f}\n{percent:.0f} %"
