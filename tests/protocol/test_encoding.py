"""Bytes on the wire: one model has one encoding, and everything else is refused with a named problem."""

import hashlib
from typing import Annotated, Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from fedit_protocol.encoding import (
    MAX_CONTROL_BYTES,
    AsTuple,
    Bytes32,
    Message,
    decode,
    digest_of,
    encode,
    from_base64url,
    hash_parts,
    to_base64url,
)
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.messages import Ack, Offer, Shares, Survivors
from fedit_protocol.signing import Envelope

from .rounds import refused


class Sample(Message):
    number: int = Field(ge=0)
    text: str
    raw: Bytes32
    fraction: float
    several: Annotated[tuple[int, ...], AsTuple]
    maybe: bytes | None


GOOD: dict[str, Any] = {
    "number": 7,
    "text": "grüß",
    "raw": b"r" * 32,
    "fraction": 0.5,
    "several": (1, 2, 300),
    "maybe": None,
}


def raw(**changes: Any) -> bytes:
    return cbor2.dumps({**GOOD, **changes}, canonical=True)


def decoded_or_malformed(kind: type[Message], received: bytes) -> Message | None:
    """Decode, or return None if exactly `malformed` was raised; any other exception is a failure."""
    try:
        return decode(kind, received)
    except ProtocolError as error:
        if error.problem is not ProblemType.MALFORMED:
            raise
        return None


def test_a_message_survives_the_wire() -> None:
    message = Sample(**GOOD)
    assert decode(Sample, encode(message)) == message
    assert encode(message) == raw()


def test_the_encoding_is_canonical_cbor() -> None:
    """RFC 8949, section 4.2: shortest lengths, keys by length and then bytewise, the shortest exact float."""
    assert encode(Ack(complaints=(0, 23, 24))).hex() == "a1" + "6a" + b"complaints".hex() + "83" + "00" + "17" + "1818"
    assert list(cbor2.loads(encode(Sample(**GOOD)))) == ["raw", "text", "maybe", "number", "several", "fraction"]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**63),
    st.text(max_size=40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.integers(-(2**31), 2**31)),
    st.none() | st.binary(max_size=50),
)
def test_any_message_has_one_encoding(
    number: int, text: str, fraction: float, several: list[int], maybe: bytes | None
) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    message = Sample(number=number, text=text, raw=bytes(32), fraction=fraction, several=tuple(several), maybe=maybe)
    received = encode(message)
    assert decode(Sample, received) == message
    assert encode(decode(Sample, received)) == received


NOT_CANONICAL = {
    "nothing": b"",
    "trailing byte": raw() + b"\x00",
    "cut short": raw()[:-1],
    "unknown field": raw(extra=1),
    "missing field": cbor2.dumps({key: value for key, value in GOOD.items() if key != "text"}, canonical=True),
    "repeated key": b"\xa7" + raw()[1:] + cbor2.dumps("text") + cbor2.dumps("grüß"),
    "a map length in its long form": b"\xb8\x06" + raw()[1:],
    "an integer in its long form": raw().replace(b"fnumber\x07", b"fnumber\x18\x07"),
    "an indefinite map": b"\xbf" + raw()[1:] + b"\xff",
    "keys in another order": cbor2.dumps(GOOD),
    "a float where an integer belongs": raw(number=7.0),
    "an integer where a float belongs": raw(fraction=1),
    "a float wider than it must be": raw().replace(cbor2.dumps(0.5, canonical=True), b"\xfb" + b"\x3f\xe0" + bytes(6)),
    "a string where an integer belongs": raw(number="7"),
    "true where an integer belongs": raw(number=True),
    "text where bytes belong": raw(raw="r" * 32),
    "bytes where text belongs": raw(text=b"text"),
    "a negative number": raw(number=-1),
    "bytes too short": raw(raw=b"r" * 31),
    "not a number": raw(fraction=float("nan")),
    "infinity": raw(fraction=float("inf")),
    "a tagged value": cbor2.dumps({**GOOD, "number": cbor2.CBORTag(2, b"\x07")}, canonical=True),
    "an array instead of a map": cbor2.dumps(list(GOOD.values())),
    "a bare integer": b"\x07",
    "a huge announced length": b"\x9b" + b"\xff" * 8,
    "a deep nest": b"\x81" * 5000,
    "invalid UTF-8": raw().replace("grüß".encode(), b"gr\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("received", NOT_CANONICAL.values(), ids=NOT_CANONICAL)
def test_other_bytes_are_refused(received: bytes) -> None:
    assert received != raw()
    with refused(ProblemType.MALFORMED):
        decode(Sample, received)


def test_a_message_over_the_limit_is_refused_unread() -> None:
    with refused(ProblemType.TOO_LARGE):
        decode(Sample, bytes(MAX_CONTROL_BYTES + 1))


def test_a_refusal_names_the_field_and_never_the_value() -> None:
    with refused(ProblemType.MALFORMED) as error:
        decode(Sample, raw(raw=b"secret-secret-secret"))
    assert "raw" in str(error.value)
    assert "secret" not in str(error.value)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.sampled_from([Ack, Shares, Survivors, Envelope, Offer]))
def test_garbage_raises_one_kind_of_error(received: bytes, kind: type[Message]) -> None:
    message = decoded_or_malformed(kind, received)
    assert message is None or encode(message) == received


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_no_flipped_byte_of_a_message_is_overlooked(data: st.DataObject) -> None:
    """It is refused, or it is the canonical encoding of another message."""
    received = bytearray(raw())
    place = data.draw(st.integers(0, len(received) - 1))
    received[place] ^= data.draw(st.integers(1, 255))
    message = decoded_or_malformed(Sample, bytes(received))
    assert message is None or (message != Sample(**GOOD) and encode(message) == received)


def test_a_message_never_changes_after_it_was_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Sample(**GOOD).number = 8  # type: ignore[misc]  # that it is read-only is the point


def test_hash_parts_separates_its_parts() -> None:
    assert hash_parts("ab", "c") != hash_parts("a", "bc")
    assert hash_parts("a", "") != hash_parts("a")
    assert hash_parts() != hash_parts("")
    assert hash_parts("a", b"b") == hash_parts(b"a", "b")
    assert hash_parts("a") == hashlib.sha256((1).to_bytes(8, "big") + b"a").digest()


def test_a_digest_is_sha_256_with_its_name() -> None:
    assert digest_of(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=100))
def test_base64url_survives(data: bytes) -> None:
    text = to_base64url(data)
    assert from_base64url(text) == data
    assert not set(text) & set("+/=")


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "A+8", "A/8", "A A", "A\n8", "é", "AAA=", "A?8", "AA=A"])
def test_base64url_has_one_spelling(text: str) -> None:
    with refused(ProblemType.MALFORMED):
        from_base64url(text)


def test_base64url_knows_the_rfcs_examples() -> None:
    """RFC 4648, section 10, without padding; and the two letters of section 5."""
    examples = {b"": "", b"f": "Zg", b"fo": "Zm8", b"foo": "Zm9v", b"foob": "Zm9vYg", b"\xfb\xff": "-_8"}
    for data, text in examples.items():
        assert to_base64url(data) == text
