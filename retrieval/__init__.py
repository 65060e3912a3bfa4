"""From audio files and texts to embeddings and scores."""
