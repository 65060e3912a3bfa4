"""Chord progressions by family and by the part that a section plays in the form."""

from __future__ import annotations

import random
from dataclasses import dataclass

from retrieval.data.corpus.theory import Chord, parse_chord

# family -> slot -> progressions, one chord a bar, "a-b" for two in one bar.
# Slots: A (verse, theme), B (chorus, answer), C (bridge, contrast).
_PROGRESSIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "pop major": {
        "A": ("I V vi IV", "I vi IV V", "I iii IV V", "I IV vi V", "I V IV IV", "Iadd9 V vi7 IV"),
        "B": (
            "IV I V vi",
            "vi IV I V",
            "I V ii IV",
            "IV V I vi",
            "I IV V IV",
            "I V vi iii IV I IV V",
        ),
        "C": ("vi iii IV V", "ii vi IV V", "IV iv I V", "vi V IV V", "bVII IV I V"),
    },
    "pop minor": {
        "A": ("i bVI bIII bVII", "i bVII bVI bVII", "i iv bVII bIII", "i v bVI bVII", "i i bVI V"),
        "B": (
            "bVI bVII i i",
            "bVI bIII bVII i",
            "iv bVI i bVII",
            "bIII bVII i bVI",
            "i bIII bVII iv",
        ),
        "C": ("iv i iv V", "bVI bVI bVII V", "iv bVII bIII bVI", "bVI iv i V"),
    },
    "rock major": {
        "A": ("I bVII IV I", "I IV I V", "I V IV IV", "I I IV IV", "I bVII I IV"),
        "B": ("I V vi IV", "IV I V V", "I IV bVII IV", "IV V I IV"),
        "C": ("vi V IV V", "ii IV V V", "bVI bVII I I", "bVII IV bVII V"),
    },
    "rock minor": {
        "A": ("i i bVII bVI", "i bIII bVII iv", "i bVII i bVI", "i i bIII bVII"),
        "B": ("bVI bVII i i", "i bVI bIII bVII", "bIII bVII bVI i"),
        "C": ("iv bVI bVII V", "bVI bVI iv V", "iv iv bVII bVII"),
    },
    "metal": {
        "A": ("i5 i5 bVI5 bVII5", "i5 i5 bII5 i5", "i5 bVII5 bVI5 i5", "i5 i5 i5 bVI5-V5"),
        "B": ("i5 bVI5 bIII5 bVII5", "bVI5 bVII5 i5 i5", "i5 bIII5 bVII5 bII5"),
        "C": ("iv5 i5 bII5 i5", "bVI5 bVI5 bVII5 V5", "i5 bII5 bIII5 bII5"),
    },
    "dance": {
        "A": ("i7 i7 bVImaj7 bVII", "i iv bVI v", "i7 iv7 i7 iv7", "i bVI bIII bVII"),
        "B": ("bVImaj7 bVII i7 i7", "i bVII bVI iv", "iv7 bVII bIII bVI", "i bIII bVI bVII"),
        "C": ("bVImaj7 bVImaj7 i7 i7", "iv iv bVI bVII", "bVI v7 i i"),
    },
    "jazz": {
        "A": (
            "Imaj7 vi7 ii7 V7",
            "ii7 V7 Imaj7 VI7",
            "Imaj7 #io7 ii7 V7",
            "iii7-VI7 ii7-V7 Imaj7 ii7-V7",
            "Imaj7 IV7 iii7-VI7 ii7-V7",
        ),
        "B": (
            "ii7 V7 iii7 VI7",
            "IVmaj7 iv7 iii7 VI7-V7",
            "ii7 V7 Imaj7 I7",
            "Imaj7 I7 IVmaj7 iv6",
        ),
        "C": ("III7 III7 VI7 VI7 II7 II7 V7 V7", "v7 I7 IVmaj7 IVmaj7 vi7 II7 ii7 V7"),
    },
    "jazz minor": {
        "A": ("i7 ii7-V7 i7 V7", "i6 iv7 iiø7 V7b9", "iv7 bVII7 bIIImaj7 bVImaj7 iiø7 V7 i6 i6"),
        "B": ("iv7 i7 iiø7-V7 i6", "bVImaj7 V7 i7 i7", "iv7 bVII7 bIIImaj7 V7"),
        "C": ("iv7 bVII7 bIIImaj7 bVImaj7", "bVImaj7 bVImaj7 iiø7 V7"),
    },
    "blues": {
        "A": ("I7 IV7 I7 I7 IV7 IV7 I7 I7 V7 IV7 I7 V7", "I7 I7 I7 I7 IV7 IV7 I7 I7 ii7 V7 I7 V7"),
        "B": ("I7 IV7 I7 V7", "IV7 IV7 I7 I7", "I7 VI7 ii7 V7"),
        "C": ("IV7 IV7 I7 I7 IV7 IV7 V7 V7", "bIII7 bIII7 I7 V7"),
    },
    "funk": {
        "A": ("i7 i7 i7 IV7", "i7 IV7 i7 IV7", "i7 i7 bVII7 IV7", "i9 i9 i9 i9"),
        "B": ("IV7 IV7 i7 i7", "bVI7 V7 i7 i7", "iv7 bVII7 i7 i7", "bIIImaj7 IV7 i7 V7"),
        "C": ("bVImaj7 bVII7 bVImaj7 V7", "iv7 v7 bVImaj7 V7"),
    },
    "folk": {
        "A": ("I I IV I", "I V IV I", "I vi IV V", "I IV I V", "I bVII IV I"),
        "B": ("IV I V I", "IV V I vi", "vi IV I V", "IV I IV V"),
        "C": ("vi iii IV I", "ii V vi IV", "bVII IV I I"),
    },
    "folk minor": {
        "A": ("i bVII i bVII", "i bIII bVII i", "i IV i bVII", "i bVII bVI v"),
        "B": ("bIII bVII i i", "bVI bVII i i", "bIII IV i bVII"),
        "C": ("iv i bVII bVII", "bVI bIII iv v"),
    },
    "baroque": {
        "A": ("I V vi iii IV I IV V", "I IV V I", "I vi ii V I IV V I", "I V I V vi ii V V"),
        "B": ("vi ii V I IV viidim V I", "I V vi ii V I V V", "V I V I ii V I I"),
        "C": ("vi II7 V I vi II7 V V", "vi iii vi III vi ii V V", "ii VI7 ii V I IV V V"),
    },
    "baroque minor": {
        "A": ("i iv bVII bIII bVI iidim V i", "i V i iv i iv V V", "i bVII bVI V i iv V i"),
        "B": ("bIII bVII i V bVI iv V V", "iv bVII bIII bVI iidim V i i", "i iv V i"),
        "C": ("iv i V i iv i V V", "bVI bIII iv i bVI iidim V V"),
    },
    "cinematic": {
        "A": ("i bVI bIII bVII", "i iv bVI V", "i bVI iv V", "i v bVI bIII"),
        "B": ("bVI bVII i bIII", "i bIII bVII iv", "bVI bIII bVII i", "i bVI iv bVII"),
        "C": ("iv bVI bII V", "i bVIIsus4 bVI bVI", "bVI iv bVI V"),
    },
    "cinematic major": {
        "A": ("I iii IV I", "I V IV V", "I bVII IV I", "I vi iii IV"),
        "B": ("IV I V vi", "vi IV I V", "I bVI bVII I", "IV V vi I"),
        "C": ("vi iii IV iv", "bVI bVII I I", "ii IV vi V"),
    },
    "ambient": {
        "A": ("Imaj7 IVmaj7", "Iadd9 vi7 IVmaj7 Iadd9", "Imaj9 iii7", "vi7 IVmaj7 Isus2 Isus2"),
        "B": ("IVmaj7 Imaj7 vi7 Isus2", "IVmaj9 iii7", "vi7 IVmaj7"),
        "C": ("ii7 IVmaj7", "bVIImaj7 IVmaj7", "iii7 IVmaj7 vi7 IVmaj7"),
    },
    "ambient minor": {
        "A": ("i7 bVImaj7", "i9 iv7", "i7 bIIImaj7 bVImaj7 iv7", "i7 v7"),
        "B": ("bVImaj7 bIIImaj7", "iv7 i7", "bVImaj7 v7 i7 i7"),
        "C": ("iv7 bVImaj7", "bIIImaj7 iv7"),
    },
    "march": {
        "A": ("I I V7 I", "I IV V7 I", "I I ii V7", "I V7 I V7"),
        "B": ("V7 I V7 I", "IV I V7 I", "I vi ii V7"),
        "C": ("IV IV I I V7 V7 I I", "vi vi ii ii V7 V7 I V7", "I I IV IV II7 II7 V7 V7"),
    },
    "latin": {
        "A": ("Imaj7 II7 ii7 V7", "Imaj7 #io7 ii7 V7", "Imaj7 vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7"),
        "B": ("IVmaj7 iv7 iii7 VI7", "ii7 bVII7 Imaj7 VI7", "Imaj7 I7 IVmaj7 iv6"),
        "C": ("bIIImaj7 bVImaj7 ii7 V7", "vi7 II7 ii7 V7"),
    },
    "reggae": {
        "A": ("I IV I IV", "I V vi IV", "vi ii vi ii", "I ii I ii"),
        "B": ("IV V I I", "I vi IV V", "ii V I vi"),
        "C": ("vi vi IV IV", "iii vi ii V"),
    },
}


