"""The application: what it consists of, how it starts, how it stops."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Final, Self

from aiohttp import web

from fedit_server.access.auth import Doorkeeper
from fedit_server.access.proxies import Network
from fedit_server.access.rate import Buckets, Turnstile
from fedit_server.access.requests import METRICS, identify, name_answer
from fedit_server.adapters.changes import Changes
from fedit_server.admin.app_keys import ADMIN, ADMIN_CALLS, CALLS
from fedit_server.admin.courier import Courier
from fedit_server.admin.health import Surroundings
from fedit_server.admin.operations import Admin
from fedit_server.authority.authority import Authority
from fedit_server.authority.desk import AuthorityDesk
from fedit_server.clock import Clock, unix_seconds
from fedit_server.config import ServerConfig
from fedit_server.dashboard.console import Console
from fedit_server.dashboard.routes import add_pages
from fedit_server.home.folder import Home, Identity
from fedit_server.keys.log_book import LogBook
from fedit_server.metrics import Metrics
from fedit_server.problems import problems
from fedit_server.rounds.coordinator import Coordinator
from fedit_server.rounds.driver import Desk
from fedit_server.rounds.evaluations import Evaluations
from fedit_server.rounds.round_keys import RoundKeys
from fedit_server.rounds.services import Services
from fedit_server.rounds.shared import SharedCoordinator
from fedit_server.routes import add_routes, keys
from fedit_server.routes.admin import openapi_document
from fedit_server.routes.owners import OWNERS, Alone, Owners, Replicas
from fedit_server.storage import BlobStore
from fedit_server.storage.leases import Leases, Replica
from fedit_server.storage.opening import open_blobs, open_spool
from fedit_server.storage.spool import Spool
from fedit_server.storage.store import Store

DRAIN_RETRY_S: Final = 5
"""When to come again, in an answer of a server that is stopping; the next one, or another replica, is there then."""

_LAG_EVERY_S: Final = 0.5


@dataclass(frozen=True)
class Parts:
    """A server that is put together and not yet listening."""

    identity: Identity
    store: Store
    blobs: BlobStore
    spool: Spool
    invite_salt: bytes = field(repr=False)
    admission: Authority | AuthorityDesk
    """Who answers devices that want in or out: the authority itself, or the desk that asks one elsewhere."""
    log_book: LogBook
    doorkeeper: Doorkeeper
    turnstile: Turnstile
    coordinator: Coordinator
    owners: Owners
    evaluations: Evaluations
    metrics: Metrics
    admin: Admin

    @classmethod
    async def assemble(
        cls,
        home: Home,
        identity: Identity,
        store: Store,
        clock: Clock,
        long_poll_s: float,
        config: ServerConfig | None = None,
    ) -> Self:
        """Build every part over an open store; without a `config` with the defaults of one."""
        config = config or ServerConfig(home=home.root)
        blobs, spool = open_blobs(config, home), open_spool(config, home)
        metrics = Metrics()
        desk = Desk(store.rounds, spool, blobs, RoundKeys(home.round_keys), identity.keys.server, clock, metrics)
        services = Services(store, blobs, identity, desk, home.adapters, long_poll_s, config.adapter_grid)
        federation = identity.descriptor.federation_id
        salt = await store.members.federation_salt(federation, unix_seconds(clock()))
        log_book = LogBook(store.key_log)
        doorkeeper = Doorkeeper(federation, store.members, clock)
        coordinator, owners = _coordinator(services, home, config)
        admission = _admission(identity, store, salt, clock, log_book, long_poll_s)
        admission.most_devices = config.most_devices
        return cls(
            identity=identity,
            store=store,
            blobs=blobs,
            spool=spool,
            invite_salt=salt,
            admission=admission,
            log_book=log_book,
            doorkeeper=doorkeeper,
            turnstile=Turnstile.of(config.address_per_minute),
            coordinator=coordinator,
            owners=owners,
            evaluations=Evaluations(coordinator, doorkeeper),
            metrics=metrics,
            admin=Admin(home, config, identity, store, clock),
        )


def _admission(
    identity: Identity, store: Store, salt: bytes, clock: Clock, log_book: LogBook, long_poll_s: float
) -> Authority | AuthorityDesk:
    described, keys = identity.descriptor, identity.keys.authority
    if keys is None:
        return AuthorityDesk(described, store, log_book, clock, long_poll_s)
    return Authority(keys, described.federation_id, store.members, log_book, salt, clock)


def _coordinator(services: Services, home: Home, config: ServerConfig) -> tuple[Coordinator, Owners]:
    """Return who runs the rounds: a server with a file of its own alone, one on PostgreSQL under leases."""
    database = services.store.database
    if not config.database or database.place.path is not None:
        return Coordinator(services), Alone()
    me = Replica(home.replica_id(), config.replica_address, services.identity.pin)
    shared = SharedCoordinator(services, Leases(database, me, config.lease_s))
    return shared, Replicas(shared, services.identity.descriptor.tls_ca)


def build_app(
    parts: Parts, around: Surroundings | None = None, trusted_proxies: Collection[Network] = ()
) -> web.Application:
    """Return the application; its rounds run from start-up to clean-up."""
    app = web.Application(middlewares=[identify(trusted_proxies), problems])
    if isinstance(parts.owners, Replicas):
        app.middlewares.append(parts.owners.middleware)
        app.cleanup_ctx.append(parts.owners.connected)
    app[ADMIN] = parts.admin
    app[CALLS] = Buckets(ADMIN_CALLS)
    app[keys.ADMISSION] = parts.admission
    app[keys.BLOBS] = parts.blobs
    app[keys.CHANGES] = Changes(parts.blobs)
    app[keys.PUBLIC_BLOBS] = parts.admin.config.blobs_public
    app[keys.COORDINATOR] = parts.coordinator
    app[keys.DOORKEEPER] = parts.doorkeeper
    app[keys.DRAINING] = asyncio.Event()
    app[keys.EVALUATIONS] = parts.evaluations
    app[keys.IDENTITY] = parts.identity
    app[keys.LOG_BOOK] = parts.log_book
    app[METRICS] = parts.metrics
    app[OWNERS] = parts.owners
    app[keys.SPOOL] = parts.spool
    app[keys.STORE] = parts.store
    app[keys.SURROUNDINGS] = around or Surroundings()
    app[keys.TURNSTILE] = parts.turnstile
    add_routes(app, apart=isinstance(parts.admission, AuthorityDesk))
    add_pages(
        app,
        Console(
            blobs=parts.blobs,
            around=app[keys.SURROUNDINGS],
            draining=app[keys.DRAINING],
            wake=parts.coordinator.look_again,
            api=functools.cache(openapi_document),
        ),
    )
    app.cleanup_ctx.append(_running_rounds)
    app.cleanup_ctx.append(_courier)
    app.cleanup_ctx.append(_measured_loop)
    app.on_response_prepare.append(name_answer)
    app.on_response_prepare.append(_say_goodbye)
    app.on_shutdown.append(drain)
    return app


async def _running_rounds(app: web.Application) -> AsyncIterator[None]:
    coordinator = app[keys.COORDINATOR]
    await coordinator.start()
    task = asyncio.create_task(coordinator.run(), name="coordinator")
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _courier(app: web.Application) -> AsyncIterator[None]:
    bringing = asyncio.create_task(Courier(app[ADMIN]).run(), name="courier")
    yield
    bringing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await bringing


async def _measured_loop(app: web.Application) -> AsyncIterator[None]:
    measuring = asyncio.create_task(_measure_lag(app[METRICS]), name="event loop lag")
    yield
    measuring.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await measuring


async def _measure_lag(metrics: Metrics) -> None:
    loop = asyncio.get_running_loop()
    while True:
        asked = loop.time() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        metrics.lagged(loop.time() - asked)


async def _say_goodbye(request: web.Request, response: web.StreamResponse) -> None:
    """Once the server is stopping: every answer asks to come again a little later, on a new connection."""
    if request.app[keys.DRAINING].is_set():
        response.headers.setdefault("Retry-After", str(DRAIN_RETRY_S))
        response.force_close()
        response.headers["Connection"] = "close"  # force_close comes too late for the header here


async def drain(app: web.Application) -> None:
    """Begin to stop: `/readyz` says 503, and every long poll ends. What is being answered is answered."""
    app[keys.DRAINING].set()
    app[keys.COORDINATOR].stop_waiting()
    if isinstance(desk := app[keys.ADMISSION], AuthorityDesk):
        desk.stop_waiting()
