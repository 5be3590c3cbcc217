"""A device follows its server to a new key when the old one vouches, says so, and otherwise stops with T001."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedit_client.events import EventKind
from fedit_client.membership.trust import ServerAddress, recognise
from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import SecurityError
from fedit_protocol.signing import SigningKey
from fedit_protocol.succession import Successions, replace_tls, succeed
from fedit_protocol.testing import MemoryFederation, seeded_random, small_task

from .conftest import HttpsFederation
from .test_sdk import joined
from .test_session import World

NEW = SigningKey(seeded_random("new server")(32))


def change_key(federation: MemoryFederation) -> Successions:
    """Give a federation's server a new key, and return what the old one signs about it."""
    _, step = succeed(encode(federation.descriptor), federation.server, NEW.public, 1)
    federation.descriptor = federation.descriptor.model_copy(update={"server_key": NEW.public})
    federation.server = NEW
    return Successions(steps=(step,))


async def test_members_follow_a_key_that_changed_while_they_were_away(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3, rounds=1))
    world.server.successions = change_key(world.federation)
    assert await world.run() == [1, 1, 1]
    assert world.pinned == [encode(world.federation.descriptor)] * 3
    for device in world.devices:
        first = device.events[0]
        assert (first.kind, "new key or TLS authority, signed by its old one" in first.text) == (EventKind.NOTICE, True)


async def test_members_follow_a_key_that_changes_between_two_rounds(tmp_path: Path) -> None:
    world = World(tmp_path, small_task(3, rounds=2))

    def when_committed(changing: Callable[[], None]) -> Callable[[str], None]:
        def before(path: str) -> None:
            if path == "/v1/checkin" and len(world.server.results) == 1 and world.federation.server is not NEW:
                changing()

        return before

    def change() -> None:
        world.server.successions = change_key(world.federation)

    for device in world.devices:
        device.transport.before = when_committed(change)
    assert await world.run() == [2, 2, 2]
    assert world.federation.server is NEW
    assert world.pinned == [encode(world.federation.descriptor)] * 3


async def test_a_key_that_nobody_vouches_for_ends_the_stay_before_anything_is_sent(tmp_path: Path) -> None:
    """The server lost its key: what its members see, and what helps."""
    world = World(tmp_path, small_task(3, rounds=1))
    change_key(world.federation)
    async with asyncio.timeout(20):
        with pytest.raises(SecurityError) as alarm:
            await world.devices[0].session.run()
    assert alarm.value.code == "T001"
    assert "lost its key" in str(alarm.value)
    assert "NEW-LINK" in (alarm.value.fix or "")
    assert (world.pinned, world.server.uploads) == ([], [])


async def test_row_32_an_invite_leads_to_a_new_key_only_where_the_old_one_vouches(https: HttpsFederation) -> None:
    address = ServerAddress.parse(https.invite)
    steps = change_key(https.federation)
    https.descriptor = encode(https.federation.descriptor)
    with pytest.raises(SecurityError) as alarm:
        await recognise(address)
    assert alarm.value.code == "T001"
    https.loopback.successions = steps
    federation = await recognise(address)
    assert federation.descriptor.server_key == NEW.public
    assert https.bodies == []


async def test_forged_successions_are_as_good_as_none(https: HttpsFederation) -> None:
    address = ServerAddress.parse(https.invite)
    thief = SigningKey(seeded_random("thief")(32))
    shown, step = succeed(encode(https.federation.descriptor), thief, thief.public, 1)
    https.descriptor = shown
    https.loopback.successions = Successions(steps=(step, b"garbage"))
    with pytest.raises(SecurityError) as alarm:
        await recognise(address)
    assert alarm.value.code == "T001"


async def test_after_a_lost_key_a_new_invite_is_enough(https: HttpsFederation, tmp_path: Path) -> None:
    """The certificate is the authority's and stays: nothing is redeemed, and the membership trusts the new key."""
    client = await joined(https, tmp_path)
    before = client.require_membership()
    change_key(https.federation)
    https.descriptor = encode(https.federation.descriptor)
    with pytest.raises(SecurityError) as alarm:
        await client.run_to_end()
    assert alarm.value.code == "T001"
    again = await joined(https, tmp_path)
    after = again.require_membership()
    assert (after.certificate, after.descriptor) == (before.certificate, https.descriptor)
    assert https.asked.count("POST /v1/enroll") == 1


def private_authority() -> tuple[EllipticCurvePrivateKey, str]:
    """A private TLS authority: its key and its certificate."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    key = load_pem_private_key(authority.private_key_pem.bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    return key, authority.cert_pem.bytes().decode()


async def test_a_device_that_stays_follows_to_another_tls_authority(tmp_path: Path) -> None:
    """Its server's signing key is the same, so no offer tells: it looks every six hours."""
    world = World(tmp_path, small_task(3, rounds=3))
    federation, (old_key, old), (_, new) = world.federation, private_authority(), private_authority()
    federation.descriptor = federation.descriptor.model_copy(update={"tls_ca": old})
    for device in world.devices:
        device.session._pinned.raw = encode(federation.descriptor)
    after, step = replace_tls(encode(federation.descriptor), federation.server, old_key, new + old, 1)

    def before(path: str) -> None:
        if path == "/v1/checkin" and len(world.server.results) == 1 and not world.server.successions.steps:
            world.server.successions = Successions(steps=(step,))
            federation.descriptor = decode(FederationDescriptor, after)
            world.server.clock.advance(seconds=6 * 3600)

    for device in world.devices:
        device.transport.before = before
    assert await world.run() == [3, 3, 3]
    assert world.pinned == [after] * 3
