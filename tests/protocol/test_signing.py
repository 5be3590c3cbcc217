"""Who signs what, exactly: no message stands in for another, no weak key signs for anybody."""

import hashlib

import pytest

from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.messages import Ack, Leave
from fedit_protocol.signing import (
    Envelope,
    Kind,
    SigningKey,
    check_public_key,
    read_envelope,
    seal,
    signed_bytes,
    unseal,
    verify,
)
from fedit_protocol.testing import seeded_random

from .rounds import refused

KEY, OTHER = (SigningKey(seeded_random(name)(32)) for name in ("key", "other"))
CONTEXT = b"c" * 32
ACK = Ack(complaints=(1, 2))

# Every encoding, canonical or not, of the points whose order divides 8 (the list of libsodium and Wycheproof).
SMALL_ORDER = {
    "identity": "0100000000000000000000000000000000000000000000000000000000000000",
    "order 2": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "order 4": "0000000000000000000000000000000000000000000000000000000000000000",
    "order 4, other sign": "0000000000000000000000000000000000000000000000000000000000000080",
    "order 8, first": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "order 8, first, other sign": "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "order 8, second": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "order 8, second, other sign": "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "identity, not canonical": "0100000000000000000000000000000000000000000000000000000000000080",
    "order 2, not canonical": "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "p": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "p, other sign": "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "p + 1": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "p + 1, other sign": "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}


def test_the_signed_bytes_are_name_kind_context_and_digest() -> None:
    body = b"body"
    expected = b"FedIT-SA/2|ack\x00" + CONTEXT + hashlib.sha256(body).digest()
    assert signed_bytes(Kind.ACK, CONTEXT, body) == expected


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_context_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        signed_bytes(Kind.ACK, bytes(length), b"")


def test_no_kind_is_the_beginning_of_another_with_a_separator() -> None:
    assert all("\x00" not in kind and "|" not in kind for kind in Kind)
    assert len({str(kind) for kind in Kind}) == len(Kind)


def test_an_envelope_opens_for_its_signer_kind_and_context() -> None:
    received = seal(KEY, Kind.ACK, CONTEXT, ACK)
    assert unseal(received, Kind.ACK, CONTEXT, Ack) == ACK
    assert unseal(received, Kind.ACK, CONTEXT, Ack, signer=KEY.public) == ACK
    assert seal(KEY, Kind.ACK, CONTEXT, ACK) == received, "signatures are deterministic (RFC 8032)"


def test_an_envelope_by_another_key_is_refused() -> None:
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(seal(OTHER, Kind.ACK, CONTEXT, ACK), Kind.ACK, CONTEXT, Ack, signer=KEY.public)


def test_an_envelope_in_another_context_is_refused() -> None:
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(seal(KEY, Kind.ACK, b"d" * 32, ACK), Kind.ACK, CONTEXT, Ack, signer=KEY.public)


def test_an_envelope_of_another_kind_is_refused_even_if_relabelled() -> None:
    received = seal(KEY, Kind.ACK, CONTEXT, ACK)
    with refused(ProblemType.MALFORMED):
        unseal(received, Kind.SHARERS, CONTEXT, Ack)
    relabelled = encode(read_envelope(received, Kind.ACK).model_copy(update={"kind": Kind.SHARERS}))
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(relabelled, Kind.SHARERS, CONTEXT, Ack)


def test_a_signed_body_of_another_type_is_refused() -> None:
    received = seal(KEY, Kind.ACK, CONTEXT, Leave(sent_at=1))
    with refused(ProblemType.MALFORMED):
        unseal(received, Kind.ACK, CONTEXT, Ack)


@pytest.mark.parametrize("place", [0, 31, 32, 63])
def test_a_changed_signature_is_refused(place: int) -> None:
    envelope = read_envelope(seal(KEY, Kind.ACK, CONTEXT, ACK), Kind.ACK)
    signature = bytearray(envelope.signature)
    signature[place] ^= 1
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(encode(envelope.model_copy(update={"signature": bytes(signature)})), Kind.ACK, CONTEXT, Ack)


def test_a_changed_body_is_refused() -> None:
    envelope = read_envelope(seal(KEY, Kind.ACK, CONTEXT, ACK), Kind.ACK)
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(encode(envelope.model_copy(update={"body": encode(Ack(complaints=()))})), Kind.ACK, CONTEXT, Ack)


def test_a_signature_with_s_plus_the_group_order_is_refused() -> None:
    """RFC 8032, section 5.1.7: otherwise every signature would have a twin, and resends could differ."""
    order = 2**252 + 27742317777372353535851937790883648493
    envelope = read_envelope(seal(KEY, Kind.ACK, CONTEXT, ACK), Kind.ACK)
    s = int.from_bytes(envelope.signature[32:], "little") + order
    twin = envelope.signature[:32] + s.to_bytes(32, "little")
    with refused(ProblemType.BAD_SIGNATURE):
        unseal(encode(envelope.model_copy(update={"signature": twin})), Kind.ACK, CONTEXT, Ack)


@pytest.mark.parametrize("length", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    with refused(ProblemType.BAD_SIGNATURE):
        verify(KEY.public, Kind.ACK, CONTEXT, b"body", bytes(length))


@pytest.mark.parametrize("public", SMALL_ORDER.values(), ids=SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(public: str) -> None:
    """The library takes such keys, and a trivial signature then verifies on any message."""
    raw = bytes.fromhex(public)
    with refused(ProblemType.KEY_REFUSED):
        check_public_key(raw)
    with refused(ProblemType.KEY_REFUSED):
        verify(raw, Kind.ACK, CONTEXT, b"any message", raw + bytes(32))


@pytest.mark.parametrize("raw", [b"", bytes(31), b"\x02" * 33, b"\xff" * 32])
def test_a_malformed_key_is_refused(raw: bytes) -> None:
    with refused(ProblemType.KEY_REFUSED):
        check_public_key(raw)


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    """y = 2 has no x on the curve: the encoding is canonical, the point does not exist."""
    with refused(ProblemType.BAD_SIGNATURE):
        verify(b"\x02" + bytes(31), Kind.ACK, CONTEXT, b"body", bytes(64))


def test_an_envelope_keeps_the_received_bytes_of_its_body() -> None:
    body = b"\xa1\x6acomplaints\x98\x02\x01\x02"  # a longer array header: valid CBOR, not canonical
    signature = KEY.sign(Kind.ACK, CONTEXT, body)
    received = encode(Envelope(kind=Kind.ACK, signer=KEY.public, body=body, signature=signature))
    assert read_envelope(received, Kind.ACK).body == body
    with refused(ProblemType.MALFORMED):  # signed, but not a message
        unseal(received, Kind.ACK, CONTEXT, Ack)


def test_reading_does_not_verify_and_says_so() -> None:
    envelope = Envelope(kind=Kind.ACK, signer=KEY.public, body=b"", signature=bytes(64))
    assert read_envelope(encode(envelope), Kind.ACK) == envelope
    assert "WITHOUT" in (read_envelope.__doc__ or "")


def test_an_envelope_with_an_unknown_kind_is_refused() -> None:
    received = seal(KEY, Kind.ACK, CONTEXT, ACK)
    with refused(ProblemType.MALFORMED):
        decode(Envelope, received.replace(b"cack", b"cnak"))


def test_a_secret_has_32_bytes_and_never_shows() -> None:
    with pytest.raises(ValueError, match="32"):
        SigningKey(bytes(31))
    secret = KEY.secret_bytes()
    assert secret.hex()[:8] not in repr(KEY)
    assert repr(KEY).startswith("SigningKey(public=")
    assert SigningKey(secret).public == KEY.public


def test_a_bad_signature_is_never_retried() -> None:
    with pytest.raises(SecurityError) as refused:
        verify(KEY.public, Kind.ACK, CONTEXT, b"body", bytes(64))
    assert refused.value.code == "T011"
