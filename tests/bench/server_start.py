"""From a process's start to readiness, and the memory of an idle server, against the same imports and a bare server."""

import json
import subprocess
import sys
import time
from typing import Final

import psutil

from .server_home import BenchHome, served

_TIMES: Final = 5
_SETTLED_S: Final = 3.0

_BARE: Final = """
import {modules}
from aiohttp import web
import asyncio
async def main():
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print("ready", flush=True)
asyncio.run(main())
"""


def start_figures(home: BenchHome) -> dict[str, float]:
    """`start_to_ready_s`, the bare start beside it, their ratio, and `idle_rss_mb`; the best of some starts."""
    ready, bare, idle = [], [], 0.0
    for _ in range(_TIMES):
        began = time.perf_counter()
        with served(home) as (_, process):
            ready.append(time.perf_counter() - began)
            if not idle:
                time.sleep(_SETTLED_S)
                idle = psutil.Process(process.pid).memory_info().rss / 1e6
        bare.append(_bare_s())
    return {
        "start_to_ready_s": min(ready),
        "bare_start_s": min(bare),
        "start_over_bare": min(ready) / min(bare),
        "idle_rss_mb": idle,
    }


def _bare_s() -> float:
    """Seconds until a process has imported the server's libraries and a bare aiohttp server listens."""
    code = _BARE.format(modules=", ".join(_libraries()))
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline() if process.stdout else ""
    took = time.perf_counter() - began
    process.kill()
    process.wait()
    if line.strip() != "ready":
        raise RuntimeError("the bare server did not start")
    return took


def _libraries() -> list[str]:
    """The third-party packages that a serving process has loaded."""
    code = (
        "import json, sys, fedit_server.running.serving, fedit_server.commands.starting\n"
        "own = {'fedit_client', 'fedit_server', 'fedit_protocol', 'sitecustomize'}\n"
        "found = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - own\n"
        "print(json.dumps(sorted(name for name in found if name.isidentifier() and not name.startswith('_'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout)
    return found
