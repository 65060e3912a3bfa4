"""Notes to a sound file."""
