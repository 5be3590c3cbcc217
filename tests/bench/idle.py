"""How much memory a joined client holds while it waits: a real server, the real program, looked at from outside."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from fedit_client.home.paths import Paths
from fedit_client.manners.control import Activity, Now, read_now

from ..integration.federation import exact_task, federation
from ..integration.programs import environment, run_program
from ..server.bases import make_base

_PATIENCE_S = 60.0
_SETTLED_S = 2.0


def service_idle_mb() -> float:
    """Resident MB (10⁶ bytes) of a client that has joined, as a service runs it, while it waits for a round."""
    return asyncio.run(_measured())


async def _measured() -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with federation(folder, exact_task(make_base(folder / "base"), 3)) as served:
            home = folder / "home"
            await asyncio.to_thread(join, served.invite, home)
            return await asyncio.to_thread(_of_idle, home)


def join(invite: str, home: Path) -> None:
    """Join with twenty rows, by command, and do not run."""
    home.mkdir()
    rows = home.parent / "rows.jsonl"
    rows.write_text(f"{json.dumps({'instruction': 'say ok', 'response': 'ok'})}\n" * 20, encoding="utf-8")
    words = ("join", "--server", invite, "--data", str(rows), "--accept", "exact@1", "--device", "cpu", "--no-run")
    done = run_program("fedit_client", *words, "--home", str(home))
    if done.returncode:
        raise RuntimeError(f"the client could not join: {done.stderr}")


def _of_idle(home: Path) -> float:
    command = [sys.executable, "-m", "fedit_client", "run", "--home", str(home)]
    with idling(command, home, environment()) as process:
        return resident_mb(process.pid)


def resident_mb(pid: int) -> float:
    """Resident MB of a process that has settled."""
    time.sleep(_SETTLED_S)
    return float(psutil.Process(pid).memory_info().rss) / 1e6


@contextmanager
def idling(command: list[str], home: Path, env: dict[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a client until it waits for a round, yield its process, and end it with the block."""
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait_until_idle(process, Paths.under(home))
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait_until_idle(process: "subprocess.Popen[bytes]", paths: Paths) -> Now:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        now = read_now(paths)
        if now is not None and now.activity is Activity.WAITING:
            return now
        if process.poll() is not None:
            raise RuntimeError(f"the client ended early with status {process.returncode}")
        time.sleep(0.1)
    raise RuntimeError("the client does not idle")
