"""A whole federation in one process: the real server on loopback HTTPS with its real store, and SDK clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedit_client import Client, ClientConfig
from fedit_client.adapters.kept import travelled
from fedit_client.events import Event
from fedit_client.membership.joined import Membership
from fedit_client.network.transport import HttpTransport, OnBytes
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, Trainer, TrainingRequest
from fedit_protocol.adapter import Vector
from fedit_protocol.task import Task
from fedit_server.access.invites import Terms, create_invite
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.config import ServerConfig
from fedit_server.running.serving import Plan, Serving, serving

UNIT = 1 / 128
"""One ring step of `exact_task`: updates that are multiples of it are summed without any rounding."""

ROWS = [{"instruction": "say ok", "response": "ok"}] * 20


class VanishedError(BaseException):
    """This device is gone, as if its power had failed: nobody is told."""


@dataclass
class Wire:
    """What one device does to its own traffic: where it vanishes, what it keeps, what happens before a request."""

    vanish_before: str = ""
    """A verb of a round (`join`, `shares`, `ack`, `unmask`), or `during upload`."""
    before: Callable[[str], None] = lambda _verb: None
    sent: list[bytes] = field(default_factory=list)
    gone: bool = False


class TamperedTransport(HttpTransport):
    """The real transport over real HTTPS, with a Wire in front."""

    wire: Wire

    async def get(self, path: str) -> bytes:
        self._pass(path, b"")
        return await super().get(path)

    async def post(self, path: str, body: bytes) -> bytes:
        self._pass(path, body)
        return await super().post(path, body)

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        self._pass(path, header + payload)

        def watch(done: int, total: int) -> None:
            if self.wire.vanish_before == "during upload":
                self.wire.gone = True
                raise VanishedError
            on_bytes(done, total)

        try:
            return await super().upload(path, header, payload, watch)
        except BaseException:
            # aiohttp sends the body in a task of its own and reports its failure in its own words.
            if self.wire.gone:
                raise VanishedError from None
            raise

    def _request(self, *args: Any, **options: Any) -> Any:
        if self.wire.gone:
            raise VanishedError
        return super()._request(*args, **options)

    def _pass(self, path: str, body: bytes) -> None:
        verb = path.removesuffix("/1").rpartition("/")[2]
        self.wire.before(verb)
        if self.wire.gone or verb == self.wire.vanish_before:
            self.wire.gone = True
            raise VanishedError
        self.wire.sent.append(path.encode() + b" " + body)


class TamperedClient(Client):
    """The SDK's client on a TamperedTransport."""

    wire: Wire

    def _signing_transport(self, membership: Membership) -> HttpTransport:
        real = super()._signing_transport(membership)
        tampered = TamperedTransport(real._host, real._port, real._tls, real._signer)
        tampered.wire = self.wire
        return tampered


@dataclass
class StepTrainer(FakeTrainer):
    """A trainer whose update is `steps` ring units at coordinate `place`, and zero elsewhere."""

    place: int = 0
    steps: int = 1

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        result.update[:] = 0
        result.update[self.place] = self.steps * UNIT
        return result


@dataclass
class Federation:
    """A running server and the means to add devices to it."""

    server: Serving
    folder: Path
    invite: str
    wires: list[Wire] = field(default_factory=list)

    def client(
        self, name: str, trainer: Trainer | None, wire: Wire | None = None, **settings: object
    ) -> TamperedClient:
        """Return a client with a home and `settings` of its own; it has not joined yet."""
        wire = wire or Wire()
        self.wires.append(wire)
        return device(self.invite, self.folder / name, trainer, wire, **settings)

    async def adapter(self, version: int) -> Vector:
        """Return one committed global adapter."""
        parts = self.server.parts
        task = (await parts.store.tasks.tasks())[0]
        folder = self.folder / "server" / "adapters" / task.task_id / str(version)
        return from_safetensors(task.document.layout, travelled(folder).read_bytes())


def device(invite: str, home: Path, trainer: Trainer | None, wire: Wire, **settings: object) -> TamperedClient:
    """Return a client with a home of its own that has not joined yet; it comes back fast when the server was away."""
    values = {"home": home, "network": {"max_wait_s": 0.5}, "device": {"prefer": "cpu"}, **settings}
    config = ClientConfig.model_validate(values)
    client = TamperedClient.open(invite, config=config, trainer=trainer)
    client.wire = wire
    return client


def exact_task(base: Path, members: int, **policy: object) -> Task:
    """Return a task whose ring step is exactly 1/128, with deadlines that a test can wait for."""
    seconds = {
        "gather_s": 1.0,
        "join_s": 3.0,
        "shares_s": 3.0,
        "upload_s": 5.0,
        "confirm_s": 5.0,
        "unmask_s": 5.0,
        "second_s": 5.0,
    }
    return Task.model_validate(
        {
            "id": "exact",
            "title": "Exact sums",
            "base": {"model": str(base)},
            "adapter": {"rank": 256},  # large enough that an upload is sent in several pieces
            "encoding": {"value_range": 127 / 128, "clip_norm": 100.0, "rows_per_weight": 10},
            "round": {
                "cohort_min": min(members, 4),
                "cohort_size": members,
                "rounds": 1,
                "deadlines": seconds,
                **policy,
            },
        }
    )


@asynccontextmanager
async def federation(
    folder: Path, task: Task, *, allow_trusted: bool = False, port: int = 0
) -> AsyncIterator[Federation]:
    """Serve a task on loopback HTTPS while the block runs."""
    config = ServerConfig(
        home=folder / "server", listen=f"127.0.0.1:{port}", long_poll_s=2.0, allow_trusted=allow_trusted
    )
    async with serving(Plan(config, (task,))) as server:
        parts = server.parts
        terms = Terms(uses=100, lifetime_s=3600)
        invite = await create_invite(
            parts.store.members, parts.invite_salt, server.address, parts.identity.pin, terms, int(time.time())
        )
        yield Federation(server, folder, str(invite.link))


async def take_part(
    client: Client, max_rounds: int | None = None, on_event: Callable[[Event], None] = lambda _: None
) -> list[Event]:
    """Join with the example rows and take part; a device that vanishes ends without a word."""
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        on_event(event)

    async with client:
        offer = await client.fetch_offer()
        client.add_records(ROWS)
        await client.join(consent=offer.accept())
        with suppress(VanishedError):
            await client.run_to_end(max_rounds, note)
    return events


async def all_take_part(clients: list[TamperedClient], max_rounds: int | None = None) -> list[list[Event]]:
    """Let every client take part at once."""
    return list(await asyncio.gather(*(take_part(client, max_rounds) for client in clients)))


def expected_adapter(start: Vector, steps: dict[int, int], weights: dict[int, int]) -> Vector:
    """Return the adapter after a round: the start plus the weighted mean of exact updates, as float32.

    `steps` maps a coordinate to its device's ring steps, `weights` to its weight; only survivors are in them.
    """
    total = np.zeros(len(start), dtype=np.int64)
    for place, count in steps.items():
        total[place] = count * weights[place]
    mean = total.astype(np.float64) * UNIT / sum(weights.values())
    return (start.astype(np.float64) + mean).astype(np.float32)
