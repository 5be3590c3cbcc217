"""How a device proves who is asking when a request has no signed body: the Authorization header (SPEC, section 7)."""

from typing import Final

from fedit_protocol.encoding import from_base64url, to_base64url
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import FederationId, IdentityKey
from fedit_protocol.signing import Kind, SigningKey, verify

MAX_CLOCK_SKEW_S: Final = 300
"""Signed requests whose time differs from the receiver's by more seconds than this are refused."""

_SCHEME: Final = "FedIT"


def authorization(key: SigningKey, federation: FederationId, method: str, path: str, now_s: int) -> str:
    """Return the header's value: scheme, identity key, time and signature over method, path and time."""
    signature = key.sign(Kind.REQUEST, federation_context(federation), _request_bytes(method, path, now_s))
    return f"{_SCHEME} {to_base64url(key.public)}.{now_s}.{to_base64url(signature)}"


def check_authorization(header: str, federation: FederationId, method: str, path: str, now_s: int) -> IdentityKey:
    """Return the key behind a header; raises SecurityError (bad-signature, clock-skew). It may not be enrolled."""
    scheme, _, value = header.partition(" ")
    parts = value.split(".")
    if scheme != _SCHEME or len(parts) != 3 or not parts[1].isascii() or not parts[1].isdigit() or len(parts[1]) > 12:
        raise SecurityError(ProblemType.BAD_SIGNATURE, "the authorization header is missing or malformed")
    public, sent_at, signature = from_base64url(parts[0]), int(parts[1]), from_base64url(parts[2])
    verify(public, Kind.REQUEST, federation_context(federation), _request_bytes(method, path, sent_at), signature)
    check_clock(sent_at, now_s)
    return IdentityKey(public)


def check_clock(sent_at: int, now_s: int, oldest_s: int = MAX_CLOCK_SKEW_S) -> None:
    """Raise SecurityError (clock-skew) if a signed time is too far from ours; both are seconds since 1970, UTC.

    `oldest_s` is how old a message may be, where it may have waited for its reader.
    """
    skew = sent_at - now_s
    if not -oldest_s <= skew <= MAX_CLOCK_SKEW_S:
        direction, allowed = ("ahead of", MAX_CLOCK_SKEW_S) if skew > 0 else ("behind", oldest_s)
        raise SecurityError(
            ProblemType.CLOCK_SKEW,
            f"the device's clock is {abs(skew)} s {direction} the server's; at most {allowed} s are allowed",
            code="T007",
            fix="fedit-client doctor --network, and set this machine's clock: timedatectl set-ntp true",
        )


def _request_bytes(method: str, path: str, sent_at: int) -> bytes:
    return f"{method} {path} {sent_at}".encode()
