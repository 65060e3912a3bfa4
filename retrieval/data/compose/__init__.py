"""Songs composed from seeds, with captions and times (docs/compose.md)."""
