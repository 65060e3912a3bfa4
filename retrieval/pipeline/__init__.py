"""Many files -> embeddings, at the speed of the machine: decoding, features and network overlap."""
