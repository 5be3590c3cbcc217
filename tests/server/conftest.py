"""What the server's tests share: a base model, a running application with a clock that stands still, its devices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.test_utils import TestServer

from fedit_protocol.authority import AuthorityCard
from fedit_protocol.task import Mode, Task
from fedit_protocol.testing import ManualClock
from fedit_server.access.invites import Terms, create_invite
from fedit_server.access.proxies import Network
from fedit_server.access.requests import RequestCounter
from fedit_server.admin.health import Surroundings
from fedit_server.app import Parts, build_app
from fedit_server.authority.authority import Authority
from fedit_server.clock import unix_seconds
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, create_identity
from fedit_server.storage.store import Store
from fedit_server.tasks.publishing import Publisher

from ..postgres import CHOSEN, Cluster, Databases, cluster
from .bases import make_base
from .devices import Device


@dataclass
class Running:
    """One application that runs: its parts, a session for its devices, and the clock that everybody reads."""

    home: Home
    parts: Parts
    http: ClientSession
    clock: ManualClock
    devices: list[Device] = field(default_factory=list)
    app: web.Application = field(default_factory=web.Application)

    @property
    def authority(self) -> Authority:
        """The authority inside the server."""
        assert isinstance(self.parts.admission, Authority)
        return self.parts.admission

    async def code(self, uses: int = 100, lifetime_s: int = 3600) -> str:
        """Return the code of a new invite."""
        parts = self.parts
        made = await create_invite(
            parts.store.members,
            parts.invite_salt,
            ("localhost", 1),
            parts.identity.pin,
            Terms(uses, lifetime_s),
            unix_seconds(self.clock()),
        )
        return made.link.code

    def device(self) -> Device:
        """Return a device that has not joined yet."""
        return Device(self.http, self.parts.identity.descriptor, self.clock)

    async def join(self, count: int) -> list[Device]:
        """Enrol devices."""
        code = await self.code()
        for _ in range(count):
            self.devices.append(self.device())
            await self.devices[-1].enroll(code)
        return self.devices

    async def pass_time(self, seconds: float) -> None:
        """Move the clock and let everything that waits look at it."""
        self.clock.advance(seconds=seconds)
        self.parts.coordinator.look_again()
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Let the server work until a condition holds; the test's timeout is the limit."""
        while not await condition():
            self.parts.coordinator.look_again()
            await asyncio.sleep(0.005)


QUICK_ON_POSTGRES: Final = frozenset(
    {
        "test_rounds_follow_each_other_until_the_task_is_finished",
        "test_too_few_devices_fail_the_round_and_then_pause_the_task",
    }
)
"""Beside the store's own tests: what `make test` runs on PostgreSQL too; `make test-all` runs everything on both."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of a store, or of an application that runs, runs on both databases."""
    names = metafunc.fixturenames
    stands_on_one = "store" in names or "database" in names or {"base", "clock"} <= set(names)
    if not stands_on_one:
        return
    if "database" not in names:
        names.insert(0, "database")
    quick = metafunc.module.__name__.endswith("test_storage") or metafunc.function.__name__ in QUICK_ON_POSTGRES
    on_postgres = pytest.param("postgresql", marks=() if quick else pytest.mark.slow)
    both = ["sqlite"] if metafunc.definition.get_closest_marker("sqlite") else ["sqlite", on_postgres]
    metafunc.parametrize("database", both, indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server; skips where its binaries are not on the path."""
    with cluster() as found:
        found.make_template()
        yield found


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """What the servers of this test stand on."""
    CHOSEN.postgres = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    yield CHOSEN
    CHOSEN.drop()
    CHOSEN.postgres = None


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model as files."""
    return make_base(tmp_path / "base")


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when it is told to."""
    return ManualClock()


@asynccontextmanager
async def start(
    folder: Path,
    clock: ManualClock,
    *tasks: Task,
    long_poll_s: float = 5.0,
    card: AuthorityCard | None = None,
    modes: tuple[Mode, ...] = (Mode.MASKED,),
    around: Surroundings | None = None,
    trusted_proxies: Collection[Network] = (),
    settings: Mapping[str, object] = MappingProxyType({}),
) -> AsyncIterator[Running]:
    """Run the application on a data folder over plain HTTP; what the folder holds goes on."""
    home = Home(folder)
    identity = create_identity(home, "test", clock(), card, modes)
    async with await Store.open(CHOSEN.place(home.database), migrate=True) as store:
        config = ServerConfig.model_validate({"home": folder, **settings}) if settings else None
        parts = await Parts.assemble(home, identity, store, clock, long_poll_s, config)
        for task in tasks:
            await Publisher(store, parts.blobs, home.adapters, identity.sign_change).publish(
                task, unix_seconds(clock())
            )
        app = build_app(parts, around, trusted_proxies)
        server = TestServer(app)
        await server.start_server(access_log_class=RequestCounter)
        try:
            async with ClientSession(server.make_url("/"), timeout=ClientTimeout(total=30)) as http:
                yield Running(home, parts, http, clock, app=app)
            await gone(server)
        finally:
            await server.close()


async def gone(server: TestServer) -> None:
    """Wait until the server has seen the end of every connection: one that outlives its loop is a warning later."""
    assert server.runner is not None
    assert server.runner.server is not None
    while server.runner.server.connections:  # noqa: ASYNC110  the server's own state
        await asyncio.sleep(0.005)
