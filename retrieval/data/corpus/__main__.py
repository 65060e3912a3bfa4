"""``python -m retrieval.data.corpus``: songs with long captions and times."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from retrieval.data.corpus.pipeline import Recipe, Report, Result, make_corpus
from retrieval.data.corpus.render.synth import find_synth
from retrieval.errors import LongplayError
from retrieval.settings import check_given, make

_CONF = Path(__file__).resolve().parents[3] / "conf"
_NAMED = 10


def run(cfg: DictConfig) -> Report:
    """Make the corpus that is configured."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    check_given(cfg)
    find_synth()
    recipe = Recipe(
        out=Path(cfg.out).expanduser(),
        seed=cfg.seed,
        format=cfg.render.format,
        val=cfg.val,
        test=cfg.test,
        splits=tuple(cfg.splits),
        workers=cfg.workers,
        queries=cfg.queries,
    )
    source = make(cfg.corpus, _convert_="object")
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("making songs", total=None)

        def advance(result: Result, total: int) -> None:
            progress.update(task, total=total, advance=1)
            if result.error:
                progress.console.print(f"skipped {result.entry.name}: {result.error}", markup=False)

        return make_corpus(source, recipe, advance)


@hydra.main(version_base="1.3", config_path=str(_CONF), config_name="corpus")
def main(cfg: DictConfig) -> None:
    """Command line."""
    try:
        report = run(cfg)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(130)
    print(f"{report.manifest}: {report.songs} songs, {len(report.skipped)} skipped")
    for result in report.skipped[:_NAMED]:
        print(f"  {result.entry.name}: {result.error}")
    if len(report.skipped) > _NAMED:
        print(f"  and {len(report.skipped) - _NAMED} more, named above")


if __name__ == "__main__":
    main()
