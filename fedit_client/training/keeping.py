"""Between two steps of a worker: keep the run on disk from time to time, and stop while the parent says so."""

import time
from typing import Final

from fedit_client.training.channel import PAUSE, PAUSED, RESUME, Channel
from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.run import Run, State

_COST: Final = 20.0
"""Whatever the interval is, keeping takes at most one part in this many of the time."""


class WorkerKeeper:
    """Keeps at most every `every_s` seconds (0: after each step), and at each pause; without a file it only pauses."""

    def __init__(self, channel: Channel, file: CheckpointFile | None, every_s: float) -> None:
        """Start the clock."""
        self._channel, self._file, self._every_s = channel, file, every_s
        self._binding = ""
        self._next = time.monotonic() + every_s

    def saved(self, binding: str) -> State | None:
        """Return what was kept of this run before the worker was started again."""
        self._binding = binding
        return self._file.load(binding) if self._file else None

    def between_steps(self, run: Run) -> float:
        """Keep and wait as needed; a pause is answered once the run is on disk."""
        begun = time.monotonic()
        while self._channel.has_news():
            if self._channel.receive()["kind"] == PAUSE:
                self._keep(run)
                self._channel.send(PAUSED, done=run.done)
                while self._channel.receive()["kind"] != RESUME:
                    pass
        if time.monotonic() >= self._next:
            self._keep(run)
        return time.monotonic() - begun

    def _keep(self, run: Run) -> None:
        if not self._file:
            return
        begun = time.monotonic()
        self._file.save(run.state(), self._binding)
        now = time.monotonic()
        self._next = now + (max(self._every_s, _COST * (now - begun)) if self._every_s else 0)
