"""Who signs what, exactly: Ed25519 over received bytes, bound to a message kind and a context (SPEC, section 4)."""

import hashlib
from enum import StrEnum
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedit_protocol.encoding import Bytes32, Bytes64, M, Message, decode, encode
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.version import PROTOCOL_NAME

_FIELD_PRIME: Final = 2**255 - 19

# The y coordinates of the eight points whose order divides 8. A signature by such a key verifies on any message
# (PROTOCOL, section 17), and the library accepts them, so they are refused here.
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


class Kind(StrEnum):
    """What a signature is for; enters the signed bytes, so that no message can stand in for another."""

    CERTIFICATE = "certificate"
    LOG_HEAD = "log-head"
    ENROLL = "enroll"
    RENEW = "renew"
    SUCCESSION = "succession"
    REQUEST = "request"
    AUTHORITY_CARD = "authority-card"
    AUTHORITY_UPDATE = "authority-update"
    CHECK_IN = "check-in"
    OFFER = "offer"
    ACCEPT = "accept"
    SEALED_UPLOAD = "sealed-upload"
    JOIN = "join"
    ROSTER = "roster"
    SHARES = "shares"
    INBOX = "inbox"
    ACK = "ack"
    SHARERS = "sharers"
    UPLOAD = "upload"
    RECEIPT = "receipt"
    SURVIVORS = "survivors"
    CONFIRM = "confirm"
    CONFIRMATIONS = "confirmations"
    UNMASK = "unmask"
    SECOND_INPUT = "second-input"
    RESULT = "result"
    CANDIDATE = "candidate"
    EVALUATION = "evaluation"
    ABORT = "abort"
    LEAVE = "leave"
    TASK_CHANGE = "task-change"
    LINEAGE = "lineage"
    HISTORY = "history"
    """A device's own notes about its rounds: signed to be kept, never sent."""
    AUDIT_HEAD = "audit-head"
    """The newest entry of the server's own audit log: signed for its operators, never sent to a device."""


class SigningKey:
    """An Ed25519 private key that never shows itself; `public` is its 32-byte public key."""

    def __init__(self, secret: bytes) -> None:
        """Take the 32 secret bytes of RFC 8032, section 5.1.5; raises ValueError on another length."""
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        self.public = IdentityKey(self._key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:8]}…)"

    def sign(self, kind: Kind, context: bytes, body: bytes) -> bytes:
        """Return the 64-byte signature of these exact body bytes in this 32-byte context."""
        return self._key.sign(signed_bytes(kind, context, body))

    def secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, for the key file and nothing else."""
        return self._key.private_bytes_raw()


class Envelope(Message):
    """A signed message as it travels: the body's bytes are kept as received, and the signature covers them."""

    kind: Kind
    signer: Bytes32
    body: bytes
    signature: Bytes64


def signed_bytes(kind: Kind, context: bytes, body: bytes) -> bytes:
    """Return what Ed25519 signs: protocol name, kind, NUL, 32-byte context, SHA-256 of the body."""
    if len(context) != 32:
        raise ValueError("a signature context has 32 bytes")
    return f"{PROTOCOL_NAME}|{kind}".encode() + b"\x00" + context + hashlib.sha256(body).digest()


def check_public_key(raw: bytes) -> IdentityKey:
    """Return the key if it is canonical and not of small order; raises SecurityError (key-refused) otherwise (C6)."""
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if len(raw) != 32 or y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
        raise SecurityError(ProblemType.KEY_REFUSED, "an identity key is malformed or of small order")
    return IdentityKey(raw)


@lru_cache(maxsize=1024)
def _usable(public: bytes) -> Ed25519PublicKey:
    """Return a key that may verify, checked and read once: a round's members sign several messages each."""
    return Ed25519PublicKey.from_public_bytes(check_public_key(public))


def verify(public: bytes, kind: Kind, context: bytes, body: bytes, signature: bytes) -> None:
    """Raise SecurityError unless `signature` is `public`'s over this kind, context and body."""
    try:
        _usable(public).verify(signature, signed_bytes(kind, context, body))
    except InvalidSignature as error:
        raise SecurityError(ProblemType.BAD_SIGNATURE, f"the signature of a {kind} message does not verify") from error


def seal(key: SigningKey, kind: Kind, context: bytes, message: Message) -> bytes:
    """Return the encoded envelope of a message signed by `key`."""
    body = encode(message)
    signature = key.sign(kind, context, body)
    return encode(Envelope(kind=kind, signer=key.public, body=body, signature=signature))


def unseal(received: bytes, kind: Kind, context: bytes, body_type: type[M], *, signer: bytes | None = None) -> M:
    """Verify an encoded envelope and return its message.

    `signer` is the only key accepted; without it the envelope names its signer and the caller must look it up itself
    (`read_envelope`). Raises ProtocolError (malformed) and SecurityError (bad-signature, key-refused).
    """
    envelope = read_envelope(received, kind)
    if signer is not None and envelope.signer != signer:
        raise SecurityError(ProblemType.BAD_SIGNATURE, f"a {kind} message is signed by another key than expected")
    return verified(envelope, context, body_type)


def verified(envelope: Envelope, context: bytes, body_type: type[M]) -> M:
    """Verify an envelope that was read and return its message; its signer is whoever it names. Raises as `unseal`."""
    verify(envelope.signer, envelope.kind, context, envelope.body, envelope.signature)
    return decode(body_type, envelope.body)


def read_envelope(received: bytes, kind: Kind) -> Envelope:
    """Decode an envelope of this kind WITHOUT verifying it; raises ProtocolError (malformed)."""
    envelope = decode(Envelope, received)
    if envelope.kind is not kind:
        raise SecurityError(ProblemType.MALFORMED, f"a {envelope.kind} message where a {kind} message belongs")
    return envelope
