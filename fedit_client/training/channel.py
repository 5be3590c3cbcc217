"""The worker's side of its pipes: JSON lines on stdin and stdout, and no life after the parent's death."""

import contextlib
import json
import os
import queue
import sys
import threading
from typing import Any, Final

import psutil

Json = dict[str, Any]

WIRE_FLOAT: Final = "<f4"
"""How an update crosses the pipe."""

PAUSE: Final = "pause"
RESUME: Final = "resume"
PAUSED: Final = "paused"
"""The kinds of the lines about a pause: two are the parent's, the third is the worker's answer to the first."""

SPEED: Final = "speed"
"""The kind of the parent's line about the share of the time in which the worker may work."""


class Channel:
    """Owns stdin and stdout from its making on; whatever libraries print goes to stderr instead."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._lines: queue.Queue[Json] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, kind: str, **fields: Any) -> None:
        """Write one line to the parent."""
        self._out.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")
        self._out.flush()

    def send_with(self, payload: bytes, kind: str, **fields: Any) -> None:
        """Write one line to the parent, and after it these bytes; the line's `bytes` says how many."""
        self.send(kind, bytes=len(payload), **fields)
        self._out.write(payload)
        self._out.flush()

    def receive(self) -> Json:
        """Wait for the parent's next line."""
        return self._lines.get()

    def has_news(self) -> bool:
        """Say whether a line is waiting."""
        return not self._lines.empty()

    def _listen(self) -> None:
        """The end of stdin means that the parent is gone: stop at once, in the middle of a step too."""
        # Not sys.stdin itself: the interpreter closes that at its end, and aborts if a thread waits in it.
        for line in os.fdopen(os.dup(sys.stdin.fileno()), "rb"):
            self._lines.put(json.loads(line))
        os._exit(0)


def give_way() -> None:
    """Lower this process's priority, so that the person at this machine notices nothing."""
    # 10 of 19 on POSIX; psutil has the other name on Windows only.
    low = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10)
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process().nice(low)
