"""A server process: how it listens, what it takes of the machine, how it stops."""
