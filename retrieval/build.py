"""From resolved settings to a network and its songs: what train.py and evaluate.py wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from retrieval.caption_format import format_caption, parse_caption
from retrieval.captioner import CaptionerConfig
from retrieval.checkpoint import load_model
from retrieval.data.cache import CachedSong, FeatureCache, cache_songs
from retrieval.data.manifest import Song, read_manifest
from retrieval.data.text_cache import training_passages, warm_texts
from retrieval.encoders import AudioEncoder, TextEncoder, build_text_encoder
from retrieval.encoders.base import tower_owners
from retrieval.encoders.tuning import adapted_name
from retrieval.errors import AudioError, ConfigError
from retrieval.gist import GistConfig
from retrieval.model import CoLLAP, ModelConfig
from retrieval.naming import NamingConfig
from retrieval.narrow import NarrowConfig
from retrieval.querybank import QuerybankConfig


def build_net(
    settings: Mapping[str, Any],
    vocabulary: Callable[[TextEncoder], tuple[int, ...]],
    timed: bool = True,
) -> CoLLAP:
    """The network of a training run: of its settings, or of the checkpoint in ``init``.

    Args:
        settings: resolved configuration of ``train.py``.
        vocabulary: text encoder -> token ids that the generator head may write.
        timed: whether it shall write positions, where the tower's tokens can.

    Raises:
        ConfigError: a setting cannot work.
        CheckpointError: ``init`` cannot be loaded.
    """
    fusion = {**settings["fusion"]}
    gist, narrow = fusion.pop("gist", None), fusion.pop("narrow", None)
    naming, bank = fusion.pop("naming", None), fusion.pop("querybank", None)
    fusion["gist"] = GistConfig(**gist) if gist else None
    fusion["naming"] = NamingConfig(**naming) if naming else None
    fusion["querybank"] = QuerybankConfig(**bank) if bank else None
    fusion["narrow"] = NarrowConfig(**narrow) if narrow else None
    if settings["init"]:
        path = None if settings["init"] == "default" else settings["init"]
        start = load_model(path).net
        head = start.config.captioner
        if head is not None:
            timed = timed and writes_positions(start.text)
            head = replace(extend_vocabulary(head, vocabulary(start.text)), timed=timed)
        elif settings["captioner"]:
            head = _new_head(settings["captioner"], start.text, vocabulary, timed)
        encoder = _retune(start.audio, start.config.encoder, settings.get("encoder"), "encoder")
        if settings["freeze"] is not None:
            encoder["frozen"] = _may_freeze(start.audio, settings["freeze"])
        net = CoLLAP(
            replace(
                start.config,
                encoder=encoder,
                text=_retune(start.text, start.config.text, settings.get("text"), "text"),
                pooling=fusion["pooling"],
                dropout=fusion["dropout"],
                passage_reach=fusion["passage_reach"],
                captioner=head,
                gist=fusion["gist"],
                naming=fusion["naming"],
                querybank=fusion["querybank"],
                narrow=fusion["narrow"],
            )
        )
        copy_weights(start, net)
        return net
    head = None
    if settings["captioner"]:
        text = build_text_encoder(settings["text"])
        head = _new_head(settings["captioner"], text, vocabulary, timed)
    return CoLLAP(
        ModelConfig(encoder=settings["encoder"], text=settings["text"], captioner=head, **fusion)
    )


def _retune(
    part: AudioEncoder | TextEncoder,
    old: Mapping[str, Any],
    new: Mapping[str, Any] | None,
    group: str,
) -> dict[str, Any]:
    """Settings of an encoder of ``init``, with the ``tune`` of this run where it has one."""
    tune = (new or {}).get("tune")
    if tune is None or tune == old.get("tune"):
        return dict(old)
    if _tower_is_trained(part):
        raise ConfigError(
            f"{group}.tune: the tower of init was trained in another way ({group}.tune: "
            f"{old.get('tune')}), and what was trained cannot become the part that stays; expected "
            "null, which goes on as init was trained"
        )
    return {**old, "frozen": False, "tune": tune}


def _tower_is_trained(part: AudioEncoder | TextEncoder) -> bool:
    return any(not owner.frozen for _, owner in tower_owners(part))


def _may_freeze(part: AudioEncoder, freeze: bool) -> bool:
    if freeze and _tower_is_trained(part):
        raise ConfigError(
            "freeze: got true, but the tower of init was trained, and a checkpoint keeps no tower "
            "that is frozen; expected null, which goes on training it"
        )
    return freeze


def _new_head(
    settings: Mapping[str, Any],
    text: TextEncoder,
    vocabulary: Callable[[TextEncoder], tuple[int, ...]],
    timed: bool,
) -> CaptionerConfig:
    timed = timed and writes_positions(text)
    return CaptionerConfig(vocabulary=vocabulary(text), timed=timed, **settings)


def extend_vocabulary(head: CaptionerConfig, words: tuple[int, ...]) -> CaptionerConfig:
    """Put words that the head does not know behind those that it does."""
    known = set(head.vocabulary)
    return replace(head, vocabulary=head.vocabulary + tuple(w for w in words if w not in known))


def copy_weights(source: CoLLAP, target: CoLLAP) -> None:
    """Copy all weights; a generator head or words that only the target has start at random.

    Experts of whole texts, a narrow joint space and a bank are not copied: training has none, and
    makes new ones at its end.
    """
    state = target.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith(("gist.", "naming.", "narrow.", "querybank.")):
            state[name if name in state else adapted_name(name)] = value
    name = "captioner.word.weight"
    if name in source.state_dict():
        grown = target.state_dict()[name].clone()
        grown[: len(state[name])] = state[name]
        state[name] = grown
    target.load_state_dict(state)


def trained_parameters(net: CoLLAP) -> str:
    """How many numbers are trained, of how many: of the whole network and of its encoders."""
    parts = {"in all": net, "audio encoder": net.audio, "text encoder": net.text}
    counts = {
        name: (
            sum(p.numel() for p in part.parameters() if p.requires_grad),
            sum(p.numel() for p in part.parameters()),
        )
        for name, part in parts.items()
    }
    return ", ".join(f"{name} {some:,} of {all_:,}" for name, (some, all_) in counts.items())


def caption_vocabulary(songs: Iterable[Song], text: TextEncoder) -> tuple[int, ...]:
    """Rising ids of the tower's tokens in the captions of songs, and of what positions need."""
    # As positions stand in captions: some towers have tokens with the space before them.
    ids: set[int] = set(text.token_ids(" ".join(f"<{n} {n}>" for n in range(101))))
    for song in songs:
        for caption in song.captions:
            ids.update(text.token_ids(format_caption(caption, 100.0)))
    return tuple(sorted(ids - {text.unknown_id}))


