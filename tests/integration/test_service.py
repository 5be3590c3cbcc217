"""The systemd unit's own command line, run as systemd would: it joins in, idles within its memory, ends at SIGTERM."""

import asyncio
import shlex
import signal
import sys
from pathlib import Path

import pytest

from fedit_client.control import read_now
from fedit_client.paths import Paths
from fedit_client.service import systemd
from fedit_client.service.plan import ServicePlan

from ..bench.idle import idling, join, resident_mb
from ..server.bases import make_base
from .federation import exact_task, federation
from .programs import environment, run_json, run_program

_MOST_IDLE_MB = 120.0


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
        told = run_json("fedit_client", "status", "--home", str(home))["data"]
        assert told["doing"][0].startswith("idle for "), told["doing"]
        assert "1 of 3 are free" in told["doing"][0]
        process.send_signal(signal.SIGTERM)
        return process.wait(20), memory_mb


def test_a_service_is_not_installed_for_a_device_that_joined_nothing(tmp_path: Path) -> None:
    shown = run_program("fedit_client", "service", "install", "--dry-run", "--home", str(tmp_path))
    assert (shown.returncode, "ExecStart=" in shown.stdout) == (0, sys.platform == "linux"), shown.stderr
    refused = run_program("fedit_client", "service", "install", "--home", str(tmp_path))
    assert refused.returncode in {4, 8}  # 8 where there is no service manager at all
    assert not list(tmp_path.rglob("*.service"))
