"""The authority's append-only log of enrolled keys: RFC 9162's Merkle tree (section 2.1), its proofs, its signed head.

An inclusion proof (section 2.1.3) shows that an entry is in the log of a head, a consistency proof (section 2.1.4) that
one head's log begins with another's. Makers need all leaves; checkers need two hashes and a path of a few.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field

from fedit_protocol.encoding import AsTuple, Bytes32, Message, encode, hash_parts
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import FederationId

_MAX_PATH: Final = 64
"""Hashes in a proof: a log of 2^32 entries needs 33, one for consistency at most twice the height."""

MAX_REVOCATIONS: Final = 100_000
MOST_ENTRIES: Final = 1000
"""Entries on one page of the log."""

LogPath = Annotated[tuple[Bytes32, ...], AsTuple, Field(max_length=_MAX_PATH)]
"""Hashes of a proof (RFC 9162, sections 2.1.3 and 2.1.4)."""


class LogAction(StrEnum):
    """What an entry of the log records."""

    ENROLL = "enroll"
    REVOKE = "revoke"


class LogEntry(Message):
    """One line of the log; the identity appears as its SHA-256 only."""

    action: LogAction
    identity_hash: Bytes32
    serial: int = Field(ge=0)
    time: int = Field(ge=0, description="seconds since 1970, UTC")


class LogHead(Message):
    """Size and root of the log at a time, and the digest of all serials revoked so far. Authority, federation."""

    federation_id: FederationId
    size: int = Field(ge=0)
    root: Bytes32
    revoked: Bytes32 = Field(description="revocation digest of every serial that the log revokes")
    time: int = Field(ge=0, description="seconds since 1970, UTC")


class LogGrowth(Message):
    """How a log got from one head to a newer one, and what the newer one revokes. Unsigned: the heads are signed."""

    path: LogPath
    revoked: Annotated[tuple[int, ...], AsTuple, Field(max_length=MAX_REVOCATIONS)] = Field(
        description="serials in ascending order"
    )


class LogInclusion(Message):
    """The path from one entry to the head of a log. Unsigned: it is worth what the head is."""

    path: LogPath


class LogPage(Message):
    """Some entries of the log in order, as encoded `LogEntry`s. Unsigned: their hashes lead to the head's root."""

    entries: Annotated[tuple[bytes, ...], AsTuple, Field(max_length=MOST_ENTRIES)]


class MerkleTree:
    """A log's tree that grows: every complete subtree is kept, and the tree of each earlier size is made of them.

    A new leaf costs one hash on average. A proof has as many steps as the tree is high, each of at most as many hashes.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """Begin with these leaf hashes, each 32 bytes."""
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.add(leaf)

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash of 32 bytes."""
        self._levels[0].append(leaf)
        for height, level in enumerate(self._levels):
            if len(level) % 2:
                return
            # It completes a subtree of two equal halves.
            if height + 1 == len(self._levels):
                self._levels.append([])
            self._levels[height + 1].append(_node(*level[-2:]))

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """The 32-byte root; that of nothing is SHA-256 of nothing (section 2.1.1)."""
        return self._subtree(0, self.size) if self.size else hashlib.sha256(b"").digest()

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the path from leaf `index` to the root of the first `size` leaves, or of all (section 2.1.3.1).

        Raises ValueError if there is no such leaf, or no such size.
        """
        end = self._size(size)
        if not 0 <= index < end:
            raise ValueError(f"a log of {end} has no entry {index}")
        return tuple(self._path(index, 0, end))

    def consistency(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the log of `size` leaves, or all, begins with the first `old_size` (section 2.1.4.1).

        From an empty log, or to the same size, nothing has to be shown. Raises ValueError for a larger size.
        """
        end = self._size(size)
        if not 0 <= old_size <= end:
            raise ValueError(f"a log of {end} did not grow from one of {old_size}")
        return tuple(self._subproof(old_size, 0, end, whole=True)) if old_size else ()

    def _size(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"a log of {self.size} was never one of {size}")
        return size

    def _path(self, index: int, start: int, end: int) -> Iterator[bytes]:
        """PATH(m, D[start:end]) of section 2.1.3.1."""
        if end - start == 1:
            return
        split = _split(start, end)
        if index < split:
            yield from self._path(index, start, split)
            yield self._subtree(split, end)
        else:
            yield from self._path(index, split, end)
            yield self._subtree(start, split)

    def _subproof(self, old_size: int, start: int, end: int, *, whole: bool) -> Iterator[bytes]:
        """SUBPROOF(m, D[start:end], b) of section 2.1.4.1."""
        if old_size == end - start:
            if not whole:
                yield self._subtree(start, end)
            return
        split = _split(start, end)
        if old_size <= split - start:
            yield from self._subproof(old_size, start, split, whole=whole)
            yield self._subtree(split, end)
        else:
            yield from self._subproof(old_size - (split - start), split, end, whole=False)
            yield self._subtree(start, split)

    def _subtree(self, start: int, end: int) -> bytes:
        """The hash over leaves start … end - 1, where `start` is one that the splits above lead to."""
        height = (end - start - 1).bit_length()
        if end - start == 1 << height:
            return self._levels[height][start >> height]
        split = _split(start, end)
        return _node(self._subtree(start, split), self._subtree(split, end))


