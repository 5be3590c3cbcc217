"""Listens: lock, keys, certificate, database, tasks, then HTTPS until a signal comes."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Task
from fedit_server.access.address import advertised
from fedit_server.app import Parts, build_app
from fedit_server.clock import Clock, unix_seconds, utc_now
from fedit_server.config import ServerConfig, split_address
from fedit_server.home.files import make_private_folder
from fedit_server.home.folder import Home, Identity, create_identity, load_identity
from fedit_server.keys.rotation import finish_rotation
from fedit_server.keys.tls import own_names
from fedit_server.storage.store import Store
from fedit_server.tasks.modes import check_allowed, check_setting, modes_of, pinned_modes
from fedit_server.tasks.publishing import Publisher

_RENEWAL_CHECK_S: Final = 12 * 3600
_DRAIN_S: Final = 10.0
"""How long open requests may take to end when the server stops."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to serve. Without `create` the data folder must have been set up before."""

    config: ServerConfig
    tasks: Sequence[Task] = ()
    base: Path | None = None
    create: bool = True
    clock: Clock = utc_now
    card: AuthorityCard | None = None
    """Of an authority that lives apart, for the first start."""


@dataclass(frozen=True)
class Serving:
    """A server that listens."""

    config: ServerConfig
    parts: Parts
    port: int
    published: tuple[str, ...]
    """Labels of the tasks that were new, or new in this version."""

    @property
    def url(self) -> str:
        """Where clients on this network reach it."""
        host, port = advertised(self.config, self.port)
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def apart(self) -> str | None:
        """What an authority that lives apart knows this server by, None where it is this server."""
        if self.parts.identity.keys.authority is not None:
            return None
        return f"{self.url}#{self.parts.identity.pin}"

    @property
    def address(self) -> tuple[str, int]:
        """The host and port of `url`."""
        return advertised(self.config, self.port)


@asynccontextmanager
async def serving(plan: Plan) -> AsyncIterator[Serving]:
    """Serve while the block runs. Raises FeditError: another server, no task, a taken port, a lost key."""
    home = Home(plan.config.home)
    _check_modes(plan, home)  # before anything is made: devices pin the modes of a federation
    if plan.create:
        if not home.descriptor.exists():
            await _try_address(plan.config)  # a taken port must not leave a federation half made behind
        make_private_folder(home.root)
    else:
        home.require()
    with home.lock():
        identity = _identity(plan, home)
        async with await Store.open(home.database, migrate=True) as store:
            parts = await Parts.assemble(home, identity, store, plan.clock, plan.config.long_poll_s)
            published = await _publish(plan, home, parts)
            async with _listening(plan, identity, parts) as port:
                ready = Serving(plan.config, parts, port, published)
                home.announce(os.getpid(), ready.url)
                yield ready


async def wait_for_signal() -> signal.Signals:
    """Wait until somebody asks the process to stop.

    Further signals are heard and change nothing until the event loop closes: an impatient second Ctrl-C must not cut
    the clean end, which takes `_DRAIN_S` at most.
    """
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()

    def note(number: signal.Signals) -> None:
        if not asked.done():
            asked.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, note, number)
    try:
        return await asked
    except asyncio.CancelledError:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        raise


def _check_modes(plan: Plan, home: Home) -> None:
    pinned = pinned_modes(home)
    check_setting(plan.config, pinned)
    for task in plan.tasks:
        check_allowed(task, plan.config, pinned)


def _identity(plan: Plan, home: Home) -> Identity:
    finish_rotation(home)
    modes = modes_of(plan.config)
    if not plan.create:
        identity = load_identity(home)
    else:
        identity = create_identity(home, plan.config.name, plan.clock(), plan.card, modes)
    identity.tls.renew_leaf(_names(plan.config), plan.clock())
    return identity


def _names(config: ServerConfig) -> list[str]:
    names = own_names(config.host)
    return [*names, split_address(config.advertise, default_port=0)[0]] if config.advertise else names


async def _publish(plan: Plan, home: Home, parts: Parts) -> tuple[str, ...]:
    publisher = Publisher(parts.store, parts.blobs, home.adapters, parts.identity.sign_change, plan.base)
    labels = [task.label for task in plan.tasks if await publisher.publish(task, unix_seconds(plan.clock()))]
    known = await parts.store.tasks.tasks()
    for row in known:  # also those of earlier starts: the operator may have changed the setting since
        if row.state not in (TaskState.FINISHED, TaskState.ARCHIVED):
            check_allowed(row.document.task, plan.config, parts.identity.descriptor.modes)
    if not known:
        raise ConfigError(
            "there is no task yet",
            code="C031",
            where=str(home.root),
            fix="fedit-server up --model ORG/NAME --name TEXT, or: fedit-server up --task FILE",
        )
    return tuple(labels)


@asynccontextmanager
async def _listening(plan: Plan, identity: Identity, parts: Parts) -> AsyncIterator[int]:
    context = identity.tls.server_context()
    runner = web.AppRunner(build_app(parts), access_log=None, shutdown_timeout=_DRAIN_S)
    await runner.setup()
    try:
        port = await _bind(runner, plan.config, context)
        renewing = asyncio.create_task(_renew(plan, identity, context), name="certificate renewal")
        try:
            yield port
        finally:
            renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewing
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, config: ServerConfig, context: ssl.SSLContext) -> int:
    with _binding(config):
        await web.TCPSite(runner, config.host, config.port, ssl_context=context).start()
    return int(runner.addresses[0][1])


async def _try_address(config: ServerConfig) -> None:
    """Take the address and let it go again; raises ConfigError C017."""
    with _binding(config):
        loop = asyncio.get_running_loop()
        bound = await loop.create_server(asyncio.Protocol, config.host, config.port, start_serving=False)
        bound.close()


@contextlib.contextmanager
def _binding(config: ServerConfig) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = "the address is in use" if taken else (error.strerror or type(error).__name__).lower()
        raise ConfigError(
            f"cannot listen on {config.listen}: {reason}",
            code="C017",
            where="listen",
            fix=f"fedit-server up --listen {config.host}:{config.port + 1}",
        ) from error


async def _renew(plan: Plan, identity: Identity, context: ssl.SSLContext) -> None:
    """Look twice a day whether the leaf certificate needs renewal; new connections get the new one."""
    renew: Callable[[], bool] = lambda: identity.tls.renew_leaf(_names(plan.config), plan.clock())  # noqa: E731
    while True:
        await asyncio.sleep(_RENEWAL_CHECK_S)
        if await asyncio.to_thread(renew):
            identity.tls.load_into(context)
            log.info("the TLS certificate is renewed")
