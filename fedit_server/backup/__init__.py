"""Backups: made while rounds run, verified in a scratch folder, restored into an empty one."""
