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
import contextlib, importlib
for name in {modules}:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
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
    """`start_to_ready_s`, bare starts beside it, their ratios, and `idle_rss_mb`; the best of some starts.

    `start_over_bare` compares with importing each package that the server uses, by its own name only;
    `start_over_same_imports` with importing every module of them that the server imports.
    """
    modules = _third_party()
    packages = sorted({name.partition(".")[0] for name in modules})
    ready, bare, same, idle = [], [], [], 0.0
    for _ in range(_TIMES):
        began = time.perf_counter()
        with served(home) as (_, process):
            ready.append(time.perf_counter() - began)
            if not idle:
                time.sleep(_SETTLED_S)
                idle = psutil.Process(process.pid).memory_info().rss / 1e6
        bare.append(_bare_s(packages))
        same.append(_bare_s(modules))
    return {
        "start_to_ready_s": min(ready),
        "bare_start_s": min(bare),
        "start_over_bare": min(ready) / min(bare),
        "same_imports_start_s": min(same),
        "start_over_same_imports": min(ready) / min(same),
        "idle_rss_mb": idle,
    }


def _bare_s(modules: list[str]) -> float:
    """Seconds until a process has imported these modules and a bare aiohttp server listens."""
    code = _BARE.format(modules=modules)
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline() if process.stdout else ""
    took = time.perf_counter() - began
    process.kill()
    process.wait()
    if line.strip() != "ready":
        raise RuntimeError("the bare server did not start")
    return took


def _third_party() -> list[str]:
    """The modules of third parties that a serving process has imported, in that order."""
    code = (
        "import json, sys, fedit_server.running.serving, fedit_server.commands.starting\n"
        "own = {'fedit_client', 'fedit_server', 'fedit_protocol', 'sitecustomize'} | set(sys.stdlib_module_names)\n"
        "found = [name for name in sys.modules if name.split('.')[0] not in own and not name.startswith('_')]\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout)
    return found
