"""Timings of what costs time: `python -m tests.bench [secagg] [training] [server] [methods] [--json]`."""
