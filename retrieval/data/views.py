"""What a training step reads of a song's captions: passages, and where each should attend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.data.augment import one_form
from retrieval.data.manifest import Caption
from retrieval.losses import section_target
from retrieval.text import Passage

Split = Callable[[str], list[Passage]]


@dataclass(frozen=True)
class TextView:
    """One text about one song.

    Attributes:
        passages: at least one.
        target: ``[passages, clips]``, rows that sum to 1, or 0 where no time is known.
        caption: the caption that the passages come from (the first, where two were joined); None
            where they are tags.
    """

    passages: list[str]
    target: Tensor
    caption: Caption | None


def full_view(caption: Caption, split: Split, clip_times: Tensor) -> TextView:
    """A caption as it is, for evaluation."""
    passages = split(caption.text)
    spans = [(p.start, p.end) for p in passages]
    target = section_target(spans, _section_spans(caption), clip_times)
    return TextView([p.text for p in passages], target, caption)


def random_view(
    captions: Sequence[Caption],
    split: Split,
    clip_times: Tensor,
    rng: np.random.Generator,
    join: float = 0.3,
    drop: float = 0.3,
    tags: Sequence[str] = (),
) -> TextView:
    """A random text about a song: one caption or two, whole or with passages left out.

    Short queries and whole descriptions are both met in use, so both are trained, and equally
    often: a form is drawn first, then captions of it.

    Args:
        captions: of the song, at least one.
        split: a text's passages.
        clip_times: ``[clips, 2]`` of the clips in this step, in seconds.
        rng: source of all randomness.
        join: chance that a second caption follows.
        drop: chance that passages are left out.
        tags: words to make the text of instead, some of them in a random order.
    """
    if tags:
        return _tag_view(tags, split, clip_times, rng)
    captions = one_form(captions, rng)
    order = rng.permutation(len(captions))
    chosen = order[: 2 if rng.random() < join else 1]
    views = [full_view(captions[i], split, clip_times) for i in chosen]
    passages = [p for view in views for p in view.passages]
    target = torch.cat([view.target for view in views])
    if len(passages) > 1 and rng.random() < drop:
        keep = np.sort(rng.permutation(len(passages))[: rng.integers(1, len(passages))])
        passages, target = [passages[i] for i in keep], target[keep]
    return TextView(passages, target, views[0].caption)


def _tag_view(
    tags: Sequence[str], split: Split, clip_times: Tensor, rng: np.random.Generator
) -> TextView:
    chosen = rng.permutation(len(tags))[: rng.integers(1, len(tags) + 1)]
    passages = [p.text for p in split(", ".join(tags[i] for i in chosen))]
    return TextView(passages, torch.zeros(len(passages), len(clip_times)), None)


def _section_spans(caption: Caption) -> list[tuple[int, int, float, float]]:
    """Sections whose text stands in the caption, as (start, end, start_s, end_s)."""
    spans = []
    position = 0
    for section in caption.sections:
        found = caption.text.find(section.text, position)
        if found < 0:
            found = caption.text.find(section.text)
        if found >= 0:
            position = found + len(section.text)
            spans.append((found, position, section.start_s, section.end_s))
    return spans
