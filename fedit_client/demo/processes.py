"""Our own programs as child processes: lines in as they come, and nothing left running when the block ends."""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psutil

from fedit_protocol.errors import FeditError

_MAX_LINE_BYTES: Final = 1024 * 1024
_KEPT_LINES: Final = 8
_PATIENCE_S: Final = 8.0
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


class Child:
    """A running program that writes JSON lines."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._stderr: deque[str] = deque(maxlen=_KEPT_LINES)
        self._draining = asyncio.create_task(self._drain())

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the program writes, until it closes its output; other text than JSON objects is passed over."""
        while line := await _stream(self._process.stdout).readline():
            with suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value

    async def wait(self) -> int:
        """Return the exit status."""
        status = await self._process.wait()
        await self._draining
        return status

    async def failure(self) -> FeditError:
        """Return the error of a program that ended too early, with its last words."""
        status = await self.wait()
        return FeditError(f"{self.name} ended early with status {status}", code="X002", where=self._last_words())

    def too_slow(self, seconds: float) -> FeditError:
        """Return the error of a program that still runs and has not become ready, with its last words."""
        return FeditError(f"{self.name} was not ready within {seconds:.0f} s", code="X002", where=self._last_words(),
                          fix="close other programs, then run it again")  # fmt: skip

    def _last_words(self) -> str:
        return " | ".join(line.strip() for line in self._stderr) or "it said nothing"

    async def stop(self) -> None:
        """Ask it to end, then make it; its own children (training workers) too."""
        family = _family(self._process.pid)
        if self._process.returncode is None:
            _signal(self._process.pid, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _PATIENCE_S)
        for member in family:
            with suppress(psutil.Error):
                member.kill()
        await self._process.wait()
        self._draining.cancel()

    async def _drain(self) -> None:
        while line := await _stream(self._process.stderr).readline():
            self._stderr.append(line.decode(errors="replace").rstrip())


@asynccontextmanager
async def started(
    name: str, module: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[Child]:
    """Run `python -m MODULE ARGUMENTS` in a process group of its own and end it with the block, however that ends."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        # The very code that runs here, also where it was put on sys.path by hand.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), **environment},
        # Ctrl-C in the terminal is for the demo, which then ends its children in order.
        start_new_session=True,
        # A demo that is killed cannot end anything; the kernel then does (its workers notice by themselves).
        preexec_fn=_dying_with_parent(),
    )
    child = Child(name, process)
    try:
        yield child
    finally:
        await asyncio.shield(child.stop())


def _dying_with_parent() -> Callable[[], None] | None:
    """Return what a child has to do before it becomes our program so that the parent's death ends it; Linux only.

    In the child it only calls what was looked up here: between fork and exec nothing may be imported or loaded.
    """
    if sys.platform != "linux":
        return None
    prctl, parent, leave = ctypes.CDLL(None).prctl, os.getpid(), os._exit

    def ask_the_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died before the kernel was asked
            leave(1)

    return ask_the_kernel


def _family(pid: int) -> list[psutil.Process]:
    """The process and all that it has started, also in sessions of their own."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise RuntimeError("the process was started with pipes")
    return stream
