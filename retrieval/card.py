"""``card.md``: what a checkpoint is, was trained on, and can be expected to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from retrieval.data.manifest import Song
from retrieval.gist import Gist
from retrieval.model import CoLLAP
from retrieval.naming import Naming

_NAMED = 12


def make_card(
    net: CoLLAP, name: str, songs: Sequence[Song], step: int, figure: float, init: str | None
) -> str:
    """Text of a card, from facts alone.

    Args:
        net: the model.
        name: of the run.
        songs: all songs that were trained on or validated with.
        step: optimizer steps so far.
        figure: mean recall@1, 5 and 10 of both directions on the validation set, 0..1.
        init: checkpoint that training started from.
    """
    config = net.config
    own = sum(p.numel() for p in net.parameters() if p.requires_grad)
    splits = Counter(song.split or "none" for song in songs)
    licences = Counter(song.licence or "not stated" for song in songs)
    artists = Counter(str(s.meta["artist"]) for s in songs if s.meta.get("artist"))
    lines = [
        f"# {name}",
        "",
        f"A Longplay checkpoint after {step} steps"
        + (f", started from `{init}`." if init else ", from scratch."),
        "",
        f"- audio encoder: {config.encoder['name']}; text encoder: {config.text['name']} "
        f"({config.text.get('weights', 'default')})",
        f"- score: {config.pooling}, tau {float(net.tau.detach()):.3f}; embeddings: "
        f"{config.joint_dim} numbers",
        f"- gist of whole texts: {_width(net.gist)}",
        f"- expert for what queries name: {_width(net.naming)}",
        f"- bank of long captions against hubs: {_bank(net)}",
        f"- trained parameters: {own:,}",
        f"- generator head: {'yes' if config.captioner else 'no'}",
        "- songs: " + ", ".join(f"{n} {split}" for split, n in sorted(splits.items())),
        f"- validation: mean recall@1/5/10 of both directions {100 * figure:.1f} % "
        f"in a pool of {splits.get('val', 0)} songs",
        "- licences of the audio: " + ", ".join(f"{k} ({n})" for k, n in licences.most_common()),
    ]
    if artists:
        others = f" and {len(artists) - _NAMED} others" if len(artists) > _NAMED else ""
        named = ", ".join(f"{name} ({n})" for name, n in artists.most_common(_NAMED))
        lines.append(f"- music by {named}{others}")
    return "\n".join(lines) + "\n"


def _width(expert: Gist | Naming | None) -> str:
    return f"{expert.config.dim} numbers" if expert else "none"


def _bank(net: CoLLAP) -> str:
    return f"{net.querybank.config.texts} texts" if net.querybank else "none"
