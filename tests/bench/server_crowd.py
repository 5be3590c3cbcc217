"""Ten thousand devices on kept-alive TLS beside a live round: memory, latency beyond the long poll, failed requests."""

import asyncio
import contextlib
import sys
from typing import Any, Final

import psutil

from fedit_protocol.encoding import encode
from fedit_server.home.folder import Home, load_identity

from .server_home import COHORT, BenchHome, served
from .server_load import LoadPlan, run_apart
from .server_round import RoundPlan

HOLD_S: Final = 25.0
EVERY_S: Final = 30.0
RAMP_S: Final = 60.0


def crowd_figures(home: BenchHome, lasts_s: float) -> dict[str, Any]:
    """The load, once on lines that stay and once with a new connection for each check-in (for a minute)."""
    kept = asyncio.run(_crowd(home, lasts_s, reconnect=False))
    again = asyncio.run(_crowd(home, min(lasts_s, 60.0), reconnect=True))
    return {**kept, "reconnecting": again}


async def _crowd(home: BenchHome, lasts_s: float, *, reconnect: bool) -> dict[str, Any]:
    with served(home, long_poll_s=HOLD_S, address_per_minute=10_000_000) as (port, process):
        server = psutil.Process(process.pid)
        watch = asyncio.create_task(_peak_mb(server))
        cpu = server.cpu_times()
        playing = await _play(home, port, RAMP_S + lasts_s) if not reconnect else None
        tally = await run_apart(
            LoadPlan(
                port=port,
                authority=str(home.authority),
                federation_id=home.federation_id,
                devices=home.told[COHORT:],
                ramp_s=RAMP_S,
                every_s=EVERY_S,
                lasts_s=lasts_s,
                hold_s=HOLD_S,
                reconnect=reconnect,
            )
        )
        spent = server.cpu_times()
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        survivors = await _survivors(playing) if playing else None
        return {
            "devices": len(home.devices),
            "rss_mb": _PEAK[server.pid],
            "p99_s": tally["p99_s"],
            "p50_s": tally["p50_s"],
            "most_s": tally["most_s"],
            "generator_lag_p99_s": tally["generator_lag_p99_s"],
            "generator_lag_most_s": tally["generator_lag_most_s"],
            "answered": tally["answered"],
            "failed": tally["failed"],
            "failures": str(tally["failures"]),
            "cpu_share": (spent.user + spent.system - cpu.user - cpu.system) / (RAMP_S + lasts_s),
            "round_survivors": survivors,
        }


_PEAK: dict[int, float] = {}


async def _peak_mb(server: psutil.Process) -> None:
    """Note the most resident memory of a process, in 10^6 bytes, until cancelled."""
    while True:
        _PEAK[server.pid] = max(_PEAK.get(server.pid, 0.0), server.memory_info().rss / 1e6)
        await asyncio.sleep(0.5)


async def _play(home: BenchHome, port: int, over_s: float) -> asyncio.subprocess.Process:
    """Start the live round; it is open when this returns: of a crowd that is free too, others would be invited."""
    descriptor = encode(load_identity(Home(home.folder)).descriptor).hex()
    plan = RoundPlan(
        port=port,
        authority=str(home.authority),
        descriptor=descriptor,
        devices=home.told[:COHORT],
        uploads_s=0.6 * over_s,
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.server_round",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the round's process has no pipes")
    process.stdin.write(plan.model_dump_json().encode())
    process.stdin.close()
    if await process.stdout.readline() != b"open\n":
        raise RuntimeError("the live round failed")
    return process


async def _survivors(playing: asyncio.subprocess.Process) -> int:
    out, _ = await playing.communicate()
    if playing.returncode:
        raise RuntimeError("the live round failed")
    return int(out)
