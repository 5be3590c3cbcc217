"""Devices that die and are started again: one launcher for all of them, and one witness over all their lives."""

import asyncio
import base64
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

from .dying_device import Life
from .programs import environment
from .witness import Witness

_ROOT: Final = Path(__file__).resolve().parents[2]
_PROGRAM: Final = (
    f"import sys; sys.path.append({str(_ROOT)!r})\n"  # behind an installed wheel, if there is one
    "from tests.integration.dying_device import serve_lives\n"
    "serve_lives()"
)
_PAUSE_S: Final = 4.0

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Death:
    """Where a life ended."""

    device: int
    round_id: str
    round_no: int
    step: str


@dataclass
class DyingDevices:
    """Devices in processes of their own; whoever was killed starts again after a pause, unless `revive` says no."""

    folder: Path
    lives: list[Life]
    on_event: OnEvent = lambda _event: None
    revive: Callable[[Life], Life | None] = lambda life: life
    deaths: list[Death] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    _launcher: "asyncio.subprocess.Process | None" = None

    async def run(self) -> None:
        """Let every device live until the task has ended for it; raises AssertionError if one ends otherwise."""
        log = (self.folder / "devices.log").open("a")
        self._launcher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=environment(),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for life in self.lives:
                    self._start(life)
                await self._follow(group, {life.device: life for life in self.lives})
        finally:
            assert self._launcher.stdin is not None
            self._launcher.stdin.close()
            await self._launcher.wait()
            log.close()

    async def _follow(self, group: asyncio.TaskGroup, living: dict[int, Life]) -> None:
        assert self._launcher is not None
        assert self._launcher.stdout is not None
        while living:
            line = await self._launcher.stdout.readline()
            assert line, f"the launcher ended\n{self.log()}"
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "dies":
                self.deaths.append(Death(*(event[name] for name in ("device", "round_id", "round_no", "step"))))
            elif event["event"] == "ended":
                life = living.pop(event["device"])
                assert event["status"] in (0, -SIGKILL), f"device {life.device} ended by itself: {event}\n{self.log()}"
                again = self.revive(life) if event["status"] else None
                if again is not None:
                    living[life.device] = again
                    group.create_task(self._later(again))
            self.on_event(event)

    async def _later(self, life: Life) -> None:
        pause_s = random.Random(f"{life.seed}/{life.device}/{len(self.deaths)}").uniform(0, _PAUSE_S)
        await asyncio.sleep(pause_s)  # how long a device is away is what is drawn here
        self._start(life)

    def _start(self, life: Life) -> None:
        assert self._launcher is not None
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(json.dumps(asdict(life)).encode() + b"\n")

    def log(self) -> str:
        """Return the end of what the devices have logged."""
        return (self.folder / "devices.log").read_text()[-4000:]

    def witness(self) -> Witness:
        """Return one witness of everything that the devices have seen and sent, over all their lives."""
        whole = Witness()
        for life in self.lives:
            for line in (Path(life.home) / "seen").read_text().splitlines():
                _tell(whole, life.device, json.loads(line))
        self._check_answers(whole)
        return whole

    def _check_answers(self, whole: Witness) -> None:
        """A device that died with its keys in memory must not answer for that round in a later life."""
        dead: set[tuple[int, str]] = set()
        for event in self.events:
            where = event["device"], event.get("round_id", "")
            if event["event"] == "dies":
                dead.add(where)
            elif event.get("step") in {"unmask", "answered"} and where in dead:
                whole.faults.append(f"device {event['device']} answered for round {where[1]} after it had died in it")


def lives(folder: Path, invite: str, count: int, life: Life) -> list[Life]:
    """Return the first life of `count` devices, each with a folder of its own and otherwise like `life`."""
    return [
        replace(life, device=number, invite=invite, home=str(folder / f"device-{number}"), devices=count)
        for number in range(count)
    ]


def _tell(whole: Witness, device: int, fact: dict[str, Any]) -> None:
    match fact["kind"]:
        case "document":
            whole.saw_document(fact["path"], base64.b64decode(fact["received"]))
        case "join":
            whole.saw_join(device, base64.b64decode(fact["body"]))
        case "upload":  # of the payload its digest: it must be the same in every life
            whole.saw_upload(device, fact["path"], base64.b64decode(fact["header"]), bytes.fromhex(fact["digest"]))
        case "attempt":
            whole.saw_attempt(device, fact["path"], fact["offset"])
        case "receipt":
            whole.saw_receipt(device, fact["path"])
        case "fault":
            whole.faults.append(fact["text"])
