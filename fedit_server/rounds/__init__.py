"""Rounds: from the devices that are free to a new adapter version."""
