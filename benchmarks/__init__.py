"""Measurements; each prints the machine, the versions and ratios against a peer or a limit."""
