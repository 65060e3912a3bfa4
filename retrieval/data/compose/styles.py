"""What a style consists of: harmony, tempo and who plays what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """One style.

    Attributes:
        name: as captions say it.
        families: progression families for major and minor keys.
        bpm: slowest and fastest tempo.
        beats: quarter notes a bar.
        lead, chords, bass, drums: instruments to draw from; drums may be empty.
        beat: drum pattern of :mod:`retrieval.data.compose.patterns`.
        comping: accompaniment pattern.
        moods: words for the whole.
    """

    name: str
    families: tuple[str, str]
    bpm: tuple[int, int]
    beats: int
    lead: tuple[str, ...]
    chords: tuple[str, ...]
    bass: tuple[str, ...]
    drums: tuple[str, ...]
    beat: str
    comping: str
    moods: tuple[str, ...]


STYLES = (
    Style("piano ballad", ("pop major", "pop minor"), (60, 80), 4, ("piano", "cello", "violin"),
          ("piano", "strings"), ("double bass", "fretless bass"), ("brushed drums",), "soft",
          "broken", ("tender", "wistful", "intimate")),
    Style("rock song", ("rock major", "rock minor"), (110, 140), 4,
          ("overdriven guitar", "organ"), ("clean electric guitar", "overdriven guitar"),
          ("electric bass", "picked bass"), ("drums",), "rock", "eighths",
          ("energetic", "driving", "confident")),
    Style("metal piece", ("metal", "metal"), (140, 176), 4, ("distorted guitar",),
          ("distorted guitar",), ("picked bass",), ("heavy drums",), "metal", "chug",
          ("aggressive", "dark", "furious")),
    Style("techno track", ("dance", "dance"), (124, 138), 4, ("sawtooth lead", "synth pluck"),
          ("synth stabs", "warm synth pad"), ("synth bass",), ("drum machine",), "four",
          "offbeat", ("hypnotic", "driving", "mechanical")),
    Style("jazz piece", ("jazz", "jazz minor"), (96, 150), 4,
          ("tenor saxophone", "muted trumpet", "vibraphone"), ("piano", "jazz guitar"),
          ("double bass",), ("jazz drums", "brushed drums"), "swing", "comp",
          ("relaxed", "smoky", "playful")),
    Style("blues", ("blues", "blues"), (72, 110), 4, ("harmonica", "clean electric guitar"),
          ("organ", "piano"), ("electric bass",), ("drums",), "shuffle", "comp",
          ("earthy", "weary", "laid-back")),
    Style("funk groove", ("funk", "funk"), (96, 116), 4, ("alto saxophone", "brass section"),
          ("muted guitar", "electric piano"), ("slap bass",), ("drums",), "funk", "sixteenths",
          ("groovy", "tight", "playful")),
    Style("folk tune", ("folk", "folk minor"), (84, 120), 4, ("fiddle", "flute", "accordion"),
          ("acoustic guitar", "banjo"), ("double bass",), ("light percussion",), "soft", "broken",
          ("rustic", "warm", "cheerful")),
    Style("baroque piece", ("baroque", "baroque minor"), (76, 104), 4,
          ("recorder", "oboe", "violin"), ("harpsichord",), ("cello", "bassoon"), (), "none",
          "broken", ("courtly", "ornate", "stately")),
    Style("cinematic score", ("cinematic major", "cinematic"), (70, 110), 4,
          ("French horns", "violin", "choir"), ("strings", "tremolo strings"), ("low strings",),
          ("orchestral percussion",), "epic", "pad", ("epic", "heroic", "tense")),
    Style("ambient piece", ("ambient", "ambient minor"), (56, 72), 4,
          ("celesta", "bell-like pad", "vibraphone"), ("warm synth pad", "choir pad"),
          ("fretless bass",), (), "none", "pad", ("calm", "floating", "dreamy")),
    Style("march", ("march", "march"), (104, 120), 4, ("trumpet", "piccolo"),
          ("brass section", "trombone"), ("tuba",), ("marching drums",), "march", "oompah",
          ("proud", "festive", "stirring")),
    Style("bossa nova", ("latin", "latin"), (112, 136), 4, ("flute", "tenor saxophone"),
          ("nylon-string guitar",), ("double bass",), ("light percussion",), "bossa", "comp",
          ("sunny", "breezy", "gentle")),
    Style("reggae tune", ("reggae", "reggae"), (70, 84), 4, ("organ", "trombone"),
          ("clean electric guitar",), ("electric bass",), ("drums",), "onedrop", "offbeat",
          ("laid-back", "sunny", "easy-going")),
    Style("chiptune", ("pop major", "pop minor"), (126, 160), 4, ("square-wave lead",),
          ("square-wave arpeggio",), ("square-wave bass",), ("electronic drums",), "four",
          "sixteenths", ("bouncy", "retro", "mischievous")),
    Style("waltz", ("folk", "baroque minor"), (132, 168), 3, ("accordion", "clarinet", "violin"),
          ("piano", "pizzicato strings"), ("double bass",), (), "none", "oompah",
          ("graceful", "nostalgic", "elegant")),
)  # fmt: skip
