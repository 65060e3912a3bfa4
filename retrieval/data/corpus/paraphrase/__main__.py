"""``python -m retrieval.data.corpus.paraphrase``: a manifest with its captions in other words."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from retrieval.data.corpus.paraphrase.captions import Paraphraser
from retrieval.data.corpus.paraphrase.writers import KEY_VARIABLE, Endpoint, LocalModel, Writer
from retrieval.data.manifest import read_manifest, write_manifest
from retrieval.errors import ConfigError, LongplayError


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        run(args)
    except LongplayError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """Paraphrase as told; every answer is kept beside the output, so that a second run goes on."""
    from rich.progress import track

    if (args.model is None) == (args.endpoint is None):
        raise ConfigError("--model, --endpoint: expected one of the two")
    songs = read_manifest(args.manifest)
    writer: Writer = (
        LocalModel(args.model) if args.model else Endpoint(args.endpoint, args.name or "default")
    )
    log: Path = args.out.with_suffix(".paraphrases.jsonl")
    paraphraser = Paraphraser(writer, args.attempts, _known(log))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as out:

        def keep(text: str, other: str) -> None:
            out.write(json.dumps({"text": text, "other": other}, ensure_ascii=False) + "\n")
            out.flush()

        paraphraser.on_text = keep
        new = [
            replace(song, captions=tuple(paraphraser.caption(c) for c in song.captions))
            for song in track(songs, "paraphrasing")
        ]
    write_manifest(new, args.out)
    total = paraphraser.changed + paraphraser.kept
    print(f"{args.out}: {paraphraser.changed} of {total} texts in other words; "
          f"{paraphraser.kept} as they were, since no answer kept their facts")  # fmt: skip


def _known(log: Path) -> dict[str, str]:
    """Answers of an earlier run; a line that was cut off by a kill is asked again."""
    known = {}
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                known[str(row["text"])] = str(row["other"])
            except (ValueError, KeyError, TypeError):
                continue
    return known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m retrieval.data.corpus.paraphrase",
        description="Say the generated captions of a manifest again in other words. A text whose "
        "numbers, instruments, keys, chords or order would change stays as it is.",
        epilog="example: python -m retrieval.data.corpus.paraphrase corpus/manifest.jsonl "
        "corpus/other-words.jsonl --model ~/models/instruct",
    )
    parser.add_argument("manifest", type=Path, help="manifest to read")
    parser.add_argument("out", type=Path, help="manifest to write")
    parser.add_argument("--model", help="folder of a causal language model (transformers)")
    parser.add_argument("--endpoint", help="OpenAI-compatible server, up to /v1; its key is read "
                        f"from {KEY_VARIABLE}")  # fmt: skip
    parser.add_argument("--name", help="name of the model at the endpoint")
    parser.add_argument("--attempts", type=int, default=3, help="answers to a text (3)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
