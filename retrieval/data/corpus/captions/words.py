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
             "at its most powerful", "with a big, full sound", "in full swing",
             "powerful and dense"),
    "medium": ("at a medium level", "at a moderate volume", "neither loud nor quiet",
               "with moderate energy", "at a comfortable level", "with restraint",
               "at a middling volume"),
    "soft": ("softly", "quietly", "at a low volume", "gently", "with a hushed, quiet sound",
             "held back and quiet", "in a subdued manner", "at a whisper"),
}  # fmt: skip
CHANGES: dict[str, tuple[str, ...]] = {
    "louder": ("clearly louder than before", "with a jump in volume", "a step up in energy",
               "noticeably stronger than the part before", "lifting the energy",
               "turning up the intensity", "more forceful now"),
    "quieter": ("clearly quieter than before", "with a drop in volume", "a step down in energy",
                "noticeably softer than the part before", "bringing the energy down",
               "easing off", "calmer now"),
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
# How a player plays, by pattern of the composer; what follows "plays".
MANNERS: dict[str, tuple[str, ...]] = {
    "beat ballad": ("a sparse, slow beat with a rim click", "a restrained ballad beat"),
    "beat rock": ("a straight rock beat", "a steady backbeat", "a driving kick and snare pattern"),
    "beat metal": ("a pounding double-kick beat", "fast, thundering kick patterns"),
    "beat house": ("four on the floor with open hats", "a four-on-the-floor groove"),
    "beat four": ("a four-to-the-floor kick", "a relentless kick on every beat"),
    "beat swing": ("a swinging ride pattern", "swing time on the ride cymbal"),
    "beat brushes": ("soft time with a brushed ride", "a hushed swing pattern"),
    "beat bossa": ("a bossa nova rhythm with shaker", "a syncopated Brazilian pattern"),
    "beat onedrop": ("a one-drop rhythm", "a reggae beat with the weight on the third beat"),
    "beat funk": ("a syncopated sixteenth-note groove", "a tight funk beat with ghost notes"),
    "beat epic": ("booming tom patterns", "thunderous hits on the low toms"),
    "beat soft": ("a light tambourine and shaker rhythm", "gentle shaker strokes"),
    "beat shuffle": ("a shuffle", "a rolling blues shuffle"),
    "beat march": ("a military snare cadence", "crisp marching rhythms"),
    "beat boombap": ("a boom-bap beat", "a dusty, laid-back hip-hop beat"),
    "beat breakbeat": ("a chopped, fast breakbeat", "a rapid broken beat"),
    "bass held": ("long root notes", "a slow, sustained line"),
    "bass eighths": ("steady eighth notes", "a pumping root-note line"),
    "bass gallop": ("a galloping rhythm", "a gallop on the root"),
    "bass offbeat": ("a line on the off-beats", "a bouncing off-beat line"),
    "bass pulse": ("a throbbing sixteenth-note pulse", "a rolling, pulsating line"),
    "bass walking": ("a walking line", "walking quarter notes"),
    "bass two": ("roots and fifths", "an alternating two-beat line"),
    "bass bossa": ("a dotted bossa nova figure", "roots and fifths in a syncopated figure"),
    "bass dub": ("a deep, roomy dub line", "a heavy, sparse line with gaps"),
    "bass funk": ("a syncopated, bouncing riff", "a busy funk riff with octaves"),
    "bass octaves": ("jumping octaves", "an octave-bouncing line"),
    "bass continuo": ("a walking continuo line", "a steady baroque ground"),
    "chords pad": ("sustained chords", "slow, wide chords"),
    "chords broken": ("broken chords", "flowing arpeggios", "gently rolling arpeggios"),
    "chords ostinato": ("a restless ostinato", "quick repeating figures"),
    "chords sixteenths": ("choppy sixteenth-note chords", "scratchy, syncopated chords"),
    "chords chug": ("palm-muted power chords", "chugging power-chord riffs"),
    "chords eighths": ("repeated eighth-note chords", "driving, repeated chords"),
    "chords offbeat": ("chords on the off-beat", "an off-beat skank"),
    "chords stabs": ("syncopated chord stabs", "short, punchy chords"),
    "chords comp": ("sparse, syncopated comping", "jazzy comping with gaps"),
    "chords bossa": ("syncopated bossa nova chords", "plucked, lightly syncopated chords"),
    "chords oompah": ("chords on the weak beats", "an oom-pah accompaniment"),
    "chords strum": ("strummed chords", "a strumming accompaniment"),
    "pad": ("a soft bed of held chords", "a sustained backdrop", "a lush layer of long chords"),
}
SOUNDS: dict[str, tuple[str, ...]] = {
    "muffled": ("The recording is muffled and lacks treble", "It sounds dull, like an old radio",
                "The low quality recording has no high frequencies"),
    "noisy": ("There is audible hiss in the recording", "Background noise covers the recording",
              "A layer of static noise can be heard"),
    "roomy": ("Everything is drenched in reverb", "A long reverb makes it sound like a large hall",
              "The sound is spacious and echoing"),
    "dry": ("The recording is dry, without any reverb", "The sound is close and dry"),
}  # fmt: skip
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
