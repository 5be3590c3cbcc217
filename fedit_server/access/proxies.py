"""Who really asks: behind a trusted proxy the address that it names, from anybody else the one that is connected."""

import ipaddress
from collections.abc import Collection, Iterable
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX: Final = ""
"""The peer of a Unix socket: only a proxy on this machine that may open it."""

_MOST_HOPS: Final = 32


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks that these texts name, such as 10.0.0.0/8 or 192.0.2.1; raises ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_trusted(peer: str, trusted: Collection[Network]) -> bool:
    """Say whether a connected peer is one of the proxies; over a Unix socket it is."""
    if peer == UNIX:
        return True
    if not trusted:
        return False
    address = _address(peer)
    return address is not None and any(address in network for network in trusted)


def real_address(peer: str, forwarded: Iterable[str], trusted: Collection[Network]) -> str:
    """Return who asks, from the peer and its X-Forwarded-For lines, in the order in which they came.

    Each proxy appends whom it heard. So the list is read from its end, past the trusted ones: what stands before the
    first other address was written by whoever asks, and says nothing. A hop that is no address ends the reading.
    """
    if not is_trusted(peer, trusted):
        return peer
    hops = [hop.strip() for line in forwarded for hop in line.split(",")][-_MOST_HOPS:]
    found = peer
    for hop in reversed(hops):
        address = _address(hop)
        if address is None:
            break
        found = str(address)
        if not any(address in network for network in trusted):
            break
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    bare = text.strip().strip('"')
    if bare.startswith("["):  # [2001:db8::1]:443
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:  # 192.0.2.1:443
        bare = bare.partition(":")[0]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
