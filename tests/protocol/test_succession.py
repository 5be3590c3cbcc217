"""A new server key counts where an unbroken line of signatures leads to it from the pinned descriptor."""

from datetime import UTC, datetime, timedelta

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateBuilder, Name, NameAttribute
from cryptography.x509.oid import NameOID

from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.succession import Succession, Successions, check_successor, replace_tls, succeed
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


def authority(name: str) -> tuple[EllipticCurvePrivateKey, str]:
    """A private TLS authority: its key and its certificate."""
    key = generate_private_key(SECP256R1())
    subject = Name([NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .sign(key, SHA256())
    )
    return key, made.public_bytes(Encoding.PEM).decode()


OLD_TLS, NEW_TLS = authority("old"), authority("new")
PRIVATE = encode(FEDERATION.descriptor.model_copy(update={"tls_ca": OLD_TLS[1]}))


def test_server_and_tls_authority_together_lead_to_another_tls_authority() -> None:
    both, one = replace_tls(PRIVATE, FEDERATION.server, OLD_TLS[0], NEW_TLS[1] + OLD_TLS[1], 1)
    last, two = replace_tls(both, FEDERATION.server, NEW_TLS[0], NEW_TLS[1], 2)
    third, three = succeed(last, FEDERATION.server, THIRD.public, 3)
    found = check_successor(digest_of(PRIVATE), third, Successions(steps=(one, two, three)))
    assert found == FEDERATION.descriptor.model_copy(update={"tls_ca": NEW_TLS[1], "server_key": THIRD.public})


def test_the_field_of_a_tls_authority_is_left_out_where_the_key_changes() -> None:
    _, envelope = succeed(PRIVATE, FEDERATION.server, SECOND.public, 1)
    assert set(cbor2.loads(read_envelope(envelope, Kind.SUCCESSION).body)) == {"previous", "following", "at"}


def forged(**changes: object) -> tuple[bytes, bytes]:
    """A step to the new TLS authority that the server signed, with a proof of another kind."""
    proof = changes.pop("proof", b"")
    following = encode(decode(FederationDescriptor, PRIVATE).model_copy(update={"tls_ca": NEW_TLS[1]} | changes))
    assert isinstance(proof, bytes)
    message = Succession(previous=PRIVATE, following=following, at=1, tls_proof=proof)
    return following, seal(FEDERATION.server, Kind.SUCCESSION, FEDERATION.context, message)


def proof_for(following: bytes, key: EllipticCurvePrivateKey) -> bytes:
    said = b"fedit/v2/tls-succession" + digest_of(PRIVATE).encode() + digest_of(following).encode()
    return key.sign(said, ECDSA(SHA256()))


FOLLOWING = forged()[0]
FORGED = {
    "the server's key alone": forged(),
    "the new authority's own word": forged(proof=proof_for(FOLLOWING, NEW_TLS[0])),
    "a word about another descriptor": forged(proof=proof_for(PRIVATE, OLD_TLS[0])),
    "no authority at all after it": forged(tls_ca="", proof=proof_for(forged(tls_ca="")[0], OLD_TLS[0])),
    "an authority that is no certificate": forged(tls_ca="x", proof=proof_for(forged(tls_ca="x")[0], OLD_TLS[0])),
    "the key and the authority at once": forged(
        server_key=THIEF.public, proof=proof_for(forged(server_key=THIEF.public)[0], OLD_TLS[0])
    ),
    "another enrolment authority with it": forged(
        authority_key=THIEF.public, proof=proof_for(forged(authority_key=THIEF.public)[0], OLD_TLS[0])
    ),
}


@pytest.mark.parametrize("case", FORGED.values(), ids=FORGED)
def test_row_32_a_tls_authority_is_followed_only_where_the_one_before_vouches(case: tuple[bytes, bytes]) -> None:
    shown, envelope = case
    with pytest.raises(SecurityError) as refused:
        check_successor(digest_of(PRIVATE), shown, Successions(steps=(envelope,)))
    assert refused.value.problem is ProblemType.KEY_REFUSED
