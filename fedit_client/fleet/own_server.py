"""A `fedit-server` of the fleet's own, as a process beside it (`--server local`): its task, its start, its orders."""

import math
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomlkit
from pydantic import ValidationError

from fedit_client.base.model import PACKAGED_MODEL
from fedit_client.demo.processes import Child, started
from fedit_client.fleet.settings import FleetSettings
from fedit_client.home.durable import translating
from fedit_protocol.collusion import MAX_COHORT
from fedit_protocol.errors import ConfigError, FleetError
from fedit_protocol.feasible import check_feasible, says_much
from fedit_protocol.task import Mode, Task
from fedit_protocol.task_selection import least_free
from fedit_protocol.task_tables import MethodSpec

_LEAST_COHORT: Final = 3
_SURE: Final = 0.3
_DAYS: Final = 7 * 86400.0

_TASK: Final[dict[str, Any]] = {
    "id": "fleet",
    "title": "A fleet of virtual clients",
    "operator": "the fleet on this machine",
    "base": {"model": PACKAGED_MODEL, "quantization": "nf4"},
    "adapter": {"rank": 8, "alpha": 16.0, "target_modules": ["q_proj", "v_proj"]},
    "prompt": {"template": "alpaca", "cutoff_tokens": 192},
    "training": {"local_steps": 8, "batch_size": 2, "micro_batch_size": 2, "learning_rate": 3e-4},
}
"""The task of a fleet that was given none."""

_OPERATORS_OWN: Final = "retention"
"""A table of a task file that no task has: the server takes it out before."""

_DEADLINES: Final = {"gather_s": 20.0, "join_s": 600.0, "shares_s": 600.0, "upload_s": _DAYS, "unmask_s": 600.0}
"""Nobody waits for them: a stage that lacks only devices that are gone is ended by hand (`stalls`)."""


def task_text(settings: FleetSettings, file: Path | None) -> str:
    """Return the task file of this fleet: the given one, or a plain one; `--model`, `--rounds`, `--cohort` on top.

    Raises FleetError F007 if the given file is no TOML, F009 if it is no task, F001 if a round cannot have so few
    clients.
    """
    task = _TASK if file is None else _read(file)
    if settings.clients < _LEAST_COHORT and not asks_for_trust(task):
        raise FleetError(f"{settings.clients} clients cannot hide one another: a masked round has {_LEAST_COHORT} or "
                         "more", code="F001", where="--clients", fix=f"fedit-client fleet --clients {_LEAST_COHORT}",
                         again=f"--clients {_LEAST_COHORT}")  # fmt: skip
    policy: dict[str, Any] = dict(task.get("round", {}))
    if file is None or settings.cohort:
        size = settings.cohort or min(settings.clients, MAX_COHORT)
        policy |= {"cohort_size": size, "cohort_min": max(_LEAST_COHORT, math.ceil(size * (1 - _SURE)))}
    if file is None:
        policy |= {"dropout_fraction": max(_SURE, min(0.6, 2 * settings.dropout)), "max_failures": 20}
    policy["deadlines"] = {**_DEADLINES, **policy.get("deadlines", {})}
    if settings.rounds:
        policy["rounds"] = settings.rounds
    base = dict(task.get("base", {})) | ({"model": settings.model} if settings.model else {})
    stated = {**task, "base": base, "round": policy}
    _check_enough(_checked(stated, str(file or "--server local")), settings)
    return tomlkit.dumps(stated)


def _checked(stated: Mapping[str, Any], where: str) -> Task:
    """Return the task that a file states; raises FleetError F009 as the server would, which is started much later."""
    said = {name: value for name, value in stated.items() if name != _OPERATORS_OWN}
    try:
        task = Task.model_validate(said)
        check_feasible(task)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in fault["loc"])
        why = (
            "this key does not exist"
            if fault["type"] == "extra_forbidden"
            else fault["msg"].removeprefix("Value error, ")
        )
        raise _refused(f"{key}: {why}" if key else why, where) from error
    except ConfigError as error:
        raise _refused(str(error), where) from error
    return task


def _refused(why: str, where: str) -> FleetError:
    return FleetError(f"the task is refused: {why}", code="F009", where=where, fix="fedit-server task schema")


