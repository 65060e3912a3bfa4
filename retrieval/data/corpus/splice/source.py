"""Songs spliced from captioned clips (FUTGA's recipe, arXiv 2407.20445)."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from retrieval.audio import load_audio
from retrieval.data.corpus.pipeline import draw_split
from retrieval.data.corpus.render.files import write_sound
from retrieval.data.corpus.render.song import Rendering
from retrieval.data.corpus.source import Entry, Made
from retrieval.data.corpus.splice.features import RATE_HZ, ClipFeatures, read_features
from retrieval.data.corpus.splice.join import join_clips
from retrieval.data.corpus.splice.plan import plan_songs
from retrieval.data.corpus.splice.texts import SplicedSection, splice_texts
from retrieval.data.manifest import SPLITS, Song, read_manifest
from retrieval.errors import AudioError, ConfigError

_SHORTEST_S = 4.0
_CANDIDATES = 120  # clips that are compared for a song; reading all would take minutes a worker


@dataclass(frozen=True)
class SpliceSource:
    """Songs from a manifest of captioned clips.

    Each clip is used in songs of one split only.

    Attributes:
        manifest: of clips, each with a caption.
        rendering: rate, format and bit rate of the files.
        songs: how many.
        clips: fewest and most a song.
        val: share of clips for validation songs, where the manifest gives no split.
        test: likewise for test songs.
    """

    manifest: str
    rendering: Rendering
    songs: int = 100
    clips: tuple[int, int] = (3, 8)
    val: float = 0.1
    test: float = 0.1

    def entries(self, seed: int) -> list[Entry]:
        """Songs in proportion to the clips of each split; their clips are drawn in the workers."""
        clips = _clips(self.manifest)
        if not 2 <= self.clips[0] <= self.clips[1]:
            raise ConfigError(f"corpus.clips: {list(self.clips)}, expected 2 <= fewest <= most")
        if len(clips) < self.clips[0]:
            raise ConfigError(
                f"corpus.manifest: {len(clips)} clips with captions in {self.manifest}, "
                f"expected at least {self.clips[0]}"
            )
        splits = self._split(clips, seed)
        entries = []
        for split in SPLITS:
            share = round(self.songs * len(splits[split]) / len(clips))
            if len(splits[split]) < self.clips[0]:
                continue
            entries += [
                Entry(f"spliced-{split}-{seed}-{i}", f"spliced-{split}", number=i, split=split)
                for i in range(share)
            ]
        return entries

    def make(self, entry: Entry, audio: Path, seed: int) -> Made:
        """Choose, join and describe the clips of one song."""
        assert entry.split is not None
        clips = self._split(_clips(self.manifest), seed)[entry.split]
        rng = random.Random(f"splice {seed} {entry.split} {entry.number}")
        drawn = rng.sample(clips, min(_CANDIDATES, len(clips)))
        usable = [(clip, known) for clip in drawn if (known := _features(clip.audio))]
        plans = plan_songs([known for _, known in usable], 1, (self.clips[0], self.clips[1]), rng)
        if not plans:
            raise AudioError(f"{entry.name}: under {self.clips[0]} clips of this split can be read")
        chosen = [usable[i][0] for i in plans[0].clips]
        beats = [usable[i][1].beats_s for i in plans[0].clips]
        rate = self.rendering.rate_hz
        sounds = [load_audio(clip.audio, rate) for clip in chosen]
        song, starts = join_clips(sounds, beats, rate)
        kbps = self.rendering.kbps or rng.choice((64, 96, 128))
        write_sound(song, audio, rate, kbps)
        ends = [*starts[1:], len(song) / rate]
        sections = [
            SplicedSection(start, end, clip.captions[0].text, clip.tags)
            for clip, start, end in zip(chosen, starts, ends, strict=True)
        ]
        licences = sorted({clip.licence for clip in chosen if clip.licence})
        return Made(
            splice_texts(sections, f"{seed} {entry.name}"),
            f"Spliced {entry.number}",
            "; ".join(licences),
            {"source": "splice", "group": entry.name, "clips": " ".join(c.id for c in chosen)},
        )

    def _split(self, clips: tuple[Song, ...], seed: int) -> dict[str, list[Song]]:
        found: dict[str, list[Song]] = defaultdict(list)
        for clip in clips:
            group = str(clip.meta.get("group", clip.id))
            found[clip.split or draw_split(group, seed, self.val, self.test)].append(clip)
        return found


@lru_cache(maxsize=2)
def _clips(manifest: str) -> tuple[Song, ...]:
    """The clips that have a caption; read once a process."""
    return tuple(song for song in read_manifest(Path(manifest).expanduser()) if song.captions)


@lru_cache(maxsize=10_000)
def _features(path: Path) -> ClipFeatures | None:
    """Features of a clip, computed once a process; None where it cannot be read or is too short."""
    try:
        sound = load_audio(path, RATE_HZ)
    except AudioError:
        return None
    return read_features(sound) if len(sound) >= _SHORTEST_S * RATE_HZ else None
