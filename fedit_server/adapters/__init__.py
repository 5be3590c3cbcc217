"""Adapter versions as files and bytes."""
