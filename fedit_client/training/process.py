"""A worker process seen from outside: one for a round, an evaluation or a chat, killed when nobody waits for it."""

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from fedit_client.hardware.device import DevicePlan
from fedit_protocol.errors import (
    DataError,
    DeviceError,
    EvaluationError,
    FeditError,
    ModelError,
    StorageError,
    TaskRefusedError,
)

Json = dict[str, Any]

_KEPT_STDERR_LINES: Final = 12
_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
_KILLED: Final = (-9, 137)  # by the kernel's out-of-memory killer, or a container's, unless somebody did it by hand
ERRORS: Final[dict[str, type[FeditError]]] = {
    kind.__name__: kind
    for kind in (DataError, DeviceError, EvaluationError, ModelError, StorageError, TaskRefusedError)
}
"""What a worker can raise in its parent, by the names of the classes."""


class WorkerDiedError(DeviceError):
    """The process ended by itself, without a word of its own: H003 if it was killed, H004 if it crashed."""


class Worker:
    """A running worker module (`training/worker.py`, `evaluation/worker.py`): JSON lines in, JSON lines out."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        if not (process.stdin and process.stdout and process.stderr):
            raise RuntimeError("a worker is started with three pipes")
        self._process, self._stdin, self._stdout, self._errors = process, process.stdin, process.stdout, process.stderr
        self._last_lines: deque[str] = deque(maxlen=_KEPT_STDERR_LINES)
        self._draining = asyncio.create_task(self._drain())

    async def send(self, message: Json) -> None:
        """Write one line to the worker; a worker that has died is noticed by the next `receive`."""
        self.post(message)
        with suppress(ConnectionError):
            await self._stdin.drain()

    def post(self, message: Json) -> None:
        """Write one short line without waiting."""
        self._stdin.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Json:
        """Return the next line; raises the worker's own error, or WorkerDiedError at its end."""
        line = await self._stdout.readline()
        if not line:
            raise await self._died()
        message: Json = json.loads(line)
        if message["kind"] == "error":
            raise ERRORS.get(message["error"], DeviceError)(
                message["message"], code=message["code"], where=message["where"], fix=message["fix"]
            )
        return message

    async def receive_bytes(self, count: int) -> bytes:
        """Return the bytes that follow a line; raises WorkerDiedError if the worker ends before."""
        try:
            return await self._stdout.readexactly(count)
        except asyncio.IncompleteReadError as error:
            raise await self._died() from error

    async def stop(self) -> None:
        """Kill the process if it still runs and wait until it is gone."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._draining.cancel()

    async def _drain(self) -> None:
        while line := await self._errors.readline():
            self._last_lines.append(line.decode(errors="replace").rstrip())

    async def _died(self) -> WorkerDiedError:
        status = await self._process.wait()
        await self._draining
        last = " | ".join(self._last_lines) or "it said nothing"
        if status in _KILLED:
            return WorkerDiedError(
                "the training process was killed, probably for want of memory",
                code="H003",
                where=last,
                fix="close other programs, or lower training.micro_batch_size in the task",
            )
        return WorkerDiedError(f"the training process ended with status {status}", code="H004", where=last)


@asynccontextmanager
async def started(module: str, plan: DevicePlan, base: Path, *, hub: bool = False) -> AsyncIterator[Worker]:
    """Start `python -m module` and end it with the block, however the block ends.

    With `hub` it may ask the model hub although its base is a folder, unless this program's environment forbids that.
    """
    process = await asyncio.create_subprocess_exec(
        plan.python or sys.executable,
        # Modules in the folder where the person happens to stand are not ours to import.
        "-P",
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_MAX_LINE_BYTES,
        env=_environment(plan, base, hub=hub),
        # Ctrl-C in the terminal is for the client, which then decides what happens to its worker.
        start_new_session=True,
    )
    worker = Worker(process)
    try:
        yield worker
    finally:
        # Cancelled or not, the process must be gone before the block ends.
        await asyncio.shield(worker.stop())


def _environment(plan: DevicePlan, base: Path, *, hub: bool) -> Mapping[str, str]:
    """The parent's environment with what the libraries read at import; the parent's own is never written."""
    changed = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    threads = {name: str(plan.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"} if base.is_dir() and not hub else {}
    # The worker must find the very code that runs here, also where it was put on sys.path by hand. Another interpreter
    # has its own, of the same version: packages of this one would not fit it.
    path = {} if plan.python else {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return {**os.environ, **changed, **threads, **offline, **path}
