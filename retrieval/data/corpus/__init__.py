"""Songs with long captions and times, made from nothing, from MIDI and from clips."""
