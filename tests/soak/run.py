"""One soak: a real `fedit-server`, a proxy that cuts its lines, the devices, and whoever kills the server."""

import asyncio
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, ClientTimeout, TCPConnector

from fedit_protocol.adapter import AdapterLayout
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor, InviteLink
from fedit_protocol.ids import IdentityKey
from fedit_protocol.task import Task
from fedit_server.tasks.base_model import read_folder

from ..bench.loop_gap import RealClock
from ..integration.cutting_proxy import CuttingProxy, cutting_proxy
from ..integration.programs import ServerProcess, run_program, write_task
from .device import ANSWER_S, SoakDevice
from .ledger import Ledger
from .plan import LONG_POLL_S, SoakPlan, soak_tasks
from .watch import LONG_LIFE_S, Watch, last_over_second, within_longest_life

MOST_GROWTH: Final = 1.05
MOST_THREADS: Final = 64
SPARE_FILES: Final = 100
"""Files beyond one connection per device that the server may have open: database, spool, lines that fell silent."""

_LEFT_FILES: Final = 25
_ALL_GONE_S: Final = 120.0
_JOIN_AT_ONCE: Final = 20


@dataclass
class Soak:
    """The parts of a run."""

    plan: SoakPlan
    server: ServerProcess
    tasks: Sequence[Task]
    layout: AdapterLayout
    ledger: Ledger = field(default_factory=Ledger)
    watch: Watch = field(default_factory=Watch)
    told: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    slowest_start_s: float = 0.0

    async def start(self) -> None:
        """Start the server and note its process."""
        began = time.monotonic()
        await asyncio.to_thread(self.server.start)
        self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - began)
        self.watch.begins(self.server.pid)

    async def kill(self) -> None:
        """Kill the server when the plan says, life after life, and start it again on the same folder."""
        for life_s in self.plan.lives():
            moment = self.plan.kill_at(time.monotonic() - self.watch.started, life_s)
            if moment is None:
                return
            await asyncio.sleep(self.watch.started + moment - time.monotonic())
            self.watch.ends()
            await asyncio.to_thread(self.server.kill)
            self.kills += 1
            await self.start()

    async def devices(self, http: ClientSession, direct: ClientSession) -> list[SoakDevice]:
        """Enrol every device over HTTPS, on lines that hold."""
        known = decode(FederationDescriptor, (self.server.home / "descriptor.cbor").read_bytes())
        code, turn = InviteLink.parse(self.server.ready["invite"]).code, asyncio.Semaphore(_JOIN_AT_ONCE)
        devices = [
            SoakDevice(http, known, RealClock(), number=number, ledger=self.ledger, told=self.told,
                       chance=self.plan.manners(number), size=self.layout.size)
            for number in range(self.plan.devices)
        ]  # fmt: skip

        async def enroll(device: SoakDevice) -> None:
            async with turn:
                device.http = direct
                await device.enroll(code)
                device.http = http

        await asyncio.gather(*(enroll(device) for device in devices))
        self.ledger.devices = {IdentityKey(device.key.public): device.number for device in devices}
        return devices

    async def run(self, proxy: CuttingProxy, tls: ssl.SSLContext) -> dict[str, int]:
        """Play for as long as the plan says; returns what the server held open before, and after all had gone."""
        idle = self.watch.look()
        async with _lines(proxy.port, tls) as http:
            async with _lines(self.server.port, tls) as direct:
                devices = await self.devices(http, direct)
            self.watch.started = time.monotonic()
            self.watch.samples.clear()
            proxy.cut_from_now_on(self.plan.cuts())
            until = self.watch.started + self.plan.lasts_s
            watching = asyncio.create_task(self.watch.run())
            async with asyncio.TaskGroup() as group:
                group.create_task(self.kill())
                for device in devices:
                    group.create_task(device.live([task.id for task in self.tasks], until))
            watching.cancel()
        await proxy.close()
        limit = time.monotonic() + _ALL_GONE_S
        before = idle.files if idle else 0
        most = before + _LEFT_FILES
        while (left := self.watch.look()) and left.files > most and time.monotonic() < limit:  # noqa: ASYNC110 - another process's files
            await asyncio.sleep(1)
        return {"idle": before, "at_the_end": left.files if left else 0}

    def figures(self, proxy: CuttingProxy, files: dict[str, int]) -> dict[str, Any]:
        """Stop the server, check what it leaves behind, and return everything that was measured."""
        code = self.server.stop()
        checked = run_program("fedit_server", "db", "check", "--home", str(self.server.home))
        tasks = self.ledger.check(self.server.home, self.layout, self.tasks)
        samples, lasts_s = self.watch.samples, self.plan.lasts_s
        length, own_growth = within_longest_life(samples)
        log = (self.server.home.parent / "server.log").read_text("utf-8")
        found = {
            "minutes": self.plan.minutes,
            "devices": self.plan.devices,
            "seed": self.plan.seed,
            "kills": self.kills,
            "slowest_start_s": round(self.slowest_start_s, 2),
            "lines": len(proxy.lines),
            "lines_cut": proxy.count,
            "told": dict(self.told.most_common()),
            "tasks": tasks,
            "files": {**files, "most": max((sample.files for sample in samples), default=0)},
            "threads_most": max((sample.threads for sample in samples), default=0),
            "rss_mb_most": max((sample.rss_mb for sample in samples), default=0.0),
            "rss_last_over_second": last_over_second(samples, lasts_s),
            "longest_life_s": length,
            "rss_within_longest_life": own_growth,
            "tracebacks": log.count("Traceback (most recent call last)"),
            "stopped_with": code,
            "db_check": checked.returncode,
        }
        return {**found, "faults": self.ledger.faults + faults(found, checked.stdout + checked.stderr)}


