"""Bytes on the wire: canonical CBOR, base64url, digests, size limits. Decoding is strict (SPEC, section 2)."""

import base64
import binascii
import hashlib
from typing import Annotated, Any, Final, TypeVar

import cbor2
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import Digest

MAX_CONTROL_BYTES: Final = 4 * 1024 * 1024
"""The largest control message, in bytes; vectors and adapters are bodies of their own with their own limits."""

PART_LENGTH_BYTES: Final = 8
"""Before each part that H hashes stands its length."""

Bytes32 = Annotated[bytes, Field(min_length=32, max_length=32)]
Bytes64 = Annotated[bytes, Field(min_length=64, max_length=64)]
DigestText = Annotated[Digest, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


def _list_to_tuple(value: Any) -> Any:
    """CBOR has arrays only; a strict model wants a tuple."""
    return tuple(value) if isinstance(value, list) else value


AsTuple = BeforeValidator(_list_to_tuple)


class Message(BaseModel):
    """A frozen model that travels as canonical CBOR; unknown fields and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)


def encode(message: BaseModel) -> bytes:
    """Return a model's canonical CBOR (RFC 8949, section 4.2): one model, one byte string."""
    return cbor2.dumps(message.model_dump(mode="python"), canonical=True)


def decode(kind: type[M], received: bytes) -> M:
    """Return the model that `received` encodes.

    Raises ProtocolError (malformed, too-large) unless the bytes are exactly the canonical encoding of a valid `kind`:
    trailing bytes, repeated keys, unknown fields and non-canonical lengths are all refused by the final comparison.
    """
    if len(received) > MAX_CONTROL_BYTES:
        raise ProtocolError(ProblemType.TOO_LARGE, f"{len(received)} bytes exceed {MAX_CONTROL_BYTES}")
    try:
        message = kind.model_validate(cbor2.loads(received))
    except (cbor2.CBORDecodeError, ValidationError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(ProblemType.MALFORMED, f"not a valid {kind.__name__}: {_brief(error)}") from error
    if encode(message) != received:
        raise ProtocolError(ProblemType.MALFORMED, f"not the canonical encoding of a {kind.__name__}")
    return message


def _brief(error: Exception) -> str:
    """Name the offending field, never its value: values may be secret."""
    if isinstance(error, ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return type(error).__name__


def digest_of(content: bytes | memoryview) -> Digest:
    """Return `sha256:` and the hex SHA-256 of these bytes."""
    return Digest("sha256:" + hashlib.sha256(content).hexdigest())


def hash_parts(*parts: bytes | str) -> bytes:
    """Return H(x1, x2, …): SHA-256 over the parts, each preceded by its 8-byte big-endian length (SPEC, section 2).

    The lengths make the split unambiguous: H("ab", "c") and H("a", "bc") differ.
    """
    return hashlib.sha256(joined_parts(*parts)).digest()


def joined_parts(*parts: bytes | str) -> bytes:
    """Return what H hashes: the parts, each preceded by its 8-byte big-endian length."""
    joined = bytearray()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        joined += len(raw).to_bytes(PART_LENGTH_BYTES, "big")
        joined += raw
    return bytes(joined)


def to_base64url(raw: bytes) -> str:
    """Return unpadded base64url (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """Decode unpadded base64url; raises ProtocolError on another alphabet, padding or stray bits."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(ProblemType.MALFORMED, "not base64url") from error
    if to_base64url(raw) != text:
        raise ProtocolError(ProblemType.MALFORMED, "not canonical base64url")
    return raw
