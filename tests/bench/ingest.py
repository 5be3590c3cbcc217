"""What the server spends on an uploaded megabyte over HTTPS, against a bare handler that reads and drops."""

import asyncio
import hashlib
import os
import ssl
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import process_time
from typing import Final

from aiohttp import web

from fedit_protocol.ids import ClientId, RoundId
from fedit_server.access.requests import METRICS
from fedit_server.keys.tls import TlsFiles
from fedit_server.metrics import Metrics
from fedit_server.routes.keys import SPOOL
from fedit_server.routes.uploads import store
from fedit_server.storage.spool import Slot, Spool

UPLOAD_BYTES: Final = 32 << 20
REPEATS: Final = 5
_READ_BYTES: Final = 256 * 1024
"""What asyncio reads from a TLS connection at most at once."""

_SENDER: Final = """
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
line = http.client.HTTPSConnection("localhost", int(sys.argv[2]), context=context)
line.request("PUT", sys.argv[3], body=bytes(int(sys.argv[4])))
assert line.getresponse().status == 204
"""


def ingest_figures() -> dict[str, float]:
    """CPU seconds of this process per upload, ours ÷ the sink's, each the best of some; the sender is another one.

    The floor is what no server can save that keeps what it receipts: the sink, SHA-256, and one durable write.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spent = asyncio.run(_measure(folder))
        keeping = min(_keep(folder / "kept") for _ in range(REPEATS))
    return {
        "ingest_cpu_over_sink": spent["ingest"] / spent["sink"],
        "ingest_floor_over_sink": (spent["sink"] + keeping) / spent["sink"],
    }


def _keep(path: Path) -> float:
    """CPU seconds to hash an upload and to write it durably, in the sizes that the network hands over."""
    block = bytes(_READ_BYTES)
    start = process_time()
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for _ in range(UPLOAD_BYTES // len(block)):
            file.write(block)
            digest.update(block)
        os.fsync(file.fileno())
    return process_time() - start


async def _measure(folder: Path) -> dict[str, float]:
    tls = TlsFiles(folder)
    now = datetime.now(UTC)
    tls.create_authority(now)
    tls.renew_leaf(["localhost"], now)
    (folder / "authority.pem").write_text(tls.authority_pem())
    app = web.Application()
    app[SPOOL] = Spool(folder / "spool")
    app[METRICS] = Metrics()
    app.add_routes([web.put("/sink", _sink), web.put("/ingest/{number}", _ingest)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        port = await _listen(runner, tls.server_context())
        spent: dict[str, list[float]] = {"sink": [], "ingest": []}
        for number in range(REPEATS):
            spent["sink"].append(await _send(folder, port, "/sink"))
            spent["ingest"].append(await _send(folder, port, f"/ingest/{number}"))
    finally:
        await runner.cleanup()
    return {what: min(seconds) for what, seconds in spent.items()}


async def _listen(runner: web.AppRunner, context: ssl.SSLContext) -> int:
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return int(runner.addresses[0][1])


async def _send(folder: Path, port: int, path: str) -> float:
    start = process_time()
    arguments = ("-c", _SENDER, str(folder / "authority.pem"), str(port), path, str(UPLOAD_BYTES))
    sender = await asyncio.create_subprocess_exec(sys.executable, *arguments)
    if await sender.wait():
        raise RuntimeError(f"the upload to {path} failed")
    return process_time() - start


async def _sink(request: web.Request) -> web.Response:
    while await request.content.readany():
        pass
    return web.Response(status=204)


async def _ingest(request: web.Request) -> web.Response:
    client = ClientId(f"{int(request.match_info['number']):064x}")
    await store(request, Slot(RoundId("0" * 32), client, 1, UPLOAD_BYTES, _ZEROS_DIGEST), 0)
    return web.Response(status=204)


_ZEROS_DIGEST: Final = hashlib.sha256(bytes(UPLOAD_BYTES)).digest()
