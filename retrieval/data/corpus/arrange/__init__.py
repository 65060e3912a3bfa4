"""Songs from MIDI files and from annotated chords."""
