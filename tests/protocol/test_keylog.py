"""The key log's tree against RFC 9162's own definition, computed another way."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.encoding import decode, encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.keylog import LogAction, LogEntry, leaf_hash, merkle_root

from .rounds import refused


def entry(number: int) -> LogEntry:
    return LogEntry(action=LogAction.ENROLL, identity_hash=bytes([number % 256]) * 32, serial=number, time=number)


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1: split at the largest power of two smaller than n."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


@pytest.mark.parametrize("size", [*range(18), 31, 32, 33, 64, 100])
def test_the_root_is_rfc_9162s(size: int) -> None:
    leaves = [leaf_hash(entry(number)) for number in range(size)]
    assert merkle_root(leaves) == by_definition(leaves)


def test_the_root_of_nothing_is_the_hash_of_nothing() -> None:
    assert merkle_root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_leaf_is_the_hash_of_a_zero_byte_and_the_entry() -> None:
    assert leaf_hash(entry(3)) == hashlib.sha256(b"\x00" + encode(entry(3))).digest()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.data())
def test_any_change_of_the_log_changes_its_root(size: int, data: st.DataObject) -> None:
    leaves = [leaf_hash(entry(number)) for number in range(size)]
    root = merkle_root(leaves)
    place = data.draw(st.integers(0, size - 1))
    assert merkle_root([*leaves[:place], leaf_hash(entry(99)), *leaves[place + 1 :]]) != root
    assert merkle_root([*leaves[:place], *leaves[place + 1 :]]) != root
    assert merkle_root([*leaves, leaf_hash(entry(size))]) != root


def test_a_leaf_is_not_mistaken_for_a_node() -> None:
    """Without the prefixes 0 and 1 a log of one could pass for a log of two (second preimage)."""
    pair = [leaf_hash(entry(1)), leaf_hash(entry(2))]
    assert hashlib.sha256(b"".join(pair)).digest() != merkle_root(pair)


def test_an_entry_holds_a_hash_and_no_key() -> None:
    assert set(LogEntry.model_fields) == {"action", "identity_hash", "serial", "time"}
    assert decode(LogEntry, encode(entry(1))) == entry(1)
    with refused(ProblemType.MALFORMED):
        decode(LogEntry, encode(entry(1)).replace(b"enroll", b"remove"))