def _split(start: int, end: int) -> int:
    """Where a range of at least two leaves is cut: behind the largest power of two below its length (section 2.1.1)."""
    return start + (1 << (end - start - 1).bit_length() - 1)


class RunningRoot:
    """The root of a log that grows by one entry at a time: each costs as many hashes as the tree is high."""

    def __init__(self, peaks: Sequence[bytes] = (), size: int = 0) -> None:
        """Begin with the empty log, or where another one had come to."""
        self._peaks, self.size = [*peaks], size

    def copy(self) -> Self:
        """Return another one that has grown as far."""
        return type(self)(self._peaks, self.size)

    def add(self, leaf: bytes) -> None:
        """Append one leaf hash of 32 bytes."""
        self.size += 1
        node, rest = leaf, self.size
        while rest % 2 == 0:  # the new leaf completes a subtree of two equal halves
            node, rest = _node(self._peaks.pop(), node), rest // 2
        self._peaks.append(node)

    @property
    def root(self) -> bytes:
        """The 32-byte root of what was added so far."""
        if not self._peaks:
            return hashlib.sha256(b"").digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _node(peak, root)
        return root


@dataclass(frozen=True)
class LogState:
    """A whole log as its keeper sees it: leaf hashes, and the serials that it revokes, ascending."""

    leaves: tuple[bytes, ...] = ()
    revoked: tuple[int, ...] = ()
    running: RunningRoot | None = field(default=None, repr=False, compare=False)
    """The root over `leaves`, where the keeper has it; without it a head costs a hash for each entry."""

    def add(self, entry: LogEntry) -> Self:
        """Return the log with one more entry."""
        gone = (entry.serial,) if entry.action is LogAction.REVOKE else ()
        leaf, running = leaf_hash(entry), self.running.copy() if self.running else None
        if running:
            running.add(leaf)
        return type(self)((*self.leaves, leaf), tuple(sorted({*self.revoked, *gone})), running)

    def head(self, federation_id: FederationId, time: int) -> LogHead:
        """Return the head to sign."""
        return LogHead(
            federation_id=federation_id,
            size=len(self.leaves),
            root=self.running.root if self.running else merkle_root(self.leaves),
            revoked=revocation_digest(self.revoked),
            time=time,
        )


def leaf_hash(entry: LogEntry) -> bytes:
    """Return the 32-byte leaf hash: SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + encode(entry)).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the 32-byte root over leaf hashes; the root of nothing is SHA-256 of nothing."""
    return MerkleTree(leaves).root


def revocation_digest(serials: Sequence[int]) -> bytes:
    """Return H("revoked", serials in ascending order, 8 bytes each, big-endian)."""
    return hash_parts("revoked", b"".join(serial.to_bytes(8, "big") for serial in sorted(serials)))


def check_inclusion(leaf: bytes, index: int, path: Sequence[bytes], head: LogHead) -> None:
    """Raise SecurityError (not-enrolled) unless `leaf` is entry `index` of the head's log (section 2.1.3.2)."""
    place, last, found = index, head.size - 1, leaf
    fits = 0 <= place <= last
    for sibling in path:
        if not fits or last == 0:
            fits = False
            break
        if place % 2 or place == last:
            found = _node(sibling, found)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            found = _node(found, sibling)
        place, last = place >> 1, last >> 1
    if not fits or last != 0 or found != head.root:
        raise SecurityError(ProblemType.NOT_ENROLLED, "a certificate is not in the authority's key log")


def check_consistency(old: LogHead, new: LogHead, path: Sequence[bytes]) -> None:
    """Raise SecurityError T014 unless the new head's log begins with the old one's (section 2.1.4.2; check C7).

    A smaller log is a rollback, the same size with another root a fork, and a path that does not fit is one of them.
    """
    if new.size < old.size:
        raise log_alarm(f"it was shortened from {old.size} to {new.size} entries")
    if new.size == old.size:
        if path or new.root != old.root or new.revoked != old.revoked:
            raise log_alarm(f"two different logs of {old.size} entries were shown")
        return
    if old.size == 0:
        if path:
            raise log_alarm("its proof of growth does not fit")
        return
    if _consistent_roots(old, new, path) != (old.root, new.root):
        raise log_alarm(f"the log of {new.size} entries does not continue the one of {old.size} that was seen before")


def _consistent_roots(old: LogHead, new: LogHead, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return the roots that a consistency path leads to, or None if it is too short or too long."""
    hashes = [*path] if old.size & (old.size - 1) else [old.root, *path]
    place, last = old.size - 1, new.size - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    if not hashes:
        return None
    before = after = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return None
        if place % 2 or place == last:
            before, after = _node(sibling, before), _node(sibling, after)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            after = _node(after, sibling)
        place, last = place >> 1, last >> 1
    return (before, after) if last == 0 else None


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def log_alarm(what: str) -> SecurityError:
    """The error for a log that does not continue the one seen before (C7)."""
    return SecurityError(
        ProblemType.CONTEXT_MISMATCH,
        f"ALARM: the federation's log of devices is not the one seen before: {what}; "
        "somebody shows different devices different members, so nothing is sent",
        code="T014",
        fix="ask the organiser, and compare with other members: fedit-client status",
    )
