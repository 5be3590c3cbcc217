"""Real clients that die with SIGKILL at a step of a round: each life is a process, forked from one warm launcher.

`serve_lives` is a program of its own: every line on stdin is one life, a `Life` as JSON. stdout has a line per event;
what a device saw and sent goes into the file `seen` of its folder, line by line, so that whoever reads it later misses
nothing that a kill took. Nothing of the product knows of this.
"""

import asyncio
import base64
import hashlib
import json
import os
import random
import select
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedit_client import ClientConfig
from fedit_client.events import Event, EventKind
from fedit_client.membership.joined import Membership
from fedit_client.network.transport import HttpTransport, OnBytes
from fedit_protocol.encoding import decode
from fedit_protocol.ids import Digest
from fedit_protocol.messages import CheckInReply, Offer
from fedit_protocol.signing import Kind, read_envelope

from .federation import ROWS
from .witness import PlannedTrainer, Witness, WitnessedClient, WitnessedTransport

STEPS: Final = ("join", "shares", "ack", "training", "frozen", "uploading", "receipted", "unmask", "answered")
"""Where a life may end: before a message, before the download for the training, with the update frozen and not a byte
of it sent, after some of its bytes, with its receipt, before and after the answer."""

_SLICE: Final = 1024


@dataclass(frozen=True)
class Life:
    """One life of one device. It dies in a round if `dying(seed, round, devices, share)` says so, or at `step`."""

    device: int
    invite: str
    home: str
    seed: str = ""
    devices: int = 0
    share: float = 0.0
    step: str = ""
    """Where this life ends in its first round; empty where the draw decides."""


def dying(seed: str, round_no: int, devices: int, share: float) -> dict[int, str]:
    """Draw which share of the devices dies in a round, and at which step each of them."""
    chance = random.Random(f"{seed}/{round_no}")
    return {device: chance.choice(STEPS) for device in chance.sample(range(devices), round(share * devices))}


def say(event: dict[str, Any]) -> None:
    """Print an event; one write of less than PIPE_BUF bytes, so that lines of many processes do not mix."""
    os.write(1, json.dumps(event).encode() + b"\n")


