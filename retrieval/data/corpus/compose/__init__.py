"""Songs composed from seeds."""
