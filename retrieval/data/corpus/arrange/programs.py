"""General MIDI programs by the names that captions use."""

from __future__ import annotations

# In order from 0; an entry "name*n" stands for n programs that sound alike.
_NAMES = (
    "piano*3, honky-tonk piano, electric piano*2, harpsichord, clavinet, celesta, glockenspiel, "
    "music box, vibraphone, marimba, xylophone, tubular bells, dulcimer, organ*3, church organ, "
    "reed organ, accordion, harmonica, accordion, nylon-string guitar, acoustic guitar, "
    "jazz guitar, clean electric guitar, muted guitar, overdriven guitar, distorted guitar, "
    "guitar harmonics, double bass, electric bass, picked bass, fretless bass, slap bass*2, "
    "synth bass*2, violin, viola, cello, double bass, tremolo strings, pizzicato strings, harp, "
    "timpani, strings*2, synth strings*2, choir*3, orchestra hit, trumpet, trombone, tuba, "
    "muted trumpet, French horns, brass section, synth brass*2, soprano saxophone, "
    "alto saxophone, tenor saxophone, baritone saxophone, oboe, English horn, bassoon, clarinet, "
    "piccolo, flute, recorder, pan flute, blown bottle, shakuhachi, whistle, ocarina, "
    "square-wave lead, sawtooth lead, synth lead*6, bell-like pad, warm synth pad, synth pad, "
    "choir pad, synth pad*4, synth texture*8, sitar, banjo, shamisen, koto, kalimba, bagpipe, "
    "fiddle, shanai, bell, agogo, steel drum, woodblock, taiko drum, tom-toms, synth drum, "
    "reverse cymbal, sound effects*8"
)


def _expand() -> tuple[str, ...]:
    names: list[str] = []
    for entry in _NAMES.split(", "):
        name, _, count = entry.partition("*")
        names += [name] * int(count or 1)
    return tuple(names)


PROGRAMS = _expand()


def instrument_of(program: int) -> str:
    """What captions call a General MIDI program (0-127)."""
    return PROGRAMS[program]
