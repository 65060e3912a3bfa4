"""Styles: harmony, tempo, metre, form, and who plays what and how."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """One style.

    Attributes:
        name: as captions say it.
        families: progression families for major and minor keys.
        bpm: slowest and fastest tempo, pulses a minute.
        metres: to draw from.
        forms: a key of :data:`retrieval.data.corpus.compose.forms.FORMS`.
        lead, counter, chords, pad, bass, drums: instruments to draw from; empty where the style
            has no such player.
        beat: drum pattern; bassline: bass pattern; comping: pattern of the chords.
        moods: words for the whole.
        swing: whether off-beat eighths come late.
        free: whether the tempo may change between sections and slow down at the end.
    """

    name: str
    families: tuple[str, str]
    bpm: tuple[int, int]
    metres: tuple[str, ...]
    forms: str
    lead: tuple[str, ...]
    counter: tuple[str, ...]
    chords: tuple[str, ...]
    pad: tuple[str, ...]
    bass: tuple[str, ...]
    drums: tuple[str, ...]
    beat: str
    bassline: str
    comping: str
    moods: tuple[str, ...]
    swing: bool = False
    free: bool = False


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _style(name: str, families: str, bpm: str, metres: str, forms: str, players: str,
           patterns: str, moods: str, flags: str = "") -> Style:  # fmt: skip
    low, high = bpm.split("-")
    major, minor = _names(families)
    lead, counter, chords, pad, bass, drums = (_names(group) for group in players.split("|"))
    beat, bassline, comping = _names(patterns)
    return Style(
        name, (major, minor), (int(low), int(high)), _names(metres), forms,
        lead, counter, chords, pad, bass, drums, beat, bassline, comping, _names(moods),
        "swing" in flags, "free" in flags,
    )  # fmt: skip


# Players: lead | counter-melody or riff | chords | pad | bass | drums.
STYLES = (
    _style("piano ballad", "pop major, pop minor", "60-80", "4/4, 4/4, 12/8", "song",
           "cello, violin, flute, piano | oboe, clarinet | piano | strings, warm synth pad"
           " | double bass, fretless bass | brushed drums",
           "ballad, held, broken", "tender, wistful, intimate, heartfelt, "
           "sentimental, melancholic, longing, delicate", "free"),
    _style("rock song", "rock major, rock minor", "104-144", "4/4", "song",
           "overdriven guitar | organ, piano | clean electric guitar, acoustic guitar | organ"
           " | electric bass, picked bass | drums",
           "rock, eighths, eighths", "energetic, driving, confident, raw, "
           "rebellious, upbeat, gritty, anthemic"),
    _style("metal track", "metal, metal", "132-176", "4/4, 4/4, 7/8", "song",
           "overdriven guitar, sawtooth lead | choir, violin | distorted guitar"
           " | synth strings, choir pad | picked bass | heavy drums",
           "metal, gallop, chug", "aggressive, dark, furious, heavy, "
           "menacing, intense, relentless, brutal"),
    _style("house track", "dance, dance", "118-128", "4/4", "dance",
           "synth pluck, vibraphone | sawtooth lead | electric piano, piano"
           " | warm synth pad, synth strings | synth bass | electronic drums",
           "house, offbeat, stabs", "uplifting, bright, groovy, warm, "
           "feel-good, dreamy, summery, joyful"),
    _style("techno track", "dance, dance", "126-140", "4/4", "dance",
           "sawtooth lead, synth pluck | square-wave arpeggio | synth stabs"
           " | warm synth pad, bell-like pad | synth bass | drum machine",
           "four, pulse, offbeat", "hypnotic, driving, mechanical, dark, "
           "industrial, pulsating, cold, repetitive"),
    _style("swing tune", "jazz, jazz minor", "132-200", "4/4", "jazz",
           "tenor saxophone, trumpet, clarinet, alto saxophone | muted trumpet, trombone"
           " | piano, jazz guitar | brass section | double bass | jazz drums",
           "swing, walking, comp", "playful, lively, smoky, elegant, "
           "vintage, jaunty, swinging, sophisticated", "swing"),
    _style("jazz ballad", "jazz, jazz minor", "62-84", "4/4, 3/4", "jazz",
           "tenor saxophone, muted trumpet, vibraphone | clarinet, flute | piano, jazz guitar"
           " | strings | double bass | brushed drums",
           "brushes, two, comp", "smoky, late-night, relaxed, romantic, "
           "mellow, intimate, lonesome, sultry", "swing free"),
    _style("bossa nova", "latin, latin", "112-136", "4/4", "jazz",
           "flute, alto saxophone, vibraphone | muted trumpet | nylon-string guitar | strings"
           " | double bass | light percussion",
           "bossa, bossa, bossa", "sunny, breezy, gentle, romantic, "
           "tropical, laid-back, seaside, tender"),
    _style("reggae tune", "reggae, reggae", "70-88", "4/4", "loop",
           "trombone, harmonica, alto saxophone | muted guitar | clean electric guitar | organ"
           " | electric bass | drums",
           "onedrop, dub, offbeat", "laid-back, sunny, easy-going, warm, "
           "chilled, carefree, lazy, positive"),
    _style("funk groove", "funk, funk", "94-116", "4/4", "loop",
           "alto saxophone, trumpet | brass section | muted guitar, electric piano | organ"
           " | slap bass | drums",
           "funk, funk, sixteenths", "groovy, tight, playful, cheeky, "
           "funky, sassy, punchy, infectious"),
    _style("disco track", "pop minor, funk", "112-124", "4/4", "song",
           "strings, flute | brass section | clean electric guitar, electric piano"
           " | synth strings | electric bass | drums",
           "house, octaves, sixteenths", "glamorous, euphoric, danceable, bright, "
           "glittering, exuberant, party-ready, catchy"),
    _style("waltz", "folk, baroque minor", "120-168", "3/4", "parts",
           "accordion, clarinet, violin | flute, cello | piano, pizzicato strings | strings"
           " | double bass |",
           "none, two, oompah", "graceful, nostalgic, elegant, lilting, "
           "old-fashioned, whirling, charming, bittersweet", "free"),
    _style("film score", "cinematic major, cinematic", "66-112", "4/4, 4/4, 3/4, 5/4", "score",
           "French horns, violin, choir, oboe | cello, trumpet | tremolo strings, harp, piano"
           " | strings | low strings | orchestral percussion",
           "epic, held, ostinato", "epic, heroic, tense, sweeping, "
           "majestic, suspenseful, dramatic, solemn", "free"),
    _style("ambient piece", "ambient, ambient minor", "54-72", "4/4, 6/8", "flow",
           "celesta, vibraphone, pan flute | harp, music box | bell-like pad, electric piano"
           " | warm synth pad, choir pad | fretless bass |",
           "none, held, pad", "calm, floating, dreamy, spacious, "
           "meditative, ethereal, soothing, weightless", "free"),
    _style("chiptune", "pop major, pop minor", "126-164", "4/4, 4/4, 3/4", "loop",
           "square-wave lead | sawtooth lead | square-wave arpeggio | synth pluck"
           " | square-wave bass | electronic drums",
           "four, octaves, sixteenths", "bouncy, retro, mischievous, heroic, "
           "nostalgic, quirky, frantic, playful"),
    _style("folk tune", "folk, folk minor", "84-124", "4/4, 3/4, 4/4", "parts",
           "fiddle, flute, accordion, harmonica | recorder, violin | acoustic guitar, banjo"
           " | accordion | double bass | light percussion",
           "soft, two, strum", "rustic, warm, cheerful, homely, "
           "earthy, pastoral, simple, traditional"),
    _style("jig", "folk, folk minor", "104-132", "6/8", "parts",
           "fiddle, flute, accordion | pan flute, recorder | acoustic guitar, banjo | accordion"
           " | double bass | light percussion",
           "soft, two, strum", "merry, dancing, spirited, rustic, "
           "lively, festive, jolly, whirling"),
    _style("baroque piece", "baroque, baroque minor", "72-104", "4/4, 3/4", "parts",
           "recorder, oboe, violin, flute | violin, bassoon | harpsichord | church organ, strings"
           " | cello, bassoon |",
           "none, continuo, broken", "courtly, ornate, stately, delicate, "
           "refined, formal, noble, antique", "free"),
    _style("blues", "blues, blues", "66-108", "4/4, 12/8", "blues",
           "harmonica, overdriven guitar, tenor saxophone | piano | clean electric guitar, organ"
           " | organ | electric bass, double bass | drums",
           "shuffle, walking, comp", "earthy, weary, laid-back, soulful, "
           "gritty, mournful, smoky, raw", "swing"),
    _style("march", "march, march", "104-122", "4/4", "parts",
           "trumpet, piccolo, clarinet | French horns, flute | trombone, brass section"
           " | brass section | tuba | marching drums",
           "march, two, oompah", "proud, festive, stirring, ceremonial, "
           "patriotic, pompous, brisk, triumphant"),
    _style("hip-hop beat", "funk, pop minor", "78-96", "4/4", "loop",
           "electric piano, vibraphone, flute | muted trumpet, synth pluck | jazz guitar, piano"
           " | warm synth pad, strings | synth bass, fretless bass | drum machine",
           "boombap, dub, comp", "mellow, dusty, hazy, head-nodding, "
           "lo-fi, chilled, late-night, nostalgic"),
    _style("drum and bass track", "dance, ambient minor", "160-176", "4/4", "dance",
           "synth pluck, flute, celesta | sawtooth lead | electric piano"
           " | warm synth pad, choir pad | synth bass | electronic drums",
           "breakbeat, held, pad", "frantic, atmospheric, urgent, futuristic, "
           "nervous, high-energy, dark, restless"),
    _style("progressive rock piece", "rock major, rock minor", "96-132", "7/8, 5/4", "song",
           "overdriven guitar, sawtooth lead, flute | organ | clean electric guitar, piano"
           " | synth strings, choir pad | picked bass | drums",
           "rock, eighths, eighths", "complex, adventurous, restless, dramatic, "
           "intricate, quirky, ambitious, tense"),
)  # fmt: skip
