"""The card of an authority that lives apart, and the audit of a whole log."""

import pytest

from fedit_protocol.authority import AuthorityCard, card_text, read_card
from fedit_protocol.encoding import encode, from_base64url, to_base64url
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import SecurityError
from fedit_protocol.ids import FederationId
from fedit_protocol.keylog import LogAction, LogEntry, LogState, MerkleTree, RunningRoot
from fedit_protocol.keylog_audit import LogAuditor
from fedit_protocol.signing import Kind, SigningKey, seal

KEY, OTHER = SigningKey(b"\x01" * 32), SigningKey(b"\x02" * 32)
FEDERATION = FederationId("ab" * 16)
CARD = AuthorityCard(
    federation_id=FEDERATION, name="clinics", authority_key=KEY.public, authority_seal_key=bytes(range(32))
)


def test_a_card_survives_a_mail_and_carries_no_secret() -> None:
    text = card_text(KEY, CARD)
    assert read_card(f"  {text}\n") == CARD
    assert KEY.secret_bytes() not in from_base64url(text.partition(":")[2])


def altered(position: int) -> str:
    prefix, _, encoded = card_text(KEY, CARD).partition(":")
    raw = bytearray(from_base64url(encoded))
    raw[position] ^= 1
    return f"{prefix}:{to_base64url(bytes(raw))}"


WRONG_CARDS = {
    "nothing": "",
    "another kind of text": card_text(KEY, CARD).replace("fedit-authority", "fedit"),
    "cut off": card_text(KEY, CARD)[:-5],
    "a changed body": altered(40),
    "a changed signature": altered(-1),
    "signed by another key": card_text(OTHER, CARD),
}


@pytest.mark.parametrize("text", WRONG_CARDS.values(), ids=WRONG_CARDS)
def test_a_card_that_its_key_did_not_sign_is_refused(text: str) -> None:
    with pytest.raises(SecurityError, match="not an authority's card"):
        read_card(text)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 7, 8, 9, 31, 100])
def test_the_running_root_is_the_trees_root(size: int) -> None:
    leaves = [bytes([number]) * 32 for number in range(size)]
    running = RunningRoot()
    for leaf in leaves:
        running.add(leaf)
    assert (running.size, running.root) == (size, MerkleTree(leaves).root)


def identity(number: int) -> bytes:
    return bytes([number]) * 32


def entry(action: LogAction, serial: int, number: int | None = None) -> LogEntry:
    return LogEntry(action=action, identity_hash=identity(serial if number is None else number), serial=serial, time=5)


ENROLLED = [entry(LogAction.ENROLL, serial) for serial in range(5)]


def signed(entries: list[LogEntry], key: SigningKey = KEY, **lies: object) -> list[tuple[bytes, bytes]]:
    """The log of these entries, each with its head; the last head lies as told."""
    lines, state = [], LogState()
    for one in entries:
        state = state.add(one)
        head = state.head(FEDERATION, 5)
        if one is entries[-1]:
            head = head.model_copy(update=lies)
        lines.append((encode(one), seal(key, Kind.LOG_HEAD, federation_context(FEDERATION), head)))
    return lines


def audited(lines: list[tuple[bytes, bytes]]) -> LogAuditor:
    return LogAuditor(FEDERATION, KEY.public).take_all(lines)


def test_an_honest_log_is_followed_to_its_end() -> None:
    again = entry(LogAction.ENROLL, 5, number=2)
    found = audited(signed([*ENROLLED, entry(LogAction.REVOKE, 2), again, entry(LogAction.REVOKE, 0)]))
    assert (found.size, found.devices, found.revoked) == (8, 4, {0, 2})
    assert found.root == MerkleTree(found.leaves).root


ODD_LOGS = {
    "a root of other entries": (signed(ENROLLED, root=bytes(32)), 4),
    "a size that is not there": (signed(ENROLLED, size=6), 4),
    "a revocation that no entry holds": (signed(ENROLLED, revoked=bytes(32)), 4),
    "another federation's head": (signed(ENROLLED, federation_id="cd" * 16), 4),
    "a head that somebody else signed": (signed(ENROLLED, OTHER), 0),
    "an entry left out": ([*signed(ENROLLED)[:2], *signed(ENROLLED)[3:]], 2),
    "two entries swapped": ([signed(ENROLLED)[1], signed(ENROLLED)[0]], 0),
    "a serial given twice": (signed([*ENROLLED, entry(LogAction.ENROLL, 0, number=9)]), 5),
    "a device enrolled twice": (signed([*ENROLLED, entry(LogAction.ENROLL, 5, number=0)]), 5),
    "a serial revoked twice": (signed([*ENROLLED, entry(LogAction.REVOKE, 1), entry(LogAction.REVOKE, 1)]), 6),
    "a serial revoked for another device": (signed([*ENROLLED, entry(LogAction.REVOKE, 1, number=3)]), 5),
    "an entry that is none": ([(b"\x00", signed(ENROLLED)[0][1])], 0),
}


@pytest.mark.parametrize("case", ODD_LOGS.values(), ids=ODD_LOGS)
def test_an_audit_names_the_first_entry_that_does_not_follow(case: tuple[list[tuple[bytes, bytes]], int]) -> None:
    lines, position = case
    with pytest.raises(SecurityError, match=f"not in order at entry {position}:"):
        audited(lines)
