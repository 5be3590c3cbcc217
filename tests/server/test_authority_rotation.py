"""Another private TLS authority: devices follow in two steps, and a crash in between is completed at the next start."""

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError
from fedit_protocol.succession import check_successor
from fedit_protocol.testing import ManualClock
from fedit_server.clock import utc_now
from fedit_server.home.files import write_atomically
from fedit_server.home.folder import Home, Identity, create_identity, load_identity
from fedit_server.keys.authority_rotation import begin, finish, settle
from fedit_server.keys.rotation import rotate_server_key


@pytest.fixture
def clock() -> ManualClock:
    """TLS looks at the real time."""
    return ManualClock(utc_now())


@pytest.fixture
def home(tmp_path: Path, clock: ManualClock) -> Home:
    home = Home(tmp_path / "home")
    create_identity(home, "test", clock())
    return home


def authorities(identity: Identity) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(identity.descriptor.tls_ca.encode())


def follows(before: Identity, after: Identity) -> bool:
    """Whether a device that pinned one descriptor trusts the other."""
    found = check_successor(before.pin, after.descriptor_bytes, after.successions)
    return found == decode(FederationDescriptor, after.descriptor_bytes)


async def connects(identity: Identity, trusts: str) -> bool:
    """Whether a device that trusts these authorities gets a connection; host names it does not check."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(cadata=trusts)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=identity.tls.server_context()
    )
    async with server:
        try:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True


async def test_devices_follow_to_the_new_authority_in_two_steps(home: Home, clock: ManualClock) -> None:
    first = load_identity(home)
    first.tls.renew_leaf(["localhost"], clock())
    second = begin(home, clock())
    assert len(authorities(second)) == 2
    assert follows(first, second)
    assert not second.tls.renew_leaf(["localhost"], clock()), "the old authority's leaf stays"
    assert await connects(second, first.descriptor.tls_ca)
    assert await connects(second, second.descriptor.tls_ca)
    third = finish(home, clock())
    assert authorities(third) == authorities(second)[:1]
    assert follows(first, third)
    assert follows(second, third)
    assert third.tls.renew_leaf(["localhost"], clock()), "the new authority signs a leaf of its own"
    assert await connects(third, second.descriptor.tls_ca)
    assert await connects(third, third.descriptor.tls_ca)
    assert not await connects(third, first.descriptor.tls_ca), "who was not here in between has to join again"
    assert not third.tls.is_rotating
    fourth = rotate_server_key(home, 5)
    assert follows(first, fourth)


def test_what_is_refused(home: Home, clock: ManualClock, tmp_path: Path) -> None:
    refusals = []
    for step in (finish, begin, begin):
        try:
            step(home, clock())
        except ConfigError as error:
            refusals.append(error.code)
    elsewhere = Home(tmp_path / "elsewhere")
    create_identity(elsewhere, "test", clock(), tls_authority="")
    with pytest.raises(ConfigError) as public:
        begin(elsewhere, clock())
    assert [*refusals, public.value.code] == ["U136", "U136", "U136"]


def test_a_crash_before_the_descriptor_is_completed(home: Home, clock: ManualClock) -> None:
    before = home.descriptor.read_bytes()
    after = begin(home, clock()).pin
    write_atomically(home.descriptor, before)
    settle(home)
    assert digest_of(home.descriptor.read_bytes()) == after


def test_a_crash_before_anything_was_signed_is_undone(home: Home, clock: ManualClock) -> None:
    identity = load_identity(home)
    identity.tls.create_next_authority(clock())
    settle(home)
    assert not identity.tls.is_rotating
    assert load_identity(home).pin == identity.pin


def test_a_crash_before_the_new_authority_is_in_place_is_completed(home: Home, clock: ManualClock) -> None:
    begin(home, clock())
    identity = load_identity(home)
    key, pem = home.keys / "ca.next.key.pem", home.keys / "ca.next.pem"
    kept = key.read_bytes(), pem.read_bytes()
    finish(home, clock())
    write_atomically(key, kept[0])
    write_atomically(pem, kept[1])
    settle(home)
    assert not identity.tls.is_rotating
    assert load_identity(home).tls.authority_pem().encode() == kept[1]
