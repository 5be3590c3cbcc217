"""Listens: lock, keys, certificate, database, tasks, then HTTPS until a signal comes."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.catalogue import TaskState
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConfigError, FeditError
from fedit_protocol.ids import TaskId
from fedit_protocol.signing import Kind, seal
from fedit_protocol.task import Task
from fedit_server.access.address import advertised
from fedit_server.access.proxies import networks
from fedit_server.access.tokens import LOCAL
from fedit_server.adapters.collecting import Collector
from fedit_server.admin.health import Surroundings
from fedit_server.app import Parts, build_app, drain
from fedit_server.clock import Clock, unix_seconds, utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.files import make_private_folder
from fedit_server.home.folder import Home, Identity, create_identity, load_identity
from fedit_server.home.last_backup import last_backup
from fedit_server.keys.authority_rotation import settle
from fedit_server.keys.certificate import ServedCertificate
from fedit_server.running.listening import authority_pem, certificate_of, listening, try_address
from fedit_server.running.replicas import check_replica, check_shared, exchange_keys
from fedit_server.storage.audit import Event
from fedit_server.storage.leases import forget_replicas
from fedit_server.storage.place import place_of
from fedit_server.storage.store import Store
from fedit_server.tasks.modes import check_allowed, check_setting, modes_of, pinned_modes
from fedit_server.tasks.publishing import Publisher
from fedit_server.tasks.retention import Retention

_COLLECT_S: Final = 6 * 3600.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to serve. Without `create` the data folder must have been set up before."""

    config: ServerConfig
    tasks: Sequence[Task] = ()
    base: Path | None = None
    create: bool = True
    by_hand: bool = True
    """A person started it: settings are written down, an invite is printed, and there has to be a task."""
    clock: Clock = utc_now
    retention: Mapping[TaskId, Retention] = field(default_factory=dict)
    """What task files say of it."""
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
    app: web.Application = field(repr=False)
    certificate: ServedCertificate | None = field(repr=False)

    @property
    def url(self) -> str:
        """Where clients on this network reach it."""
        host, port = advertised(self.config, self.port)
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    async def drain(self) -> None:
        """Say not-ready, end every long poll, and go on answering for as long as a load balancer needs to see it."""
        await drain(self.app)
        await asyncio.sleep(self.config.drain_s)

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
    check_replica(plan.config, home)
    _check_modes(plan, home)  # before anything is made: devices pin the modes of a federation
    if plan.create:
        if not home.descriptor.exists():
            await try_address(plan.config)  # a taken port must not leave a federation half made behind
        make_private_folder(home.root)
    else:
        _require(plan.config, home)
    with home.lock():
        await exchange_keys(plan.config, home, plan.clock())
        identity = _identity(plan, home)
        await exchange_keys(plan.config, home, plan.clock())  # those that were just made
        async with await Store.open(place_of(plan.config, home.database), migrate=True) as store:
            parts = await Parts.assemble(home, identity, store, plan.clock, plan.config.long_poll_s, plan.config)
            if plan.config.replica_address:
                await check_shared(store, parts.blobs)
            if home.restored.exists():
                await forget_replicas(store.database)
                closed = await parts.coordinator.close_open_rounds(home.restored.read_text("utf-8"))
                home.restored.unlink()
                log.warning("rounds that ran when the backup was made are closed", extra={"rounds": closed})
            published = await _publish(plan, home, parts)
            for task_id, rules in plan.retention.items():
                await store.retentions.give(task_id, rules)
            certificate = certificate_of(plan.config, identity, plan.clock)
            app = build_app(parts, _surroundings(plan.config, home, certificate), networks(plan.config.trusted_proxies))
            async with listening(plan.config, app, certificate) as port:
                ready = Serving(plan.config, parts, port, published, app, certificate)
                home.announce(os.getpid(), ready.url)
                collecting = asyncio.create_task(_collect(plan, home, parts), name="retention")
                try:
                    yield ready
                finally:
                    collecting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await collecting


def _require(config: ServerConfig, home: Home) -> None:
    """A server was set up in the folder, or the database has what one needs."""
    if config.replica_key and config.database:
        make_private_folder(home.root)
    else:
        home.require()


async def wait_for_signal() -> signal.Signals:
    """Wait until somebody asks the process to stop.

    Further signals are heard and change nothing until the event loop closes: an impatient second Ctrl-C must not cut
    the clean end, which takes `DRAIN_S` at most.
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


async def _collect(plan: Plan, home: Home, parts: Parts) -> None:
    """Remove what retention does not keep, now and every few hours; a store that fails is asked again next time."""
    collector = Collector(parts.store, parts.blobs, parts.spool, home.adapters)
    while True:
        try:
            await collector.collect(plan.clock())
        except FeditError as error:
            log.warning("what retention does not keep stays for now: %s", error)
        await asyncio.sleep(_COLLECT_S)


def _check_modes(plan: Plan, home: Home) -> None:
    pinned = pinned_modes(home)
    check_setting(plan.config, pinned)
    for task in plan.tasks:
        check_allowed(task, plan.config, pinned)


def _identity(plan: Plan, home: Home) -> Identity:
    settle(home)
    modes = modes_of(plan.config)
    if not plan.create:
        identity = load_identity(home)
    else:
        authority = authority_pem(plan.config)
        identity = create_identity(home, plan.config.name, plan.clock(), plan.card, modes, authority)
    return identity


def _surroundings(config: ServerConfig, home: Home, certificate: ServedCertificate | None) -> Surroundings:
    end = certificate.end if certificate is not None else lambda: None
    return Surroundings(home.root, config.min_free_mb * 10**6, end, lambda: _backup_time(home))


def _backup_time(home: Home) -> float | None:
    found = last_backup(home)
    return None if found is None else found.created_at


async def _published(publisher: Publisher, task: Task, plan: Plan, parts: Parts) -> bool:
    """Publish a task of the command line with its line in the audit log; False if nothing has changed."""
    now_s, known = unix_seconds(plan.clock()), await parts.store.tasks.task(task.id)
    publication = await publisher.prepare(task, now_s)
    if publication is None:
        return False
    action = "task.create" if known is None else "task.edit"
    event = Event(LOCAL.who, LOCAL.role, action, task.id, after=publication.document.digest)
    context = federation_context(parts.identity.descriptor.federation_id)
    async with parts.store.database.writing():
        await parts.store.tasks.publish(publication, now_s)
        sign = parts.identity.keys.server
        await parts.store.audit.append(event, lambda head: seal(sign, Kind.AUDIT_HEAD, context, head), now_s)
    return True


async def _publish(plan: Plan, home: Home, parts: Parts) -> tuple[str, ...]:
    publisher = Publisher(parts.store, parts.blobs, home.adapters, parts.identity.sign_change, plan.base)
    labels = [task.label for task in plan.tasks if await _published(publisher, task, plan, parts)]
    known = await parts.store.tasks.tasks()
    for row in known:  # also those of earlier starts: the operator may have changed the setting since
        if row.state not in (TaskState.FINISHED, TaskState.ARCHIVED):
            check_allowed(row.document.task, plan.config, parts.identity.descriptor.modes)
    if not known and plan.by_hand:
        raise ConfigError(
            "there is no task yet",
            code="C031",
            where=str(home.root),
            fix="fedit-server up --model ORG/NAME --name TEXT, or: fedit-server up --task FILE",
        )
    return tuple(labels)
