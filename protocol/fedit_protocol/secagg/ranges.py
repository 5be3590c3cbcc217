"""A vector cut into ranges that threads work on side by side; AES and numpy let go of the interpreter meanwhile."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Final

RANGES_PER_THREAD: Final = 2
"""More ranges than threads, so that a thread that the machine holds up does not hold up the rest."""


def ranges(count: int, parts: int, unit: int) -> list[tuple[int, int]]:
    """Cut 0..count into at most `parts` ranges (start, stop) of like length, each start a multiple of `unit`."""
    units = -(-count // unit)
    parts = max(1, min(parts, units))
    edges = [unit * (units * part // parts) for part in range(parts)] + [count]
    return list(pairwise(edges))


def work_in_ranges(work: Callable[[int, int], None], count: int, unit: int, threads: int) -> None:
    """Call `work(start, stop)` for ranges that cover 0..count, on so many threads; the first error is raised.

    With one thread everything happens in the caller's. A range may be worked on in any order, so `work` must touch
    nothing outside its own range.
    """
    if threads <= 1:
        work(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, *part) for part in ranges(count, threads * RANGES_PER_THREAD, unit)]:
            done.result()
