"""Between two steps of a worker: keep the run on disk from time to time, and stop while the parent says so."""

import time
from typing import Final

from fedit_client.training.channel import PAUSE, PAUSED, RESUME, SPEED, Channel, Json
from fedit_client.training.checkpoint import CheckpointFile
from fedit_client.training.run import Run, State

_COST: Final = 20.0
"""Whatever the interval is, keeping takes at most one part in this many of the time."""
_LONGEST_REST_S: Final = 30.0
_NAP_S: Final = 0.2


class WorkerKeeper:
    """Keeps at most every `every_s` seconds (0: after each step), and at each pause; without a file it only pauses.

    Below full speed it rests after each step, in proportion to what the step took.
    """

    def __init__(self, channel: Channel, file: CheckpointFile | None, every_s: float, speed: float = 1.0) -> None:
        """Start the clock; `speed` is the share of the time in which to work."""
        self._channel, self._file, self._every_s, self._speed = channel, file, every_s, speed
        self._working_since = time.monotonic()
        self._binding = ""
        self._next = time.monotonic() + every_s

    def saved(self, binding: str) -> State | None:
        """Return what was kept of this run before the worker was started again."""
        self._binding = binding
        return self._file.load(binding) if self._file else None

    def between_steps(self, run: Run) -> float:
        """Keep and wait as needed; a pause is answered once the run is on disk."""
        begun = time.monotonic()
        worked_s = begun - self._working_since
        self._obey(run)
        if time.monotonic() >= self._next:
            self._keep(run)
        rested_until = begun + min(worked_s * (1 / self._speed - 1), _LONGEST_REST_S)
        while (rest_s := rested_until - time.monotonic()) > 0 and self._speed < 1:
            time.sleep(min(rest_s, _NAP_S))
            self._obey(run)  # a pause, or full speed again, must not wait for the rest to end
        self._working_since = time.monotonic()
        return self._working_since - begun

    def _obey(self, run: Run) -> None:
        """Do what the parent's lines say; a pause ends with its own line."""
        while self._channel.has_news():
            message = self._channel.receive()
            if message["kind"] == PAUSE:
                self._keep(run)
                self._channel.send(PAUSED, done=run.done)
                while message["kind"] != RESUME:
                    message = self._channel.receive()
                    self._note_speed(message)
            self._note_speed(message)

    def _note_speed(self, message: Json) -> None:
        if message["kind"] == SPEED:
            self._speed = message["share"]

    def _keep(self, run: Run) -> None:
        if not self._file:
            return
        begun = time.monotonic()
        self._file.save(run.state(), self._binding)
        now = time.monotonic()
        self._next = now + (max(self._every_s, _COST * (now - begun)) if self._every_s else 0)
