"""From embeddings to answers: the song library."""
