"""The server's key may change while this device is a member: it follows where the old key vouches, and nowhere else."""

from collections.abc import Callable
from dataclasses import dataclass

from fedit_client.network.transport import Transport
from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import Digest
from fedit_protocol.succession import Successions, check_successor

DESCRIPTOR_PATH = "/v1/federation"
_SUCCESSIONS_PATH = "/v1/federation/successions"


async def successor(transport: Transport, pin: Digest, shown: bytes) -> FederationDescriptor | None:
    """Return the shown descriptor if the pinned one leads to it by the old keys' signatures, else None.

    Raises TransportError, and SecurityError if the connection itself is not to be trusted.
    """
    try:
        received = await transport.get(_SUCCESSIONS_PATH)
    except SecurityError:
        raise
    except ProtocolError:
        return None  # an older server, or none of ours: nobody vouches
    try:
        return check_successor(pin, shown, decode(Successions, received))
    except ProtocolError:
        return None  # what is forged or garbled vouches for nothing


@dataclass
class PinnedDescriptor:
    """The descriptor that this device trusts, as published; `save` keeps a successor for the next start."""

    raw: bytes
    save: Callable[[bytes], None]

    @property
    def descriptor(self) -> FederationDescriptor:
        """Its content."""
        return decode(FederationDescriptor, self.raw)

    async def follow(self, transport: Transport) -> bool:
        """Look whether the server shows another descriptor, and trust it if ours vouches; say whether it changed.

        Raises SecurityError T001 if it shows one that nobody vouches for.
        """
        shown = await transport.get(DESCRIPTOR_PATH)
        if shown == self.raw:
            return False
        pin = digest_of(self.raw)
        if await successor(transport, pin, shown) is None:
            raise another_server(pin, digest_of(shown), "this device has pinned")
        self.save(shown)
        self.raw = shown
        return True


def another_server(expected: Digest, found: Digest, source: str, where: str | None = None) -> SecurityError:
    """The error for a server whose identity is neither the pinned one nor its successor (`help T001`)."""
    return SecurityError(
        ProblemType.BAD_SIGNATURE,
        f"this server is not the one {source}: expected {expected[:19]}…, got {found[:19]}…, and the expected one does "
        "not vouch for it; nothing was sent; it lost its key, was reinstalled, or someone sits in between",
        code="T001",
        where=where,
        fix="fedit-client join --server 'NEW-LINK', once the organiser has made a new invite (not over this server)",
    )
