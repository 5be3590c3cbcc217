"""The key log's tree against RFC 9162's own definition, computed another way."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedit_protocol.encoding import decode, encode, hash_parts
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import FederationId
from fedit_protocol.keylog import (
    LogAction,
    LogEntry,
    LogHead,
    LogState,
    MerkleTree,
    RunningRoot,
    check_consistency,
    check_inclusion,
    leaf_hash,
    merkle_root,
    revocation_digest,
)

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


# --- proofs ---------------------------------------------------------------------------------------

LEAVES = [leaf_hash(entry(number)) for number in range(41)]
TREES = [MerkleTree(LEAVES[:size]) for size in range(41)]
SIZES = st.integers(1, 40)


def head(size: int, root: bytes | None = None, revoked: tuple[int, ...] = ()) -> LogHead:
    return LogHead(
        federation_id=FederationId("0" * 32),
        size=size,
        root=TREES[size].root if root is None else root,
        revoked=revocation_digest(revoked),
        time=0,
    )


def test_every_entry_of_every_log_is_proven() -> None:
    for size in range(1, 41):
        for index in range(size):
            path = TREES[size].inclusion(index)
            assert len(path) <= 6
            check_inclusion(LEAVES[index], index, path, head(size))


def test_every_growth_of_every_log_is_proven() -> None:
    for size in range(41):
        for old in range(size + 1):
            check_consistency(head(old), head(size), TREES[size].consistency(old))


def test_a_tree_that_grew_proves_what_its_log_was_at_every_size() -> None:
    grown = MerkleTree()
    for size, leaf in enumerate(LEAVES, 1):
        grown.add(leaf)
        assert (grown.size, grown.root) == (size, by_definition(LEAVES[:size]))
    for size in range(1, 41):
        for index in range(size):
            check_inclusion(LEAVES[index], index, grown.inclusion(index, size), head(size))
        for old in range(size + 1):
            check_consistency(head(old), head(size), grown.consistency(old, size))


def test_a_proof_of_something_that_is_not_there_cannot_be_made() -> None:
    for size in (-1, 6):
        with pytest.raises(ValueError, match="was never one of"):
            TREES[5].inclusion(0, size)
    for index in (-1, 5):
        with pytest.raises(ValueError, match="no entry"):
            TREES[5].inclusion(index)
    for old in (-1, 6):
        with pytest.raises(ValueError, match="did not grow"):
            TREES[5].consistency(old)


def spoilt(path: tuple[bytes, ...], data: st.DataObject) -> tuple[bytes, ...]:
    """Return a path that differs: a bit flipped, a hash missing, a hash too many, or two exchanged."""
    ways = ["add"] + ["flip", "drop"] * bool(path)
    place = data.draw(st.integers(0, max(len(path) - 1, 0)))
    match data.draw(st.sampled_from(ways)):
        case "flip":
            flipped = bytes([path[place][0] ^ 1]) + path[place][1:]
            return (*path[:place], flipped, *path[place + 1 :])
        case "drop":
            return (*path[:place], *path[place + 1 :])
        case _:
            extra = data.draw(st.sampled_from([bytes(32), *path]))
            return (*path[:place], extra, *path[place:])


@settings(deadline=None, max_examples=300)
@given(SIZES, st.data())
def test_a_wrong_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    path = TREES[size].inclusion(index)
    other = data.draw(st.integers(0, 40).filter(lambda number: number != index))
    attempts = [
        (LEAVES[index], index, spoilt(path, data), head(size)),
        (LEAVES[other], index, path, head(size)),
        (LEAVES[index], index, path, head(size, root=bytes(32))),
        (LEAVES[index], size, path, head(size)),
        (LEAVES[index], -1, path, head(size)),
        (LEAVES[40], index, path, head(size)),
    ]
    for leaf, place, proof, of in attempts:
        with refused(ProblemType.NOT_ENROLLED):
            check_inclusion(leaf, place, proof, of)


@settings(deadline=None, max_examples=300)
@given(SIZES, st.data())
def test_an_inclusion_proof_does_not_serve_another_place(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    claimed = data.draw(st.integers(0, size - 1).filter(lambda place: place != index)) if size > 1 else size
    with refused(ProblemType.NOT_ENROLLED):
        check_inclusion(LEAVES[index], claimed, TREES[size].inclusion(index), head(size))


@settings(deadline=None, max_examples=300)
@given(SIZES, st.data())
def test_a_wrong_consistency_proof_is_refused(size: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, size))
    path = spoilt(TREES[size].consistency(old), data)
    with refused(ProblemType.CONTEXT_MISMATCH) as alarm:
        check_consistency(head(old), head(size), path)
    assert alarm.value.code == "T014"


@settings(deadline=None, max_examples=300)
@given(st.integers(2, 40), st.data())
def test_c7_a_forked_log_has_no_proof(size: int, data: st.DataObject) -> None:
    """The server shows this device a log in which one old entry is another: no path of the new log helps it."""
    old = data.draw(st.integers(1, size - 1))
    place = data.draw(st.integers(0, old - 1))
    fork = MerkleTree([*LEAVES[:place], LEAVES[40], *LEAVES[place + 1 : size]])
    for path in (fork.consistency(old), TREES[size].consistency(old)):
        with refused(ProblemType.CONTEXT_MISMATCH):
            check_consistency(head(old), head(size, root=fork.root), path)


def test_c7_a_truncated_log_and_a_second_log_of_one_size_are_alarms() -> None:
    with refused(ProblemType.CONTEXT_MISMATCH) as shortened:
        check_consistency(head(7), head(6), ())
    assert "shortened from 7 to 6" in str(shortened.value)
    for other in (head(7, root=bytes(32)), head(7, revoked=(1,))):
        with refused(ProblemType.CONTEXT_MISMATCH) as forked:
            check_consistency(head(7), other, ())
        assert "two different logs of 7 entries" in str(forked.value)
    for old in (7, 0):
        with refused(ProblemType.CONTEXT_MISMATCH):
            check_consistency(head(old), head(7), (bytes(32),))


@pytest.mark.parametrize("running", [None, RunningRoot()], ids=["leaves only", "with a running root"])
def test_a_log_state_knows_its_head_and_whom_it_revokes(running: RunningRoot | None) -> None:
    gone = LogEntry(action=LogAction.REVOKE, identity_hash=bytes(32), serial=1, time=9)
    state = LogState(running=running)
    for line in (entry(0), entry(1), gone):
        state = state.add(line)
    assert state.revoked == (1,)
    assert state.head(FederationId("0" * 32), 9) == LogHead(
        federation_id=FederationId("0" * 32),
        size=3,
        root=by_definition([leaf_hash(entry(0)), leaf_hash(entry(1)), leaf_hash(gone)]),
        revoked=hash_parts("revoked", (1).to_bytes(8, "big")),
        time=9,
    )
