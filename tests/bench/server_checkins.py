"""What one check-in costs the server in CPU time, against a bare handler that verifies one Ed25519 signature."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
from aiohttp import web

from fedit_protocol.signing import Kind, unseal
from fedit_server.home.folder import Home, load_identity

from .server_home import BenchHome, served
from .server_load import LoadPlan, run_apart

REQUESTS: Final = 4000
_WARM: Final = 400
_TURNS: Final = 5


def checkins_over_bare(home: BenchHome) -> dict[str, float]:
    """Check-ins per CPU second of the real server ÷ those of the bare handler, over the same kept-alive TLS lines.

    Each the best of some turns, which they take one after the other.
    """
    with (
        served(home, long_poll_s=0.001, address_per_minute=10_000_000) as (our_port, process),
        _bare(home) as (bare_port, bare_pid),
    ):
        pairs = [
            (
                asyncio.run(per_cpu_second(home, our_port, process.pid)),
                asyncio.run(per_cpu_second(home, bare_port, bare_pid)),
            )
            for _ in range(_TURNS)
        ]
    ours, bare = (max(found) for found in zip(*pairs, strict=True))
    return {"checkins_per_cpu_s": ours, "bare_checkins_per_cpu_s": bare, "checkins_over_bare": ours / bare}


async def per_cpu_second(home: BenchHome, port: int, pid: int) -> float:
    """Send check-ins one after the other on some lines; return how many a CPU second of that process answered."""
    await run_apart(_plan(home, port, _WARM))
    server = psutil.Process(pid)
    before = server.cpu_times()
    tally = await run_apart(_plan(home, port, REQUESTS))
    after = server.cpu_times()
    if tally["failed"]:
        raise RuntimeError(f"check-ins failed: {tally['failures']}")
    return REQUESTS / (after.user + after.system - before.user - before.system)


def _plan(home: BenchHome, port: int, requests: int) -> LoadPlan:
    return LoadPlan(
        port=port,
        authority=str(home.authority),
        federation_id=home.federation_id,
        devices=home.told,
        requests=requests,
    )


@contextmanager
def _bare(home: BenchHome) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", __name__, str(home.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield int(line), process.pid
    finally:
        process.terminate()
        process.wait(30)


async def _serve_bare(folder: Path) -> None:
    identity = load_identity(Home(folder))
    from fedit_protocol.enrollment import federation_context
    from fedit_protocol.messages import CheckIn

    context = federation_context(identity.descriptor.federation_id)

    async def handle(request: web.Request) -> web.Response:
        unseal(await request.read(), Kind.CHECK_IN, context, CheckIn)
        return web.Response(body=bytes(200), content_type="application/cbor")

    app = web.Application()
    app.add_routes([web.post("/v1/checkin", handle)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.tls.server_context()).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_bare(Path(sys.argv[1])))