def _check_enough(task: Task, settings: FleetSettings) -> None:
    """Raise FleetError F001 if a round begins with more clients than there are: it would be waited for for ever."""
    needed, clients = least_free(task), settings.clients
    if needed <= clients:
        return
    choices, lower = [f"--clients {needed}"], ""
    if settings.cohort and clients >= _LEAST_COHORT:
        choices.append(f"--cohort {clients}")
    elif task.round.cohort_min == needed and not says_much(task):  # `clients` are enough to hide one another
        lower = f"; round.cohort_min = {clients} in the task would do as well"
    raise FleetError(f"a round of this task begins with {needed} clients, and this fleet has {clients}, so that none "
                     f"would ever begin{lower}", code="F001", where="--clients",
                     fix=" or ".join(f"fedit-client fleet {choice}" for choice in choices),
                     again="\n".join(choices))  # fmt: skip


def asks_for_trust(task: Mapping[str, Any]) -> bool:
    """Say whether the rounds of a task file are in trusted mode."""
    return bool(task.get("round", {}).get("mode") == Mode.TRUSTED)


def reports_more(task: Task) -> bool:
    """Say whether the server reports more of a task's rounds than each of its devices is told."""
    return bool(task.selection.domains) or task.method != MethodSpec()


def _read(file: Path) -> dict[str, Any]:
    with translating(file):
        raw = file.read_bytes()
    try:
        return tomllib.loads(raw.decode())
    except ValueError as error:
        raise FleetError(f"the task file is not TOML: {str(error).lower()}", code="F007", where=str(file),
                         fix="fedit-server task show, for one that is") from error  # fmt: skip


@dataclass(frozen=True)
class OwnServer:
    """A running server, and what its operator can tell it from the command line."""

    child: Child
    home: Path
    invite: str
    trusted: bool = False

    async def end_stage(self, round_no: int, whole: bool) -> bool:
        """End the present stage of a round with the devices that came, as its deadline would, or the whole round.

        Return False where the server refuses: too few have come, or the round has moved meanwhile.
        """
        words = ["abort", str(round_no), "--reason", "too few are left"] if whole else ["close", str(round_no)]
        return bool((await self._ask("round", *words)).get("ok"))

    async def abort_open_rounds(self) -> int:
        """End rounds that a fleet which was killed has left open: its clients' keys are gone. Return how many."""
        listed = await self._ask("round", "list")
        numbers = [row["no"] for row in listed.get("data", {}).get("rounds", []) if row["state"] == "open"]
        for number in numbers:
            await self._ask("round", "abort", str(number), "--reason", "the fleet was killed")
        return len(numbers)

    async def report(self, round_no: int) -> dict[str, Any]:
        """Return what the server reports of a round that is over; nothing where it cannot be asked."""
        try:
            shown = (await self._ask("round", "show", str(round_no))).get("data") or {}
        except OSError:  # no process can be started just now
            return {}
        return shown.get("report") or {}

    async def _ask(self, *words: str) -> dict[str, Any]:
        async with started("fedit-server", "fedit_server", ["--json", "--home", str(self.home), *words], {}) as child:
            answers = [line async for line in child.lines()]
            await child.wait()
        return answers[-1] if answers else {}


@asynccontextmanager
async def own_server(
    folder: Path, task: Path, base: Path | None, clients: int, *, trusted: bool = False
) -> AsyncIterator[OwnServer]:
    """Serve the task on a free port of this machine while the block runs; a home that is there already goes on.

    A `trusted` server may have tasks whose every update it sees.

    Raises FleetError F009 with the server's last words if it does not start.
    """
    home = folder / "server"
    words = ["--json", "--home", str(home), "up", "--listen", "127.0.0.1:0", "--task", str(task)]
    words += ["--base", str(base)] if base is not None else []
    words += ["--allow-trusted"] if trusted else []
    # Twice: a client that was killed between its enrolment and its own note of it enrols again.
    environment = {"FEDIT_SERVER_INVITE_USES": str(2 * clients),
                   "FEDIT_SERVER_ADDRESS_PER_MINUTE": str(max(3000, 60 * clients))}  # fmt: skip
    async with started("fedit-server", "fedit_server", words, environment) as child:
        yield OwnServer(child, home, await _ready(child), trusted)


async def _ready(child: Child) -> str:
    async for line in child.lines():
        if "invite" in line:
            return str(line["invite"])
        if line.get("error"):
            told = line["error"]
            raise FleetError(f"the fleet's server refuses: {told['message']}", code="F009", where=told.get("where"),
                             fix=told.get("fix"))  # fmt: skip
    failed = await child.failure()
    raise FleetError(f"the fleet's server did not start: {failed}", code="F009", where=failed.where,
                     fix='pip install "fedit[server]"')  # fmt: skip
