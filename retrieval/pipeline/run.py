"""Songs -> a folder of embeddings, each content once, going on where an earlier run stopped."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from retrieval.audio import file_sha256
from retrieval.data.scan import Found
from retrieval.embedder import SongEmbedding
from retrieval.errors import AudioError, NotAudioError
from retrieval.pipeline.shards import SongRow
from retrieval.pipeline.writer import ShardWriter

#: A shard is written after this many songs or seconds, whichever comes first.
SHARD_SONGS, SHARD_S = 64, 30.0


@dataclass
class EmbedReport:
    """How many files were embedded, were of a known content, or were there already; and the bad."""

    embedded: int = 0
    same: int = 0
    unchanged: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """A file before it is embedded.

    Attributes:
        path: the file.
        row: its line of the index so far; None where it needs none.
        embed: whether its content must be embedded.
        skipped: why it cannot be used.
    """

    path: Path
    row: SongRow | None = None
    embed: bool = False
    skipped: AudioError | None = None


class Stages(Protocol):
    """What embeds: processes of this machine, or a Ray cluster."""

    def embed(
        self, items: Iterable[Plan], path_of: Callable[[Plan], Path | None]
    ) -> Iterator[tuple[Plan, SongEmbedding | AudioError | None]]:
        """Every item once, in any order; see :meth:`retrieval.pipeline.stream.Pipeline.embed`."""


def embed_all(
    found: Sequence[Found],
    writer: ShardWriter,
    stages: Stages,
    on_file: Callable[[str, int, int], None] = lambda path, done, total: None,
) -> EmbedReport:
    """Embed files into a folder; what is finished is written even where something stops the rest.

    Args:
        found: the files. One that is in the folder unchanged is passed over.
        writer: of the folder.
        stages: embeds.
        on_file: called with path, number done and number in all, after each file.
    """
    report = EmbedReport()
    same: list[Plan] = []
    since = time.monotonic()
    plans = _plans(found, writer)
    try:
        outcomes = stages.embed(plans, lambda plan: plan.path if plan.embed else None)
        for number, (plan, outcome) in enumerate(outcomes, start=1):
            outcome = outcome or plan.skipped
            if isinstance(outcome, AudioError):
                reason = f"{type(outcome).__name__}: {outcome}"
                report.skipped.append((str(plan.path), reason))
            elif plan.row is None:
                report.unchanged += 1
            elif outcome is None:
                same.append(plan)
            else:
                report.embedded += writer.add(plan.row, outcome)
            if len(writer) >= SHARD_SONGS or time.monotonic() - since > SHARD_S:
                writer.commit()
                since = time.monotonic()
            on_file(str(plan.path), number, len(found))
    finally:
        # Only now is it known whether the files whose content these share could be used.
        for plan in same:
            _take_same(plan, writer, report)
        writer.skipped = report.skipped
        writer.commit()
    return report


def _take_same(plan: Plan, writer: ShardWriter, report: EmbedReport) -> None:
    assert plan.row is not None
    if plan.row.sha256 in writer.by_content:
        writer.add_same(plan.row)
        report.same += 1
    else:
        report.skipped.append((str(plan.path), "has the content of a file that was skipped"))


def _plans(found: Sequence[Found], writer: ShardWriter) -> Iterator[Plan]:
    coming: set[str] = set()
    for item in found:
        path = str(item.path)
        try:
            facts = item.path.stat()
            if not stat.S_ISREG(facts.st_mode):
                raise NotAudioError(f"{path}: is no regular file, expected an audio file")
            known = writer.by_path.get(path)
            if known and known.unchanged(facts.st_size, facts.st_mtime_ns):
                yield Plan(item.path)
                continue
            digest = file_sha256(item.path)
        except OSError as error:
            reason = NotAudioError(f"{path}: cannot be read ({error.strerror})")
            yield Plan(item.path, skipped=reason)
        except AudioError as error:
            yield Plan(item.path, skipped=error)
        else:
            name = item.song.id if item.song else path
            row = SongRow(name, path, facts.st_size, facts.st_mtime_ns, digest)
            new = digest not in coming and digest not in writer.by_content
            coming.add(digest)
            yield Plan(item.path, row, embed=new)
