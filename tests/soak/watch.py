"""Memory, open files and threads of the server through all its lives, and the rule that its memory is held to."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import psutil

PHASE_S: Final = 10.0
"""Samples of one such stretch of a life are compared with those of the same stretch of other lives."""

LONG_LIFE_S: Final = 600.0
"""From this length on a life is judged by itself; a younger process still grows into its work."""

_EVERY_S: Final = 1.0


@dataclass(frozen=True)
class Sample:
    """One look at the server's process; `at_s` counts from the run's start, `age_s` from when the process was ready."""

    life: int
    at_s: float
    age_s: float
    rss_mb: float
    files: int
    threads: int


@dataclass
class Watch:
    """Looks at whichever process is the server now, once a second."""

    samples: list[Sample] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _born: float = 0.0
    _life: int = -1
    _process: psutil.Process | None = None

    def begins(self, pid: int) -> None:
        """A new life, which is ready."""
        self._process, self._born, self._life = psutil.Process(pid), time.monotonic(), self._life + 1

    def ends(self) -> None:
        """The server is about to be killed: nothing is looked at until the next life."""
        self._process = None

    def look(self) -> Sample | None:
        """Take one sample; None while there is no server."""
        if (process := self._process) is None:
            return None
        now = time.monotonic()
        try:
            with process.oneshot():
                rss, files, threads = process.memory_info().rss / 1e6, process.num_fds(), process.num_threads()
        except psutil.Error:
            return None
        sample = Sample(self._life, now - self.started, now - self._born, rss, files, threads)
        self.samples.append(sample)
        return sample

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)


def last_over_second(samples: Sequence[Sample], lasts_s: float) -> float | None:
    """Return resident memory of the run's last quarter over that of its second, at equal phases of life.

    A killed server begins again with a small process, so plain quarters would compare old processes with young ones.
    Each life is cut into phases of PHASE_S from its readiness on. For every phase that both quarters have seen, the
    median of all its samples in the last quarter is divided by that in the second; the median of these ratios is
    returned, None if no phase is in both. What piles up in the folder, and is loaded by every new process, shows here;
    what piles up within one process shows in `within_longest_life`.
    """
    ratios = []
    phases = {int(sample.age_s // PHASE_S) for sample in samples}
    for phase in phases:
        same = [sample for sample in samples if int(sample.age_s // PHASE_S) == phase]
        second = [sample.rss_mb for sample in same if 0.25 <= sample.at_s / lasts_s < 0.5]
        last = [sample.rss_mb for sample in same if 0.75 <= sample.at_s / lasts_s < 1]
        if second and last:
            ratios.append(median(last) / median(second))
    return median(ratios) if ratios else None


def within_longest_life(samples: Sequence[Sample]) -> tuple[float, float | None]:
    """Return the longest life's length in seconds, and its own last quarter's median memory over its second's."""
    lives = [list(life) for _, life in itertools.groupby(samples, lambda sample: sample.life)]
    longest = max(lives, key=lambda life: life[-1].age_s, default=[])
    if not longest:
        return 0.0, None
    length = longest[-1].age_s
    second = [sample.rss_mb for sample in longest if 0.25 <= sample.age_s / length < 0.5]
    last = [sample.rss_mb for sample in longest if sample.age_s / length >= 0.75]
    return length, median(last) / median(second) if second and last else None
