"""Manifests, readers of published data sets, and the feature cache."""
