"""Answers as text for a terminal, and as JSON-ready data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.adding import AddReport
    from index.hits import Hits, TextHit
    from index.records import SongRecord
    from index.repair import RepairReport
    from retrieval.embedder import GeneratedCaption


def clock(seconds: float) -> str:
    """Minutes and seconds: ``83.2`` -> ``1:23``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def hits(answer: Hits, with_moments: bool = True) -> str:
    """An answer, best first, with the stretches in which passages were heard."""
    if not answer:
        return "nothing found"
    lines = []
    for number, hit in enumerate(answer, start=1):
        name = hit.title or Path(hit.path).stem
        lines.append(
            f"{number:3d}. {hit.score:6.3f}  {name}  ({clock(hit.duration_s)}, id {hit.id})"
        )
        lines.append(f"             {hit.path}")
        for stretch in hit.stretches if with_moments else ():
            span = f"{clock(stretch.start_s)}-{clock(stretch.end_s)}"
            for moment in stretch.moments:
                words = _short(answer.passages[moment.passage])
                lines.append(f"             {span:>11}  {100 * moment.weight:3.0f} %  {words}")
                span = ""  # the same stretch as the line above
    gap = f"gap {answer.bound_gap:.4f}" if answer.bound_gap < float("inf") else "no bounds made"
    proof = "exact" if answer.exact else f"not exact, {gap}"
    lines.append(f"     {proof}; {answer.scored} songs scored")
    return "\n".join(lines)


def hits_json(answer: Hits) -> dict[str, Any]:
    """The same as JSON-ready data."""
    return {
        "exact": answer.exact,
        "bound_gap": answer.bound_gap if answer.bound_gap < float("inf") else None,
        "scored": answer.scored,
        "passages": answer.passages,
        "hits": [
            {**asdict(hit), "stretches": [asdict(one) for one in hit.stretches]} for hit in answer
        ],
    }


def texts(found: Sequence[TextHit]) -> str:
    """Stored texts, best first."""
    lines = [f"{i:3d}. {hit.score:6.3f}  {hit.text}" for i, hit in enumerate(found, start=1)]
    return "\n".join(lines) or "no texts are stored"


def found(songs: Sequence[tuple[SongRecord, float]]) -> str:
    """Songs of a search for words, best first."""
    lines = [
        f"{i:3d}. {score:6.3f}  {r.title or Path(r.path).stem}  ({clock(r.duration_s)}, id {r.id})"
        f"\n             {r.path}"
        for i, (r, score) in enumerate(songs, start=1)
    ]
    return "\n".join(lines) or "nothing found"


def caption(written: GeneratedCaption) -> str:
    """A caption, and its timed parts below."""
    spans = [f"  {clock(s.start_s):>5}-{clock(s.end_s):<5} {s.text}" for s in written.spans]
    return "\n".join([written.text, *spans])


def add_report(report: AddReport, songs: int) -> str:
    """What became of the files, skipped ones by name."""
    lines = [f"skipped {path}\n        {reason}" for path, reason in report.skipped]
    counts = [f"{len(report.added)} added"]
    for name in ("replaced", "renamed", "unchanged", "duplicates", "skipped"):
        count = len(getattr(report, name))
        if count:
            counts.append(f"{count} {name}")
    lines.append(", ".join(counts) + f"; the library has {songs} songs")
    return "\n".join(lines)


def _short(text: str, width: int = 72) -> str:
    return text if len(text) <= width else text[: width - 3].rstrip() + "..."


def repair_report(report: RepairReport) -> str:
    """What a repair dropped, in words."""
    if not report.damaged and not report.manifest:
        return "nothing is damaged"
    lines = ["the manifest was damaged; its copy was taken"] if report.manifest else []
    lines += [f"damaged: {reason}" for reason in report.damaged.values()]
    lines.append(f"dropped: {report.n_lost_songs} songs, {report.n_lost_texts} texts")
    lines += [f"  {path}" for path in report.lost_songs]
    return "\n".join([*lines, "all else is kept; add the files again to have them back"])
