"""A new server key counts where an unbroken line of signatures leads to it from the pinned descriptor."""

import pytest

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.succession import Succession, Successions, check_successor, succeed
from fedit_protocol.testing import MemoryFederation, seeded_random

DRAW = seeded_random("successions")
SECOND, THIRD, THIEF = (SigningKey(DRAW(32)) for _ in range(3))
FEDERATION = MemoryFederation(1)
FIRST = encode(FEDERATION.descriptor)


def line() -> tuple[list[bytes], list[bytes]]:
    """Three descriptors and the two steps between them."""
    second, one = succeed(FIRST, FEDERATION.server, SECOND.public, 1)
    third, two = succeed(second, SECOND, THIRD.public, 2)
    return [FIRST, second, third], [one, two]


@pytest.mark.parametrize("pinned", range(2))
def test_every_earlier_descriptor_leads_to_the_newest(pinned: int) -> None:
    descriptors, steps = line()
    found = check_successor(digest_of(descriptors[pinned]), descriptors[2], Successions(steps=tuple(steps)))
    assert found == decode(FederationDescriptor, descriptors[2])
    assert found == FEDERATION.descriptor.model_copy(update={"server_key": THIRD.public})


def test_nobody_vouches_for_an_older_key_or_across_a_gap() -> None:
    descriptors, steps = line()
    whole = Successions(steps=tuple(steps))
    assert check_successor(digest_of(descriptors[2]), descriptors[0], whole) is None
    assert check_successor(digest_of(descriptors[0]), descriptors[1], whole) is None, "the line goes on"
    assert check_successor(digest_of(descriptors[0]), descriptors[2], Successions(steps=(steps[1],))) is None
    assert check_successor(digest_of(descriptors[0]), descriptors[2], Successions()) is None


def step(signer: SigningKey, **changes: object) -> tuple[bytes, bytes]:
    """A descriptor after the first one, and the step to it, signed by anybody."""
    following = encode(FEDERATION.descriptor.model_copy(update={"server_key": THIEF.public} | changes))
    message = Succession(previous=FIRST, following=following, at=1)
    return following, seal(signer, Kind.SUCCESSION, FEDERATION.context, message)


@pytest.mark.parametrize("signer", [THIEF, FEDERATION.authority, FEDERATION.devices[0]])
def test_row_32_who_was_not_appointed_by_the_pinned_key_is_not_followed(signer: SigningKey) -> None:
    """Neither the new key itself, nor the authority, nor a device can appoint a server."""
    shown, envelope = step(signer)
    with pytest.raises(SecurityError) as refused:
        check_successor(digest_of(FIRST), shown, Successions(steps=(envelope,)))
    assert refused.value.problem is ProblemType.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        {"authority_key": THIEF.public},
        {"authority_seal_key": bytes(range(32))},
        {"tls_ca": "another"},
        {"authority_is_server": False},
        {"federation_id": "0" * 32},
    ],
)
def test_the_server_cannot_change_anything_but_its_own_key(changes: dict[str, object]) -> None:
    shown, envelope = step(FEDERATION.server, **changes)
    with pytest.raises(SecurityError) as refused:
        check_successor(digest_of(FIRST), shown, Successions(steps=(envelope,)))
    assert refused.value.problem is ProblemType.KEY_REFUSED


def test_a_weak_key_is_not_followed_even_if_the_old_one_signed() -> None:
    """C6 holds for servers too."""
    shown, envelope = succeed(FIRST, FEDERATION.server, IdentityKey(bytes(32)), 1)
    with pytest.raises(SecurityError) as refused:
        check_successor(digest_of(FIRST), shown, Successions(steps=(envelope,)))
    assert refused.value.problem is ProblemType.KEY_REFUSED
