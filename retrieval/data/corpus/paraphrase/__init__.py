"""Captions said again in other words by a language model, with their facts checked."""
