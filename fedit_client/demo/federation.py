"""`fedit-client demo`: a server and three clients, each its own process, on loopback HTTPS; then who learned what.

The federation is the one of the field: invites, pins, masks, journals. Only the comparison afterwards sees all shards,
and it runs where they lie.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_client.base.model import resolve_base
from fedit_client.client import Client
from fedit_client.config import load_config
from fedit_client.console import Console
from fedit_client.data import read_records
from fedit_client.demo.comparison import Comparison
from fedit_client.demo.plan import DemoRows, Pace, bundled_rows, demo_task, fitting_pace, split_rows, task_text
from fedit_client.demo.processes import Child, started
from fedit_client.demo.report import DemoReport
from fedit_client.demo.view import DemoView
from fedit_client.hardware.device import DevicePlan, Machine, plan
from fedit_client.home.durable import write_atomic
from fedit_client.home.paths import Paths
from fedit_client.rounds.preparation import check_training_stack
from fedit_client.task_groups import task_group
from fedit_protocol.errors import ConfigError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument

_READY_S: Final = 120.0
_SLOWER_THAN_ALONE: Final = 1.3  # three processes share memory and caches


@dataclass(frozen=True)
class DemoWishes:
    """What the person asked for; None means the bundled rows, the packaged model, the task's rounds."""

    data: Path | None = None
    model: str | None = None
    rounds: int | None = None
    keep: Path | None = None
    chat: bool = True


@dataclass(frozen=True)
class Stage:
    """One demo on its way: where its files lie, which base, how to train."""

    home: Path
    base: Path
    rows: DemoRows
    plan: DevicePlan
    console: Console


async def rehearse(paths: Paths, console: Console, wishes: DemoWishes) -> DemoReport:
    """Run the whole demo and return its report; all processes are gone and the folder is removed afterwards."""
    check_training_stack()
    with ExitStack() as stack:
        home = stack.enter_context(_workspace(wishes.keep))
        rows = split_rows(wishes.data, home / "rows") if wishes.data else bundled_rows(stack)
        task = demo_task()
        model = wishes.model or str(task["base"]["model"])
        console.say(f"three clients with {_counts(rows)} rows; {len(rows.held_out)} rows are held out from all of them")
        base = await asyncio.to_thread(
            resolve_base, model, "", paths.cache, most_bytes=Limits().max_base_bytes, say=console.say
        )
        console.done(f"base model {model}")
        wanted = Pace(wishes.rounds or int(task["round"]["rounds"]), int(task["training"]["local_steps"]))
        document, pace = await _measured(console, home, base, rows, task_text(task, model, wanted), wanted)
        shortened = pace != wanted
        stage = Stage(home / "federation", base, rows, _plan(document), console)
        document = await _federate(stage, task_text(task, model, pace))
        comparison = Comparison(document, base, stage.plan, rows, home)
        return await comparison.report(stage.home / "clients", pace, console, shortened=shortened, chat=wishes.chat)


async def _measured(
    console: Console, home: Path, base: Path, rows: DemoRows, text: str, wanted: Pace
) -> tuple[TaskDocument, Pace]:
    """Train one step as a probe, and return the task with a pace that this machine can keep."""
    async with _server(home / "probe", base, text) as (_, invite):
        looking = Client.open(invite, config=load_config(home / "probe" / "client"))
        document = (await looking.fetch_offer()).document
    console.say("probing how fast this machine trains …", style="dim")
    probe = Comparison(document, base, _plan(document), rows, home)
    begun = time.monotonic()
    step_s = await probe.seconds_per_step()
    load_s = max(0.0, time.monotonic() - begun)
    pace = fitting_pace(wanted, step_s * _SLOWER_THAN_ALONE, load_s, Machine.here().cores)
    speed = f"{step_s:.1f} s a step"
    if pace == wanted:
        console.done(f"{speed}: {pace.rounds} rounds of {pace.steps} steps on each client")
    else:
        console.warn(
            f"{speed}: this machine is slow, so {wanted.rounds} rounds of {wanted.steps} steps are shortened to "
            f"{pace.rounds} of {pace.steps}"
        )
    return document, pace


async def _federate(stage: Stage, text: str) -> TaskDocument:
    """Run server and clients until the task is finished; return the task as the clients agreed to it."""
    async with _server(stage.home, stage.base, text) as (server, invite), AsyncExitStack() as stack:
        offer = await Client.open(invite, config=load_config(stage.home / "look")).fetch_offer()
        for line in offer.summary.lines():
            stage.console.say(f"  {line}")
        clients = [
            await stack.enter_async_context(_client(stage, name, shard, offer.summary.label, invite))
            for name, shard in stage.rows.shards.items()
        ]
        with DemoView(stage.console, [child.name for child in clients]) as view:
            async with task_group() as group:
                watch = group.create_task(_must_live(server))
                following = [group.create_task(_follow(child, view)) for child in clients]
                await asyncio.wait(following)
                watch.cancel()
    stage.console.done("the federation has finished; the server saw sums only")
    return offer.document


@asynccontextmanager
async def _server(home: Path, base: Path, text: str) -> AsyncIterator[tuple[Child, str]]:
    """A server on a port of its own choice; yields it with its invite link."""
    task = home / "task.toml"
    write_atomic(task, text.encode())
    arguments = ["--json", "--home", str(home / "server"), "up", "--listen", "127.0.0.1:0"]
    arguments += ["--task", str(task), "--base", str(base)]
    async with started("fedit-server", "fedit_server", arguments, {}) as child:
        try:
            async with asyncio.timeout(_READY_S):
                invite = await _invite(child)
        except TimeoutError as error:
            raise child.too_slow(_READY_S) from error
        yield child, invite


async def _invite(server: Child) -> str:
    async for line in server.lines():
        if "invite" in line:
            return str(line["invite"])
    raise await server.failure()


@asynccontextmanager
async def _client(stage: Stage, name: str, shard: Path, label: str, invite: str) -> AsyncIterator[Child]:
    home = stage.home / "clients" / name
    arguments = ["join", "--home", str(home), "--data", str(shard), "--name", name, "--model", str(stage.base)]
    arguments += ["--accept", label, "--device", stage.plan.kind]
    arguments += ["--threads", str(stage.plan.threads), "--yes", "--json"]
    # The invite is a secret: through the environment, not through the list of processes.
    async with started(name, "fedit_client", arguments, {"FEDIT_SERVER": invite}) as child:
        yield child


async def _follow(child: Child, view: DemoView) -> None:
    """Show a client's events until it ends; raises if it does not end well."""
    async for line in child.lines():
        view.show(child.name, line)
    if await child.wait() != 0:
        raise await child.failure()


async def _must_live(server: Child) -> None:
    async for _ in server.lines():
        pass
    raise await server.failure()


def _plan(document: TaskDocument) -> DevicePlan:
    """One client's share of this machine: several training processes on few cores must not fight over them."""
    machine = Machine.here()
    return plan(document, machine, "auto", max(1, machine.cores // 3))


def _counts(rows: DemoRows) -> str:
    return ", ".join(str(len(read_records(path).records)) for path in rows.shards.values())


@contextmanager
def _workspace(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists() and any(keep.iterdir()):
            raise ConfigError("the folder to keep the demo in is not empty", code="U008", where=str(keep),
                              fix="fedit-client demo --keep NEW_FOLDER", again="--keep NEW_FOLDER")  # fmt: skip
        yield keep.absolute()
        return
    home = Path(tempfile.mkdtemp(prefix="fedit-demo-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
