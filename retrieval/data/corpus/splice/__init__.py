"""Songs joined from captioned clips."""