@dataclass(frozen=True)
class ChordSpan:
    """A chord and when it sounds, in quarter notes from the song's start."""

    start: float
    end: float
    chord: Chord


def choose_progression(rng: random.Random, family: str, slot: str) -> tuple[str, ...]:
    """Draw one progression of a family for a slot of the form (``A``, ``B`` or ``C``)."""
    return tuple(rng.choice(_PROGRESSIONS[family][slot]).split())


def lay_chords(
    progression: tuple[str, ...],
    start: float,
    bars: int,
    bar_length: float,
    tonic: int,
    bars_per_chord: int = 1,
    close: str | None = None,
) -> list[ChordSpan]:
    """Repeat a progression over a section.

    Args:
        progression: chord symbols, one a bar.
        start: quarter notes from the song's start.
        bars: length of the section.
        bar_length: quarter notes a bar.
        tonic: pitch class of the key.
        bars_per_chord: how many bars each symbol lasts.
        close: symbol for the last bar, where the section must end on a given chord.
    """
    spans: list[ChordSpan] = []
    for bar in range(bars):
        symbols = progression[(bar // bars_per_chord) % len(progression)].split("-")
        if close is not None and bar == bars - 1:
            symbols = [close]
        length = bar_length / len(symbols)
        for index, symbol in enumerate(symbols):
            at = start + bar * bar_length + index * length
            spans.append(ChordSpan(at, at + length, parse_chord(symbol, tonic)))
    return spans
