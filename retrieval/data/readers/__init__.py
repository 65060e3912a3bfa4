"""Readers of published data sets and of plain folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrieval.data.manifest import Song
from retrieval.data.readers.composers import read_freepd, read_real
from retrieval.data.readers.folder import read_folder
from retrieval.data.readers.jamendo import (
    read_jamendo,
    read_song_describer,
    read_song_describer_valid,
)
from retrieval.data.readers.labelled import read_audioset, read_midicaps
from retrieval.data.readers.musiccaps import read_lp_musiccaps, read_musiccaps
from retrieval.data.readers.timed import read_futga, read_harmonix, read_salami


@dataclass(frozen=True)
class Reader:
    """How a set is read.

    Attributes:
        read: folder of the texts and folder of the audio -> songs that have both.
        official: whether the set has a split of its own; songs of others are split by fold.
        source: where a user gets the data.
    """

    read: Callable[[Path, Path], list[Song]]
    official: bool
    source: str


READERS: dict[str, Reader] = {
    "musiccaps": Reader(read_musiccaps, True, "huggingface.co/datasets/google/MusicCaps"),
    "lp-musiccaps": Reader(
        read_lp_musiccaps, True, "huggingface.co/seungheondoh (LP-MusicCaps-MC, -MTT, -MSD)"
    ),
    "song-describer": Reader(read_song_describer, True, "zenodo.org/records/10072001"),
    "song-describer-valid": Reader(read_song_describer_valid, True, "zenodo.org/records/10072001"),
    "jamendo": Reader(read_jamendo, True, "github.com/MTG/mtg-jamendo-dataset"),
    "futga": Reader(read_futga, False, "huggingface.co/datasets/JoshuaW1997/FUTGA"),
    "harmonix": Reader(read_harmonix, False, "github.com/urinieto/harmonixset"),
    "salami": Reader(read_salami, False, "github.com/DDMAL/salami-data-public"),
    "midicaps": Reader(read_midicaps, True, "huggingface.co/datasets/amaai-lab/MidiCaps"),
    "audioset": Reader(read_audioset, True, "research.google.com/audioset/download.html"),
    "folder": Reader(read_folder, False, "any folder of music"),
    "real": Reader(read_real, False, "a composer's catalogue with manifest.jsonl"),
    "freepd": Reader(read_freepd, False, "a public-domain collection with manifest.jsonl"),
}