def writes_positions(text: TextEncoder) -> bool:
    """Whether the tower's tokens can say where in a song: T5's have no angle bracket."""
    ids = [i for i in text.token_ids("A <3 27> b") if i != text.unknown_id]
    return bool(parse_caption(text.decode(ids), 100.0).spans)


def training_songs(manifests: Iterable[str]) -> list[Song]:
    """The lines of manifests that are for training."""
    return [s for path in manifests for s in read_manifest(path) if s.split in ("train", None)]


def manifest_list(given: str | Iterable[str]) -> list[str]:
    """``data.manifest``, which is one path or several."""
    return [given] if isinstance(given, str) else list(given)


def warm_passages(
    net: CoLLAP,
    songs: Sequence[Song],
    cache: str | Path,
    workers: int = 0,
    show_progress: bool = False,
) -> None:
    """See :func:`retrieval.data.text_cache.warm_texts`: on a GPU where there is one, with a bar.

    Args:
        net: its text tower; it is back on its device afterwards.
        songs: whose captions training reads.
        cache: folder of the vectors.
        workers: processes that divide the captions into passages.
        show_progress: draw the bar.
    """
    from rich.console import Console
    from rich.progress import Progress

    home = net.log_tau.device
    with Progress(console=Console(stderr=True), disable=not show_progress) as progress:
        task = progress.add_task("reading texts", total=None)

        def on_passages(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        passages = training_passages(net, songs, workers)
        net.text.to("cuda" if torch.cuda.is_available() else home)
        warm_texts(net, passages, cache, on_passages)
        net.text.to(home)


def load_songs(
    manifest: str | Path,
    cache: str | Path,
    net: CoLLAP,
    keep: Callable[[Song], bool] = lambda song: True,
    show_progress: bool = False,
) -> list[CachedSong]:
    """The usable songs of a manifest, prepared; what is skipped is printed with its reason.

    Raises:
        ManifestError: the manifest is wrong, or not one song is usable.
    """
    from rich.console import Console
    from rich.progress import Progress

    songs = [song for song in read_manifest(manifest) if keep(song)]
    net.eval()
    console = Console(stderr=True)
    with Progress(console=console, disable=not show_progress) as progress:
        task = progress.add_task("reading songs", total=len(songs))

        def on_song(song: Song, error: AudioError | None) -> None:
            progress.advance(task)
            if error is not None:
                console.print(f"skipped {song.id}: {error}", markup=False)

        good, bad = cache_songs(songs, FeatureCache(cache, net), on_song)
    if bad:
        console.print(f"{len(bad)} of {len(songs)} songs were skipped")
    return good
