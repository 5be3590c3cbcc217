"""A server that is killed on purpose and started again, in the middle of rounds that go on."""

import asyncio
import json
import os
import random
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from .programs import environment

_LAUNCHER: Final = Path(__file__).with_name("crashing_server.py")
_START_S: Final = 60.0


@dataclass(frozen=True)
class KillPoint:
    """Where a life ends: at the nth passage of a seam. `index` is its number in the campaign, to repeat it alone."""

    index: int
    seam: str
    nth: int

    def __str__(self) -> str:
        return f"[{self.index}] {self.seam} ({self.nth})"


# How often a round passes each seam at most, n = 5: a point is drawn as a seam and then a passage.
_BOTH: Final = ("before", "after")
_REQUESTS: Final = {
    "POST checkin": 5, "POST join": 5, "GET roster": 5, "POST shares": 5, "GET inbox": 5, "POST ack": 5,
    "GET sharers": 5, "HEAD uploads": 5, "PUT uploads": 5, "GET survivors": 5, "POST unmask": 5, "GET result": 9,
    "GET blobs": 5,
}  # fmt: skip
_TRANSACTIONS: Final = {"transaction": 1, "journal": 28, "round open": 1, "round commit": 1}
_FILES: Final = {
    "spool open": 5, "spool lseek": 5, "spool fsync": 5, "spool rmtree": 1, "file rename": 5, "file fsync": 6,
    "file replace": 4, "folder replace": 1,
}  # fmt: skip
_WORK: Final = {"sum": 1, "sum reads an upload": 5, "ending": 1}
_STARTING: Final = {"publishing": 1, "start-up": 1, "clean-up": 1, "listening": 1, "ready": 1}

SEAMS: Final[dict[str, int]] = {
    **{f"{name}: {edge}": most for name, most in (_REQUESTS | _FILES | _WORK | _STARTING).items() for edge in _BOTH},
    **{
        f"{name}: {edge}": most
        for name, most in _TRANSACTIONS.items()
        for edge in ("before the transaction", "before the commit", "after the commit")
    },
    "spool write: before": 60,
    "spool write: half": 60,
}
"""Every seam of the launcher → how many of its passages are drawn from."""

RECORDS: Final = 5 + 1 + 5 + 1 + 5 + 1 + 5 + 1 + 4 + 1
"""Journal records of a round of five from which nobody is lost: messages, and after each kind the frozen set."""


def every_record(records: int = RECORDS) -> list[KillPoint]:
    """Return the points just before and just after the commit of each record of one round's journal."""
    edges = ("before the commit", "after the commit")
    return [
        KillPoint(index, f"record {number}: {edge}", 1)
        for index, (number, edge) in enumerate((number, edge) for number in range(1, records + 1) for edge in edges)
    ]


def drawn(seed: int, count: int) -> list[KillPoint]:
    """Draw points from a seed: each seam is as likely as another, then each of its passages.

    Every point has a generator of its own, so that `drawn(seed, …)[index]` is the same point in any campaign.
    """
    points = []
    for index in range(count):
        chance = random.Random(f"{seed}/{index}")
        seam = chance.choice(sorted(SEAMS))
        points.append(KillPoint(index, seam, chance.randint(1, SEAMS[seam])))
    return points


@dataclass
class CrashingServer:
    """One server on a folder of its own; a life ends at its kill point or by `stop`, the next has the same port."""

    home: Path
    task: Path
    port: int = 0
    invite: str = ""
    words: tuple[str, ...] = ()
    """Further options of the first `up`."""
    lives: int = 0
    _launcher: "asyncio.subprocess.Process | None" = None
    _pid: int = 0
    _log: Any = field(default=None, repr=False)

    async def __aenter__(self) -> "CrashingServer":
        self._log = (self.home.parent / "server.log").open("a")
        self._launcher = await asyncio.create_subprocess_exec(
            sys.executable,
            str(_LAUNCHER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log,
            env=environment(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        launcher = self._running()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
        assert launcher.stdin is not None
        launcher.stdin.close()
        await launcher.wait()
        self._log.close()

    async def start(self, point: KillPoint | None = None, trace: str = "") -> bool:
        """Start a life; returns True once it listens, False if it died before that."""
        words = ["serve"] if self.invite else ["up", "--task", str(self.task), *self.words]
        words += ["--home", str(self.home), "--listen", f"127.0.0.1:{self.port}", "--json"]
        life: dict[str, Any] = {"words": words, "trace": trace}
        if point is not None:
            life |= {"seam": point.seam, "nth": point.nth}
        stdin = self._running().stdin
        assert stdin is not None
        stdin.write(json.dumps(life).encode() + b"\n")
        self.lives += 1
        async with asyncio.timeout(_START_S):
            while True:
                event = await self._event()
                match event["event"]:
                    case "forked":
                        self._pid = int(event["pid"])
                    case "ready":
                        self.port, self.invite = int(event["port"]), event.get("invite", self.invite)
                        return True
                    case _:
                        self._check_killed(event)
                        return False

    async def killed(self) -> None:
        """Wait until the present life has killed itself."""
        self._check_killed(await self._event())

    async def kill(self) -> None:
        """Kill the present life from outside, wherever it is."""
        os.kill(self._pid, signal.SIGKILL)
        await self.killed()

    async def stop(self) -> None:
        """Ask the present life to stop, as systemd would."""
        os.kill(self._pid, signal.SIGTERM)
        event = await self._event()
        self._pid = 0
        assert event == {"event": "ended", "status": 0}, event

    def log(self) -> str:
        """Return the end of what the server has logged."""
        return (self.home.parent / "server.log").read_text()[-4000:]

    def _check_killed(self, event: dict[str, Any]) -> None:
        self._pid = 0
        if event != {"event": "ended", "status": -signal.SIGKILL}:
            raise AssertionError(f"the server ended by itself: {event}\n{self.log()}")

    async def _event(self) -> dict[str, Any]:
        stdout = self._running().stdout
        assert stdout is not None
        line = await stdout.readline()
        if not line:
            raise AssertionError(f"the launcher ended\n{self.log()}")
        event: dict[str, Any] = json.loads(line)
        return event

    def _running(self) -> asyncio.subprocess.Process:
        assert self._launcher is not None
        return self._launcher
