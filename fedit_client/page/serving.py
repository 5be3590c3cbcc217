"""The page while it is served: a port on loopback, a browser that is shown the way, until somebody stops it."""

import asyncio
import html
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from aiohttp import web

from fedit_client.config import ClientConfig
from fedit_client.home.durable import write_atomic
from fedit_client.network.patience import utc_now
from fedit_client.page.app import Page
from fedit_client.page.conversation import Conversation, newest_of, voice_of
from fedit_client.page.door import Door
from fedit_protocol.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
USUAL_PORT: Final = 7717


@asynccontextmanager
async def serving(
    config: ClientConfig,
    port: int | None = None,
    conversation: Conversation | None = None,
    now: Callable[[], datetime] = utc_now,
) -> AsyncIterator[str]:
    """Serve the page and yield the address that opens it once; `port` None is the usual one, or a free one.

    Raises ConfigError U013 if a port that was asked for is taken.
    """
    async with AsyncExitStack() as stack:
        talk = await stack.enter_async_context(
            conversation or Conversation(lambda: newest_of(config), voice_of(config))
        )
        door = Door()
        runner = web.AppRunner(Page(config, door, talk, now).application(), access_log=None, shutdown_timeout=2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await _listen(runner, port)
        yield door.stands_at(runner.addresses[0][1])


async def serve(config: ClientConfig, port: int | None, say: Callable[[str], None], *, browser: bool) -> None:
    """Serve until cancelled; `say` is told the address, and a browser is opened if there is one."""
    async with serving(config, port) as address:
        say(address)
        way = config.paths.page_way
        try:
            if browser:
                await asyncio.to_thread(_show, address, way)
            await asyncio.Event().wait()
        finally:
            way.unlink(missing_ok=True)


async def _listen(runner: web.AppRunner, port: int | None) -> None:
    try:
        await web.TCPSite(runner, LOOPBACK, USUAL_PORT if port is None else port).start()
    except OSError as error:
        if port is not None:
            raise ConfigError(f"port {port} of this machine is taken or not allowed", code="U013",
                              fix="fedit-client ui") from error  # fmt: skip
        await web.TCPSite(runner, LOOPBACK, 0).start()


def _show(address: str, way: Path) -> None:
    """Open a browser by way of a private file: other users of this machine can read command lines, and the token."""
    target = html.escape(address, quote=True)
    page = f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
    write_atomic(way, f'{page}<a href="{target}">FedIT</a>\n'.encode())
    webbrowser.open(way.as_uri())
