"""The real `fedit-server`, started many times from one warm process, that kills itself with SIGKILL at a named point.

Run as a program: every line on stdin is one life, `{"words": [...], "seam": "journal: after the commit", "nth": 3}`.
The life is a forked process that runs the command with seams around what it does; at the nth passage of the seam it
kills itself as a power failure would. stdout carries `{"event": "forked"}`, what the command says and at last
`{"event": "ended"}`.
Nothing of the product knows of this: the seams are put around its functions here, in the process of the test.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from aiohttp import web
from sqlalchemy import func, select

import fedit_server.adapters.peft_folder
import fedit_server.commands.starting
import fedit_server.home.files
import fedit_server.rounds.task_runner
import fedit_server.running.listening
import fedit_server.running.serving
import fedit_server.storage.spool
from fedit_protocol.sealed.opening import OpeningJob
from fedit_protocol.secagg.unmask import UnmaskJob
from fedit_server.cli import main
from fedit_server.rounds.coordinator import Coordinator
from fedit_server.rounds.round_keys import RoundKeys
from fedit_server.storage.database import Database
from fedit_server.storage.rounds import Rounds
from fedit_server.storage.spool import Spool, SpoolReader
from fedit_server.storage.tables import journal

Point = Callable[[str], None]

_doing: ContextVar[str] = ContextVar("doing", default="transaction")
"""Which domain verb the present transaction belongs to."""


class Fuse:
    """Counts how often each seam was passed; kills this process at the chosen passage."""

    def __init__(self, seam: str, nth: int, trace: str) -> None:
        self._seam, self._nth = seam, nth
        self._trace = Path(trace).open("a", buffering=1) if trace else None  # noqa: SIM115 - as long as the process
        self._passed: Counter[str] = Counter()

    def __call__(self, seam: str) -> None:
        self._passed[seam] += 1
        if self._trace is not None:
            self._trace.write(seam + "\n")
        if seam == self._seam and self._passed[seam] == self._nth:
            os.kill(os.getpid(), signal.SIGKILL)


class Watched:
    """Stands for a module; some of its functions pass a seam before and after."""

    def __init__(self, module: ModuleType, point: Point, label: str, names: tuple[str, ...]) -> None:
        self._module = module
        for name in names:
            setattr(self, name, _around(getattr(module, name), point, f"{label} {name}"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class HalfWriting(Watched):
    """Writes half of what it is given and says so, as a kernel may: a kill between the halves leaves a torn chunk."""

    def __init__(self, module: ModuleType, point: Point, label: str, names: tuple[str, ...]) -> None:
        super().__init__(module, point, label, names)
        self._point, self._label = point, label

    def write(self, descriptor: int, chunk: memoryview) -> int:
        self._point(f"{self._label} write: before")
        written = os.write(descriptor, chunk[: len(chunk) // 2 + 1])
        self._point(f"{self._label} write: half")
        return written


def _around(action: Callable[..., Any], point: Point, name: str) -> Callable[..., Any]:
    def watched(*words: Any, **options: Any) -> Any:
        point(f"{name}: before")
        answer = action(*words, **options)
        point(f"{name}: after")
        return answer

    return watched


def _around_async(action: Callable[..., Awaitable[Any]], point: Point, name: str) -> Callable[..., Awaitable[Any]]:
    async def watched(*words: Any, **options: Any) -> Any:
        point(f"{name}: before")
        answer = await action(*words, **options)
        point(f"{name}: after")
        return answer

    return watched


def install(point: Point) -> None:
    """Put the seams around everything that a crash can fall between."""
    _install_database(point)
    _install_requests(point)
    _install_files(point)
    _replace(UnmaskJob, "run", _around(UnmaskJob.run, point, "sum"))
    _replace(OpeningJob, "run", _around(OpeningJob.run, point, "updates opened"))
    for verb in ("create", "destroy"):
        _replace(RoundKeys, verb, _around(getattr(RoundKeys, verb), point, f"round key {verb}"))
    _replace(SpoolReader, "__call__", _around(SpoolReader.__call__, point, "sum reads an upload"))
    _replace(Coordinator, "start", _around_async(Coordinator.start, point, "start-up"))
    for module, name, label in (
        (fedit_server.rounds.task_runner, "record_ending", "ending"),
        (fedit_server.running.serving, "_publish", "publishing"),
        (fedit_server.running.listening, "_bind", "listening"),
    ):
        _replace(module, name, _around_async(getattr(module, name), point, label))
    _replace(fedit_server.commands.starting, "_tell", _around(fedit_server.commands.starting._tell, point, "ready"))


def _replace(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _install_database(point: Point) -> None:
    writing = Database.writing

    @asynccontextmanager
    async def watched(self: Database, *words: Any, **options: Any) -> AsyncIterator[Any]:
        names = _doing.get().split("+")
        point(f"{names[0]}: before the transaction")
        async with writing(self, *words, **options) as connection:
            yield connection
            for name in names:
                point(f"{name}: before the commit")
        for name in names:
            point(f"{name}: after the commit")

    _replace(Database, "writing", watched)
    for verb in ("open", "commit", "fail"):
        _replace(Rounds, verb, _labelled(getattr(Rounds, verb), f"round {verb}"))
    append = Rounds.append

    async def appended(self: Rounds, round_id: Any, cohort_id: Any, records: Any, *words: Any, **options: Any) -> None:
        """Name the transaction after its records' numbers in the round's journal, which counts over all lives."""
        async with self._database.reading() as db:
            query = select(func.count()).select_from(journal).where(journal.c.round_id == round_id)
            first = int((await db.execute(query)).scalar_one()) + 1
        numbers = [f"record {first + place}" for place in range(len(records))]
        token = _doing.set("+".join(["journal", *numbers]) if records else "view")
        try:
            await append(self, round_id, cohort_id, records, *words, **options)
        finally:
            _doing.reset(token)

    _replace(Rounds, "append", appended)


def _labelled(action: Callable[..., Awaitable[Any]], label: str) -> Callable[..., Awaitable[Any]]:
    async def named(*words: Any, **options: Any) -> Any:
        token = _doing.set(label)
        try:
            return await action(*words, **options)
        finally:
            _doing.reset(token)

    return named


def _install_requests(point: Point) -> None:
    @web.middleware
    async def seams(request: web.Request, handler: Callable[[web.Request], Awaitable[Any]]) -> Any:
        name = f"{request.method} {_verb(request.path)}"
        point(f"{name}: before")
        try:
            return await handler(request)
        finally:
            point(f"{name}: after")  # the handler ran, the reply is lost

    serving: Any = fedit_server.running.serving  # the name is imported there, not exported
    build = serving.build_app

    def built(*parts: Any) -> web.Application:
        app: web.Application = build(*parts)
        app.middlewares.append(seams)
        return app

    _replace(serving, "build_app", built)


def _verb(path: str) -> str:
    parts = path.removeprefix("/v1/").split("/")
    return parts[2] if parts[0] == "rounds" and len(parts) > 2 else parts[0]


def _install_files(point: Point) -> None:
    storage: Any = fedit_server.storage.spool
    storage.os = HalfWriting(os, point, "spool", ("open", "fsync", "lseek"))
    storage.shutil = Watched(shutil, point, "spool", ("rmtree",))
    _replace(Spool, "discard_all_but", _around_async(Spool.discard_all_but, point, "clean-up"))
    _replace(fedit_server.home.files, "os", Watched(os, point, "file", ("fsync",)))
    _replace(fedit_server.adapters.peft_folder, "os", Watched(os, point, "folder", ("replace",)))
    _replace(Path, "rename", _around(Path.rename, point, "file rename"))
    _replace(Path, "replace", _around(Path.replace, point, "file replace"))


def _live(life: dict[str, Any]) -> None:
    install(Fuse(life.get("seam", ""), int(life.get("nth", 0)), life.get("trace", "")))
    main(life["words"])


def _serve_lives() -> None:
    for line in sys.stdin:
        life = json.loads(line)
        child = os.fork()
        if not child:
            os.close(0)
            _live(life)
        _say({"event": "forked", "pid": child})
        _, status = os.waitpid(child, 0)
        _say({"event": "ended", "status": os.waitstatus_to_exitcode(status)})


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve_lives()
