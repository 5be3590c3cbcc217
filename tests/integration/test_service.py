"""The systemd unit's own command line, run as systemd would: it joins in, idles within its memory, ends at SIGTERM."""

import asyncio
import shlex
import signal
import sys
from pathlib import Path

import pytest

from fedit_client.home.paths import Paths
from fedit_client.manners.control import Wish, read_now
from fedit_client.network.patience import utc_now
from fedit_client.running.doing import doing_lines
from fedit_client.service import systemd
from fedit_client.service.plan import ServicePlan

from ..bench.idle import idling, join, resident_mb
from ..server.bases import make_base
from .federation import exact_task, federation
from .programs import environment

_MOST_IDLE_MB = 120.0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="systemd is for Linux, and SIGTERM for POSIX")
async def test_the_units_command_idles_and_ends_when_told(tmp_path: Path) -> None:
    async with federation(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as served:
        home = tmp_path / "my notes 100%"
        await asyncio.to_thread(join, served.invite, home)
        unit = systemd.unit(ServicePlan(home, tmp_path / "service.log"))
        lines = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
        command = [word.replace("%%", "%") for word in shlex.split(lines["ExecStart"])]
        status, memory_mb = await asyncio.to_thread(_idle_and_end, command, home)
    assert str(status) in lines["SuccessExitStatus"].split()
    assert memory_mb <= _MOST_IDLE_MB
    assert read_now(Paths.under(home)) is None


def _idle_and_end(command: list[str], home: Path) -> tuple[int, float]:
    with idling(command, home, environment()) as process:
        memory_mb = resident_mb(process.pid)
        doing = doing_lines(read_now(Paths.under(home)), Wish(), utc_now())
        assert doing[0].startswith("idle for "), doing
        assert "1 of 3 are free" in doing[0]
        process.send_signal(signal.SIGTERM)
        return process.wait(20), memory_mb
