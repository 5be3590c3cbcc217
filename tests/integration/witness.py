"""Looks over the devices' shoulders: what they sent, what the server signed for them, and what the sum must then be."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fedit_client import Client
from fedit_client.events import Event, EventKind
from fedit_client.membership.joined import Membership
from fedit_client.network.transport import HttpTransport, OnBytes
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.encoding import decode, from_base64url
from fedit_protocol.ids import IdentityKey, RoundId
from fedit_protocol.messages import Roster, RoundOutcome, RoundResult, Survivors
from fedit_protocol.signing import Kind, read_envelope

from .federation import UNIT

_ONE_FOR_ALL = ("roster", "sharers", "survivors/1", "survivors/2", "result")
"""Documents of which a round has one, whoever asks and however often the server was killed."""


@dataclass
class Witness:
    """Keeps every document and every payload of a federation's devices; notes whatever contradicts another."""

    documents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """(round, document) → the one signed document."""
    payloads: dict[tuple[str, int], tuple[bytes, bytes]] = field(default_factory=dict)
    """(path of the upload, device) → its one signed header and the one payload behind it."""
    receipted: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Round → devices that hold the server's receipt."""
    offsets: dict[tuple[str, int], list[int]] = field(default_factory=lambda: defaultdict(list))
    """(path of the upload, device) → where each of its attempts began."""
    devices: dict[IdentityKey, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Rings whenever a device fetched the result of a round."""
    pieces: int = 0
    """How many pieces of uploads went out; each was compared with the device's one payload."""

    def saw_document(self, path: str, received: bytes) -> None:
        """Note a document; another one under the same name in the same round is a fault (S4)."""
        round_id, name = _named(path)
        if name in _ONE_FOR_ALL and self.documents.setdefault((round_id, name), received) != received:
            self.faults.append(f"the server signed two different {name} for round {round_id}")
        if name == "result":
            self.heard.set()

    def saw_join(self, device: int, body: bytes) -> None:
        """Note which identity a device has."""
        self.devices[IdentityKey(read_envelope(body, Kind.JOIN).signer)] = device

    def saw_upload(self, device: int, path: str, header: bytes, payload: bytes) -> None:
        """Note an upload as a whole; a second payload in the same context is a two-time pad (C11)."""
        if self.payloads.setdefault((path, device), (header, payload)) != (header, payload):
            self.faults.append(f"device {device} masked two updates for {path}")

    def saw_attempt(self, device: int, path: str, offset: int) -> None:
        """Note where an attempt to upload begins."""
        self.offsets[path, device].append(offset)

    def saw_receipt(self, device: int, path: str) -> None:
        """Note that an upload is whole; what the server had once said it holds of it, it must have kept."""
        self.receipted[_named(path)[0]].add(device)
        if (begun := self.offsets[path, device]) != sorted(begun):
            self.faults.append(f"device {device} went back for {path}: {begun}")

    def saw_piece(self, device: int, path: str, offset: int, piece: bytes) -> None:
        """Note bytes that went to the network; they must be those of the one payload, at their place."""
        self.pieces += 1
        _, payload = self.payloads[path, device]
        if payload[offset : offset + len(piece)] != piece:
            self.faults.append(f"device {device} sent other bytes for {path} at {offset}")

    def survivors(self, round_id: str) -> list[int]:
        """Return the devices that the round's signed survivor set names."""
        roster = _body(Roster, Kind.ROSTER, self.documents[round_id, "roster"])
        alive = _body(Survivors, Kind.SURVIVORS, self.documents[round_id, "survivors/1"])
        signers = [IdentityKey(read_envelope(member.join, Kind.JOIN).signer) for member in roster.members]
        return sorted(self.devices[signers[survivor.member]] for survivor in alive.survivors)

    def committed(self) -> dict[int, RoundId]:
        """Return adapter version → the round that made it, as far as a device fetched its result."""
        results = {
            round_id: _body(RoundResult, Kind.RESULT, received)
            for (round_id, name), received in self.documents.items()
            if name == "result"
        }
        return {
            result.adapter_version: RoundId(round_id)
            for round_id, result in results.items()
            if result.outcome is RoundOutcome.COMMITTED
        }


def _named(path: str) -> tuple[str, str]:
    parts = path.removeprefix("/v1/rounds/").split("/", 1)
    return parts[0], parts[1] if len(parts) > 1 else ""


def _body(message: type[Any], kind: Kind, received: bytes) -> Any:
    return decode(message, read_envelope(received, kind).body)


class WitnessedTransport(HttpTransport):
    """The real transport over real HTTPS; a witness sees every message, and every piece of an upload that leaves."""

    witness: Witness
    device: int

    async def get(self, path: str) -> bytes:
        received = await super().get(path)
        if path.startswith("/v1/rounds/"):
            self.witness.saw_document(path, received)
        return received

    async def post(self, path: str, body: bytes) -> bytes:
        if path.endswith("/join"):
            self.witness.saw_join(self.device, body)
        return await super().post(path, body)

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        self.witness.saw_upload(self.device, path, header, payload)
        receipt = await super().upload(path, header, payload, on_bytes)
        self.witness.saw_receipt(self.device, path)
        return receipt

    def _request(self, method: str, path: str, **options: Any) -> Any:
        if method == "PUT":
            sent = options["headers"]
            header, _ = self.witness.payloads[path, self.device]
            if from_base64url(sent["Fedit-Upload-Header"]) != header:
                self.witness.faults.append(f"device {self.device} announced another upload for {path}")
            offset = int(sent["Upload-Offset"])
            self.witness.saw_attempt(self.device, path, offset)
            options["data"] = self._watched(path, offset, options["data"])
        return super()._request(method, path, **options)

    async def _watched(self, path: str, offset: int, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            self.witness.saw_piece(self.device, path, offset, piece)
            offset += len(piece)
            yield piece


class WitnessedClient(Client):
    """The SDK's client on a WitnessedTransport; `lost` keeps what it was told about rounds that came to nothing."""

    witness: Witness
    device: int
    lost: list[str]

    def _signing_transport(self, membership: Membership) -> HttpTransport:
        real = super()._signing_transport(membership)
        watched = WitnessedTransport(real._host, real._port, real._tls, real._signer)
        watched.witness, watched.device = self.witness, self.device
        return watched

    def note(self, event: Event) -> None:
        if event.kind is EventKind.ROUND_LOST:
            self.lost.append(event.text)


def steps_of(device: int, version: int) -> int:
    """Return how many ring steps a device moves its coordinate from an adapter version on: 1 to 100, never twice alike.

    Neighbouring versions differ for every device, so that an upload of one round cannot pass for one of another.
    """
    return 1 + (17 * device + 31 * version) % 100


def weight_of_device(device: int) -> int:
    """Return a device's weight: 1 to 5."""
    return 1 + device % 5


@dataclass
class PlannedTrainer(FakeTrainer):
    """A trainer whose update depends on device and version as `steps_of` says: `place` is the device's coordinate."""

    place: int = 0

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        self.examples = 10 * weight_of_device(self.place)
        result = await super().train(request, on_progress)
        result.update[:] = 0
        result.update[self.place] = steps_of(self.place, int(request.global_adapter.parent.name)) * UNIT
        return result
