"""A trusted round in memory: real participants, a real collector, and a seal whose chance a test can fix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from fedit_protocol.adapter import Vector
from fedit_protocol.ids import IdentityKey
from fedit_protocol.limits import LastSeen, Limits
from fedit_protocol.messages import Offer, SealedSpec
from fedit_protocol.round_plan import sealed_spec
from fedit_protocol.sealed.collector import Collector
from fedit_protocol.sealed.opening import OpenedSum
from fedit_protocol.sealed.participant import SealedParticipant
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Opened, Persist, Record, Send
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Mode, TaskDocument
from fedit_protocol.testing import ManualClock, MemoryFederation, seeded_random, small_task

from .rounds import REPORT

ROUND_KEY: Final = X25519PrivateKey.from_private_bytes(seeded_random("HK")(32))
TRUSTING: Final = Limits(modes=(Mode.MASKED, Mode.TRUSTED))


def trusted_federation(members: int = 3) -> MemoryFederation:
    """Return a federation whose pinned descriptor has both modes."""
    federation = MemoryFederation(members)
    federation.descriptor = federation.descriptor.model_copy(update={"modes": (Mode.MASKED, Mode.TRUSTED)})
    return federation


def trusted_task(members: int = 3, size: int = 8, **policy: object) -> TaskDocument:
    """Return a task in trusted mode."""
    return small_task(members, size, mode="trusted", **policy)


def round_spec(document: TaskDocument) -> SealedSpec:
    """Return what is sealed, to the tests' round key."""
    return sealed_spec(document, ROUND_KEY.public_key().public_bytes_raw())


@dataclass
class SealedPlay:
    """A trusted round that a test plays step by step; what was persisted and stored is kept."""

    document: TaskDocument = field(default_factory=trusted_task)
    federation: MemoryFederation = field(default_factory=trusted_federation)
    changes: Mapping[str, object] = field(default_factory=dict)
    clock: ManualClock = field(default_factory=ManualClock)
    journal: list[Record] = field(default_factory=list)
    stored: dict[IdentityKey, bytes] = field(default_factory=dict)
    headers: dict[int, bytes] = field(default_factory=dict)
    result: OpenedSum | None = None

    def __post_init__(self) -> None:
        changes = {"sealed": round_spec(self.document), **self.changes}
        self.offer = self.federation.offer(self.document, self.clock(), **changes)
        self.context = offer_context(read_envelope(self.offer, Kind.OFFER).body)
        self.server = Collector(self.offer, self.federation.server, self.clock(), self.invited)
        self.members = [self.participant(number) for number in range(len(self.federation.devices))]

    @property
    def invited(self) -> list[IdentityKey]:
        return [device.public for device in self.federation.devices]

    def participant(
        self, number: int, limits: Limits = TRUSTING, last: LastSeen | None = None, offer: bytes = b""
    ) -> SealedParticipant:
        """Return a fresh device of this round."""
        device = self.federation.devices[number]
        return SealedParticipant(
            offer or self.offer, self.federation.descriptor, device, limits, self.clock(), last=last
        )

    def perform(self, effects: Effects) -> None:
        """Keep what the server persists, and the result."""
        for effect in effects:
            if isinstance(effect, Persist):
                self.journal.append(effect.record)
            elif isinstance(effect, Opened):
                self.result = effect.result

    def accept(self, *numbers: int) -> None:
        """Let devices accept the round."""
        for number in numbers:
            self.perform(self.server.on_accept(envelope_of(self.members[number].accept()), self.clock()))
        self.tick()

    def upload(self, number: int, update: Vector, weight: int = 1) -> None:
        """Let a device seal and upload."""
        frozen = self.members[number].freeze(update, weight, REPORT)
        (sent,) = [effect for effect in frozen if isinstance(effect, Send)]
        self.put(number, sent.envelope, sent.payload or b"")
        self.members[number].on_receipt(self.server.receipt(self.invited[number], 1))

    def put(self, number: int, header: bytes, payload: bytes) -> None:
        """Store an upload as the server's driver would."""
        self.stored[self.invited[number]] = payload
        self.headers[number] = header
        self.perform(self.server.on_upload(header, self.clock()))
        self.tick()

    def tick(self, seconds: float = 0) -> None:
        """Let time pass."""
        self.clock.advance(seconds=seconds)
        self.perform(self.server.tick(self.clock()))

    def restart(self) -> None:
        """Throw the server's memory away and rebuild it from its journal."""
        self.server = Collector.restore(self.offer, self.federation.server, self.journal, self.clock(), self.invited)

    def open(self) -> OpenedSum | None:
        """Open what is stored with the round's key."""
        opened = self.server.job().run(self.stored.__getitem__, ROUND_KEY)
        self.perform(self.server.on_opened(opened, self.clock()))
        return self.result


def offer_of(play: SealedPlay) -> Offer:
    """Return what a play's server offers."""
    return play.server.offer


def envelope_of(effects: Effects) -> bytes:
    """Return the one message among these effects."""
    (sent,) = [effect.envelope for effect in effects if isinstance(effect, Send)]
    return sent


def one_hot(place: int, height: float = 1.0, size: int = 8) -> Vector:
    """Return an update that is zero but in one place."""
    return (np.eye(1, size, place, dtype=np.float32).reshape(-1) * np.float32(height)).astype(np.float32)


def seal_repeatably(plain: bytes, receiver: bytes, ephemeral: X25519PrivateKey, info: bytes) -> bytes:
    """RFC 9180, base mode, single shot, X25519 / HKDF-SHA256 / AES-256-GCM, written out; its key pair is the caller's.

    The library draws that pair itself, so golden vectors need this; that the library opens them shows that both agree.
    """
    enc = ephemeral.public_key().public_bytes_raw()
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(receiver))
    eae = _extract(b"", kem, b"eae_prk", dh)
    shared = _expand(eae, kem, b"shared_secret", enc + receiver, 32)
    schedule = b"\x00" + _extract(b"", suite, b"psk_id_hash", b"") + _extract(b"", suite, b"info_hash", info)
    secret = _extract(shared, suite, b"secret", b"")
    key, nonce = _expand(secret, suite, b"key", schedule, 32), _expand(secret, suite, b"base_nonce", schedule, 12)
    return enc + AESGCM(key).encrypt(nonce, plain, b"")


def _extract(salt: bytes, suite: bytes, label: bytes, ikm: bytes) -> bytes:
    mac = HMAC(salt or bytes(32), SHA256())
    mac.update(b"HPKE-v1" + suite + label + ikm)
    return mac.finalize()


def _expand(prk: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(SHA256(), length, labelled).derive(prk)
