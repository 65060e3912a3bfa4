"""``python -m retrieval.embed``: songs -> shards of clip embeddings (docs/embed.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrieval.errors import LongplayError
from retrieval.pipeline.options import EmbedOptions, add_options, embed_options
from retrieval.pipeline.progress import song_progress
from retrieval.pipeline.run import EmbedReport, embed_all
from retrieval.pipeline.shards import verify
from retrieval.pipeline.writer import ShardWriter

if TYPE_CHECKING:
    from retrieval.inference import LongplayModel

_EPILOG = """exit status:
  0 done; 1 done, but some files were skipped (skipped.jsonl says why); 2 an argument or a file
  cannot be used; 130 stopped with Ctrl-C: what was finished is written, and the same command
  goes on

examples:
  python -m retrieval.embed ~/Music embeddings
  python -m retrieval.embed songs.jsonl embeddings --precision auto --workers 4
  python -m retrieval.embed songs.jsonl embeddings --device cuda --precision bfloat16 --compile
  python -m retrieval.embed songs.jsonl embeddings --ray auto --encoders 4
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = build_parser().parse_args(arguments)
    try:
        report = _run(args)
        shards = verify(args.out)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print(
        f"{args.out}: {report.embedded} songs embedded, {report.same} of a known content, "
        f"{report.unchanged} there already, {len(report.skipped)} skipped; {shards} shards, all "
        "as they were written"
    )
    for path, reason in report.skipped[:10]:
        print(f"  skipped {path}: {reason}")
    if len(report.skipped) > 10:
        print(f"  ... and {len(report.skipped) - 10} more in {args.out / 'skipped.jsonl'}")
    return 1 if report.skipped else 0


def _run(args: argparse.Namespace) -> EmbedReport:
    from retrieval.checkpoint import load_model
    from retrieval.data.scan import find_songs

    options = embed_options(args)
    found = find_songs([args.songs])
    model = load_model(args.model, args.device)
    facts = run_facts(model, options)
    writer = ShardWriter(args.out, facts)
    try:
        stages: Any
        if args.ray is None:
            stages = model.pipeline(options)
        else:
            from retrieval.pipeline.on_ray import RayStages

            stages = RayStages(model, options, args.ray, args.encoders)
        try:
            with song_progress("embedding") as on_file:
                return embed_all(found, writer, stages, on_file)
        finally:
            stages.close()
    finally:
        writer.close()


def run_facts(model: LongplayModel, options: EmbedOptions) -> dict[str, Any]:
    """What a folder of embeddings keeps to: it determines the numbers."""
    from retrieval.pipeline.encode import resolved_precision

    return {
        "model": model.digest,
        "precision": resolved_precision(options.precision, model.device),
        "dim": model.dim,
        "clip_s": model.clip_s,
    }


def build_parser() -> argparse.ArgumentParser:
    """All arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.embed",
        description="Embed songs: a folder of audio files or a manifest in, shards of clip "
        "embeddings and an index out. Decoding runs in processes of its own beside the network. "
        "Each content is embedded once; a run that was stopped or killed goes on with the same "
        "command. A file that cannot be used is named and skipped.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("songs", type=Path, help="folder, audio file or .jsonl manifest")
    parser.add_argument("out", type=Path, help="folder of embeddings, made or gone on with")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint (the shipped one)")
    parser.add_argument("--device", default="cpu", help="torch device of the network (cpu)")
    add_options(parser)
    group = parser.add_argument_group("many machines (pip install longplay[scale])")
    group.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="run on a Ray cluster: an address, auto, or local for one on this machine (local). "
        "Its nodes must see the same files under the same paths",
    )
    group.add_argument("--encoders", type=int, default=1, help="processes that encode (1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
