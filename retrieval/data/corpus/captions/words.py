"""The words for facts, as people write them; every entry is a choice of equals."""

from __future__ import annotations

import random

from retrieval.data.corpus.facts import SectionFacts, SongFacts, tempo_word
from retrieval.data.corpus.theory import key_name

# Function -> how people call it. Names with one entry have no common synonym.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "intro": ("intro", "introduction", "opening"),
    "outro": ("outro", "closing part", "ending"),
    "chorus": ("chorus", "refrain"),
    "pre-chorus": ("pre-chorus", "lift before the chorus"),
    "bridge": ("bridge", "middle eight"),
    "breakdown": ("breakdown", "quiet stretch"),
    "break": ("break", "breakdown"),
    "build-up": ("build-up", "rise"),
    "groove": ("groove", "main groove"),
    "solo": ("solo", "instrumental solo"),
    "theme": ("theme", "main theme"),
    "calm": ("calm passage", "quiet middle"),
    "tune": ("tune", "main tune"),
    "coda": ("coda", "closing part"),
    "climax": ("climax", "high point"),
    "interlude": ("interlude", "instrumental passage"),
}
LEVELS: dict[str, tuple[str, ...]] = {
    "loud": ("at full strength", "loud and full", "with full force", "big and loud",
             "at its most powerful", "with a big, full sound"),
    "medium": ("at a medium level", "at a moderate volume", "neither loud nor quiet",
               "with moderate energy", "at a comfortable level"),
    "soft": ("softly", "quietly", "at a low volume", "gently", "with a hushed, quiet sound",
             "held back and quiet"),
}  # fmt: skip
CHANGES: dict[str, tuple[str, ...]] = {
    "louder": ("clearly louder than before", "with a jump in volume", "a step up in energy",
               "noticeably stronger than the part before", "lifting the energy"),
    "quieter": ("clearly quieter than before", "with a drop in volume", "a step down in energy",
                "noticeably softer than the part before", "bringing the energy down"),
    "": ("about as loud as before", "at much the same volume", "keeping the same energy"),
}  # fmt: skip
MOTIONS: dict[str, tuple[str, ...]] = {
    "busy": ("The playing is busy, with many quick notes", "There is a lot going on",
             "The rhythm is dense and full of quick notes"),
    "sparse": ("There is a lot of space between the notes", "Only a few notes are played",
               "The texture is sparse"),
    "held": ("Long held notes dominate", "The notes are long and sustained",
             "Everything is smooth and drawn out"),
    "short": ("The notes are short and crisp", "The playing is clipped and percussive"),
}  # fmt: skip
MARKS: dict[str, tuple[str, ...]] = {
    "build": ("It builds steadily toward the next part", "The tension rises until the end of it",
              "It grows and grows up to the next part"),
    "fill": ("A drum fill closes it", "It ends with a roll down the toms",
             "A drum fill leads out of it"),
    "fade-out": ("It fades out slowly", "The music fades away to silence",
                 "A long fade-out ends the song"),
    "slows down": ("The tempo slows down at the end", "The last bars are broadened",
                   "It slows down to a stop"),
}  # fmt: skip
TEMPI: dict[str, tuple[str, ...]] = {
    "very slow": ("very slow", "crawling", "at a very slow pace"),
    "slow": ("slow", "unhurried", "at a slow pace"),
    "mid-tempo": ("mid-tempo", "medium-paced", "at a moderate tempo"),
    "fast": ("fast", "up-tempo", "at a brisk tempo"),
    "very fast": ("very fast", "rapid", "at a very fast tempo"),
}
METRES: dict[str, tuple[str, ...]] = {
    "4/4": ("in 4/4", "in common time", "with four beats to the bar"),
    "3/4": ("in 3/4", "in three-four time", "with three beats to the bar"),
    "6/8": ("in 6/8", "in a rolling 6/8", "in compound time, 6/8"),
    "12/8": ("in 12/8", "in a slow, rolling 12/8", "with triplets in every beat"),
    "5/4": ("in 5/4", "in an uneven 5/4", "with five beats to the bar"),
    "7/8": ("in 7/8", "in an uneven 7/8", "in a limping 7/8"),
}


def function_name(section: SectionFacts, rng: random.Random) -> str:
    """What to call a section; a plain number where nobody knows its function."""
    if not section.function:
        return rng.choice(("part", "section", "stretch"))
    return rng.choice(FUNCTIONS.get(section.function, (section.function,)))


def tempo_phrase(bpm: float, rng: random.Random, exact: bool | None = None) -> str:
    """A tempo: exact, rounded, or in a word."""
    how = rng.random() if exact is None else 0.0 if exact else 1.0
    if how < 0.35:
        return rng.choice(
            ("at <n> BPM", "at <n> beats per minute", "at a tempo of <n> BPM")
        ).replace("<n>", str(round(bpm)))
    if how < 0.6:
        rounded = str(5 * round(bpm / 5))
        return rng.choice(
            ("at around <n> BPM", "at roughly <n> beats per minute", "at about <n> BPM")
        ).replace("<n>", rounded)
    word = tempo_word(bpm)
    return rng.choice(
        (f"at a {word} pace", f"at a {word} tempo", f"with a {word} pulse")
        if word != "mid-tempo"
        else ("at a mid-tempo pace", "at a moderate tempo", "with a mid-tempo pulse")
    )


def key_phrase(key: tuple[int, str], rng: random.Random, exact: bool | None = None) -> str:
    """A key by name, or only whether it is major or minor."""
    named = rng.random() < 0.5 if exact is None else exact
    if named:
        return f"in {key_name(*key)}"
    return f"in a {key[1]} key" if key[1] in ("major", "minor") else f"in the {key[1]} mode"


def style_phrase(facts: SongFacts, rng: random.Random) -> str:
    """``a tender, wistful piano ballad``; a piece of unknown style is ``an instrumental piece``."""
    noun = facts.style or rng.choice(("instrumental", "instrumental piece", "piece of music"))
    moods = list(facts.moods)
    rng.shuffle(moods)
    adjectives = rng.choice((", ".join(moods), " and ".join(moods), moods[0] if moods else ""))
    phrase = f"{adjectives} {noun}".strip()
    return ("an " if phrase[0].lower() in "aeiou" else "a ") + phrase


def minutes(seconds: float) -> str:
    """``1:05``."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