def faults(found: dict[str, Any], db_check: str) -> list[str]:
    """Return which figures are not as they must be, one sentence each."""
    wrong = []
    if found["db_check"] != 0:
        wrong.append(f"db check: {db_check.strip()}")
    if found["stopped_with"] != 0:
        wrong.append(f"SIGTERM ended the server with {found['stopped_with']}")
    if found["tracebacks"]:
        wrong.append(f"{found['tracebacks']} tracebacks in the server's log")
    if found["threads_most"] > MOST_THREADS:
        wrong.append(f"{found['threads_most']} threads")
    files = found["files"]
    if files["most"] > files["idle"] + found["devices"] + SPARE_FILES:
        wrong.append(f"{files['most']} open files for {found['devices']} devices")
    if files["at_the_end"] > files["idle"] + _LEFT_FILES:
        wrong.append(f"{files['at_the_end']} open files with no device there, {files['idle']} at the start")
    growth = found["rss_last_over_second"]
    if growth is not None and growth > MOST_GROWTH:
        wrong.append(f"resident memory of the last quarter is {growth:.3f} times that of the second")
    own = found["rss_within_longest_life"]
    if own is not None and found["longest_life_s"] >= LONG_LIFE_S and own > MOST_GROWTH:
        wrong.append(f"resident memory within the longest life grew {own:.3f} times")
    if not all(counts["sums_checked"] for counts in found["tasks"].values()):
        wrong.append("a task has not committed a single round")
    return wrong


@asynccontextmanager
async def _lines(port: int, tls: ssl.SSLContext) -> AsyncIterator[ClientSession]:
    connector = TCPConnector(limit=0, ssl=tls, family=socket.AF_INET)
    async with ClientSession(
        f"https://localhost:{port}", timeout=ClientTimeout(total=ANSWER_S), connector=connector
    ) as http:
        yield http


async def soak(plan: SoakPlan, folder: Path) -> dict[str, Any]:
    """Run a plan in an empty folder and return its figures; `faults` is empty if all is well."""
    tasks, files = soak_tasks(folder, plan.devices), []
    for task in tasks:
        (folder / task.id).mkdir()
        files.append(write_task(task, folder / task.id))
    shapes = read_folder(folder / "base").linear_shapes
    layout = AdapterLayout.of_lora(shapes, tasks[0].adapter.target_modules, tasks[0].adapter.rank)
    home = folder / "server"
    home.mkdir(mode=0o700)
    (home / "server.toml").write_text(
        f"address_per_minute = 10000000\ninvite_uses = {plan.devices}\nlong_poll_s = {LONG_POLL_S}\n"
    )
    with ServerProcess(home, files[0], words=("--task", str(files[1]))) as server:
        run = Soak(plan, server, tasks, layout)
        run.watch.begins(server.pid)
        known = decode(FederationDescriptor, (home / "descriptor.cbor").read_bytes())
        async with cutting_proxy(server.port) as proxy:
            open_files = await run.run(proxy, ssl.create_default_context(cadata=known.tls_ca))
            return await asyncio.to_thread(run.figures, proxy, open_files)
