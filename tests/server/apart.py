"""An authority in a folder of its own beside a running application, on one clock; the network between them is seen."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import ClientSession

from fedit_protocol.authority import AuthorityUpdate
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import Certificate, federation_context
from fedit_protocol.errors import TransportError
from fedit_protocol.ids import client_id
from fedit_protocol.requests import authorization
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.task import Task
from fedit_protocol.testing import ManualClock
from fedit_server.access.invites import Terms
from fedit_server.authority.admin import AuthorityAdmin
from fedit_server.authority.desk import AuthorityDesk
from fedit_server.authority.home import AuthorityHome, LinkedServer
from fedit_server.authority.link import UPDATE_PATH, refusal
from fedit_server.authority.worker import AuthorityWorker
from fedit_server.clock import unix_seconds

from .conftest import Running, start
from .devices import Device


@dataclass
class SessionWire:
    """A Wire over a test application's plain HTTP; `lose` drops the next answers, `cut` the next messages.

    `meanwhile` happens once, behind the next message.
    """

    http: ClientSession
    running: Running
    key: SigningKey
    lose: int = 0
    cut: int = 0
    posted: list[bytes] = field(default_factory=list)
    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def get(self, path: str) -> bytes:
        return await self._send("GET", path, None)

    async def post(self, path: str, body: bytes) -> bytes:
        if self.cut:
            self.cut -= 1
            raise TransportError("the line is cut")
        self.posted.append(body)
        answer = await self._send("POST", path, body)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        if self.lose:
            self.lose -= 1
            raise TransportError("the answer is lost")
        return answer

    async def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        federation = self.running.parts.identity.descriptor.federation_id
        header = authorization(self.key, federation, method, path, unix_seconds(self.running.clock()))
        async with self.http.request(method, path, data=body, headers={"Authorization": header}) as reply:
            content = await reply.read()
            if reply.status >= 300:
                raise refusal(reply.status, content, "here")
            return content


@dataclass
class Apart:
    """A server without an authority's key, and the authority that it has elsewhere."""

    running: Running
    admin: AuthorityAdmin
    worker: AuthorityWorker
    wire: SessionWire

    @property
    def desk(self) -> AuthorityDesk:
        assert isinstance(self.running.parts.admission, AuthorityDesk)
        return self.running.parts.admission

    @property
    def context(self) -> bytes:
        return federation_context(self.running.parts.identity.descriptor.federation_id)

    async def code(self, uses: int = 100, lifetime_s: int = 3600) -> str:
        """Return the code of an invite that the authority has made."""
        return (await self.admin.create_invite(Terms(uses, lifetime_s), None)).link.code

    async def turn(self) -> int:
        """Let the authority answer what waits."""
        return await self.worker.turn(self.wire)

    async def enroll(self, code: str, label: str = "") -> Device:
        """Return a device that the authority has admitted."""
        device = self.running.device()
        await self.admitted(device, code, label)
        return device

    async def admitted(self, device: Device, code: str, label: str = "") -> Certificate:
        """Ask, let the authority answer, ask again."""
        sealed = device.sealed(code, label)
        async with self.running.http.post("/v1/enroll", data=sealed) as first:
            assert first.status == 425, await first.text()
        await self.turn()
        return certificate_of((await device.redeem(sealed)).certificate)

    async def authority_revokes(self, device: Device) -> None:
        """Exclude a device where the authority is; one that it never admitted cannot be excluded."""
        if await self.admin.store.members.client(client_id(device.key.public)) is not None:
            await self.admin.revoke(client_id(device.key.public))

    def restarted(self, *, resend: bool = False) -> AuthorityWorker:
        """Return a worker that knows what is on disk and nothing else."""
        old = self.worker
        linked = old.home.require_link()
        self.worker = AuthorityWorker(old.home, old.card, old.authority, old.store, linked, resend)
        return self.worker

    def signed(self, update: AuthorityUpdate, key: SigningKey | None = None) -> bytes:
        """Return an update in the authority's envelope, or in another's."""
        return seal(key or self.worker.authority.keys.sign, Kind.AUTHORITY_UPDATE, self.context, update)

    async def say(self, update: AuthorityUpdate, key: SigningKey | None = None) -> None:
        """Send an update that no honest authority made."""
        await self.wire.post(UPDATE_PATH, self.signed(update, key))


def certificate_of(envelope: bytes) -> Certificate:
    return decode(Certificate, read_envelope(envelope, Kind.CERTIFICATE).body)


@asynccontextmanager
async def apart(folder: Path, clock: ManualClock, *tasks: Task) -> AsyncIterator[Apart]:
    """Run a server that was set up with an authority's card, with that authority's folder open beside it."""
    home = AuthorityHome(folder / "authority")
    card = home.create("clinics")
    async with (
        start(folder / "home", clock, *tasks, long_poll_s=0.2, card=card) as running,
        AuthorityAdmin.open(home, migrate=True, clock=clock) as admin,
    ):
        linked = home.link(LinkedServer("localhost", 8443, running.parts.identity.descriptor_bytes))
        worker = AuthorityWorker(home, card, admin.authority, admin.store, linked)
        yield Apart(running, admin, worker, SessionWire(running.http, running, admin.authority.keys.sign))
