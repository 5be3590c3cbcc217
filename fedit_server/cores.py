"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Return the cores that the machine, a container or taskset leaves to this process; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