@dataclass
class ReportingWitness(Witness):
    """A witness that also writes down what it saw, before anything can kill it."""

    path: Path = field(default_factory=Path)

    def write(self, **fact: Any) -> None:
        """Append one fact in one write."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, json.dumps(fact).encode() + b"\n")
        os.close(descriptor)

    def saw_document(self, path: str, received: bytes) -> None:
        super().saw_document(path, received)
        self.write(kind="document", path=path, received=base64.b64encode(received).decode())
        self._report_faults()

    def saw_join(self, device: int, body: bytes) -> None:
        super().saw_join(device, body)
        self.write(kind="join", body=base64.b64encode(body).decode())

    def saw_upload(self, device: int, path: str, header: bytes, payload: bytes) -> None:
        super().saw_upload(device, path, header, payload)
        digest = hashlib.sha256(payload).hexdigest()
        self.write(kind="upload", path=path, header=base64.b64encode(header).decode(), digest=digest)

    def saw_attempt(self, device: int, path: str, offset: int) -> None:
        super().saw_attempt(device, path, offset)
        self.write(kind="attempt", path=path, offset=offset)

    def saw_receipt(self, device: int, path: str) -> None:
        super().saw_receipt(device, path)
        self.write(kind="receipt", path=path)
        self._report_faults()

    def _report_faults(self) -> None:
        for fault in self.faults:
            self.write(kind="fault", text=fault)
        self.faults.clear()


@dataclass
class Fate:
    """Which step of which round this life does not survive."""

    life: Life
    rounds: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    """Round that was offered → its number, and where it ends for this device."""

    def offered(self, reply: bytes) -> None:
        """Note what a check-in brought."""
        offer = decode(CheckInReply, reply).offer
        if offer is None:
            return
        body = decode(Offer, read_envelope(offer, Kind.OFFER).body)
        life = self.life
        step = life.step or dying(life.seed, body.round_no, life.devices, life.share).get(life.device)
        self.rounds[body.round_id] = body.round_no, step

    def reach(self, path: str, step: str) -> None:
        """Die here if this is the step; else tell that it was reached."""
        round_id = path.removeprefix("/v1/rounds/").split("/")[0]
        number, last = self.rounds.get(round_id, (0, None))
        event = {"device": self.life.device, "round_id": round_id, "round_no": number, "step": step}
        if last == step:
            say({"event": "dies", **event})
            os.kill(os.getpid(), signal.SIGKILL)
        say({"event": "step", **event})

    def reach_in_newest(self, step: str) -> None:
        """Reach a step of the round that was offered last."""
        if self.rounds:
            self.reach(list(self.rounds)[-1], step)


class DyingTransport(WitnessedTransport):
    """The real transport; its device may die at each of STEPS."""

    fate: Fate

    async def post(self, path: str, body: bytes) -> bytes:
        step = path.removesuffix("/1").rpartition("/")[2]
        if step in STEPS:
            self.fate.reach(path, step)
        reply = await super().post(path, body)
        if step == "checkin":
            self.fate.offered(reply)
        if step == "unmask":
            self.fate.reach(path, "answered")
        return reply

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        self.fate.reach_in_newest("training")
        await super().download(digest, target, limit, on_bytes, known)

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        self.fate.reach(path, "frozen")
        receipt = await super().upload(path, header, payload, on_bytes)
        self.fate.reach(path, "receipted")
        return receipt

    async def _watched(self, path: str, offset: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        sent = 0
        async for piece in super()._watched(path, offset, pieces):
            for start in range(0, len(piece), _SLICE):
                yield piece[start : start + _SLICE]
                sent += 1
            if sent > 1:
                self.fate.reach(path, "uploading")


class DyingClient(WitnessedClient):
    """The SDK's client on a DyingTransport."""

    fate: Fate

    def _signing_transport(self, membership: Membership) -> HttpTransport:
        real = super()._signing_transport(membership)
        doomed = DyingTransport(real._host, real._port, real._tls, real._signer)
        doomed.witness, doomed.device, doomed.fate = self.witness, self.device, self.fate
        return doomed

    def note(self, event: Event) -> None:
        if event.kind in {EventKind.ROUND_LOST, EventKind.ROUND_COMMITTED, EventKind.NOTICE}:
            say({"event": str(event.kind), "device": self.device, "round_no": event.round_no, "text": event.text})


async def live(life: Life) -> None:
    """Join if this is the first life, then take part until the task ends."""
    home = Path(life.home)
    home.mkdir(mode=0o700, exist_ok=True)
    config = ClientConfig.model_validate({"home": home / "home", "network": {"max_wait_s": 0.5}})
    device = DyingClient.open(life.invite, config=config, trainer=PlannedTrainer(place=life.device))
    device.witness, device.device, device.lost = ReportingWitness(path=home / "seen"), life.device, []
    device.fate = Fate(life)
    async with device:
        device.add_records(ROWS)
        if device.membership is None:
            offer = await device.fetch_offer()
            await device.join(consent=offer.accept())
        await device.run_to_end(None, device.note)


def _fork(life: Life) -> int:
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(0)
        asyncio.run(live(life))
        os._exit(0)
    return child


def serve_lives() -> None:
    """Fork a process for each line that comes, and tell when each ends; at the end of stdin the rest is killed."""
    bell, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    devices: dict[int, int] = {}
    unread, open_ = b"", True
    while open_:
        ready, _, _ = select.select([0, bell], [], [])
        if 0 in ready:
            received = os.read(0, 65536)
            *lines, unread = (unread + received).split(b"\n")
            for line in lines:
                life = Life(**json.loads(line))
                devices[_fork(life)] = life.device
            open_ = bool(received)
        if bell in ready:
            os.read(bell, 4096)
        _reap(devices)
    for child in devices:
        os.kill(child, signal.SIGKILL)


def _reap(devices: dict[int, int]) -> None:
    while devices:
        child, status = os.waitpid(-1, os.WNOHANG)
        if not child:
            return
        say({"event": "ended", "device": devices.pop(child), "status": os.waitstatus_to_exitcode(status)})
