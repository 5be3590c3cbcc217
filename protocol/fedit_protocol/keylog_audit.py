"""Checks a whole key log, entry by entry: what an auditor, a server and the authority itself hold against its heads."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import FeditError, ProblemType, SecurityError
from fedit_protocol.ids import FederationId
from fedit_protocol.keylog import LogAction, LogEntry, LogHead, RunningRoot, leaf_hash, revocation_digest
from fedit_protocol.signing import Kind, unseal


@dataclass
class LogAuditor:
    """A log as far as it was checked. Every head must be the authority's and say exactly what came before it."""

    federation_id: FederationId
    authority_key: bytes
    leaves: list[bytes] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)
    _root: RunningRoot = field(default_factory=RunningRoot, repr=False)
    _serials: dict[int, bytes] = field(default_factory=dict, repr=False)
    """Serial → hash of the identity that was enrolled under it."""
    _active: set[bytes] = field(default_factory=set, repr=False)
    _revoked_digest: bytes = field(default_factory=lambda: revocation_digest(()), repr=False)

    @property
    def size(self) -> int:
        """How many entries were checked."""
        return len(self.leaves)

    @property
    def root(self) -> bytes:
        """The Merkle root over them, 32 bytes."""
        return self._root.root

    @property
    def devices(self) -> int:
        """How many identities are enrolled and not revoked."""
        return len(self._active)

    def take(self, received: bytes, head: bytes) -> LogEntry:
        """Check the next entry and the signed head that follows it.

        Raises SecurityError (context-mismatch) naming the position. The auditor is not to be used after that.
        """
        position = self.size
        try:
            entry = decode(LogEntry, received)
            context = federation_context(self.federation_id)
            signed = unseal(head, Kind.LOG_HEAD, context, LogHead, signer=self.authority_key)
        except FeditError as error:
            raise _out_of_order(position, str(error)) from error
        if objection := self._objection(entry):
            raise _out_of_order(position, objection)
        self._add(entry)
        stated = (signed.federation_id, signed.size, signed.root, signed.revoked)
        if stated != (self.federation_id, self.size, self.root, self._revoked_digest):
            raise _out_of_order(position, "the head signed behind it is of another log")
        return entry

    def take_all(self, lines: Iterable[tuple[bytes, bytes]]) -> Self:
        """Check entries with their heads one after the other, and return self."""
        for entry, head in lines:
            self.take(entry, head)
        return self

    def _objection(self, entry: LogEntry) -> str | None:
        """Say what an honest authority would never log here."""
        if entry.action is LogAction.ENROLL:
            if entry.serial in self._serials:
                return f"serial {entry.serial} is enrolled a second time"
            return "a device is enrolled that is enrolled already" if entry.identity_hash in self._active else None
        if self._serials.get(entry.serial) != entry.identity_hash or entry.serial in self.revoked:
            return f"serial {entry.serial} is revoked and was not in force"
        return None

    def _add(self, entry: LogEntry) -> None:
        if entry.action is LogAction.ENROLL:
            self._serials[entry.serial] = entry.identity_hash
            self._active.add(entry.identity_hash)
        else:
            self.revoked.add(entry.serial)
            self._active.discard(entry.identity_hash)
            self._revoked_digest = revocation_digest(tuple(self.revoked))
        self.leaves.append(leaf_hash(entry))
        self._root.add(self.leaves[-1])


def _out_of_order(position: int, what: str) -> SecurityError:
    return SecurityError(
        ProblemType.CONTEXT_MISMATCH, f"the log of devices is not in order at entry {position}: {what}"
    )
