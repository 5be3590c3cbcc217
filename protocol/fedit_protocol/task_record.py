"""The signed record of a task: one line for every change of it, each naming the digest of the line before (SPEC, 17).

A server appends, devices and auditors check. Whoever trusts the newest line's key trusts every line before it, for the
chain of digests holds them; so a line outlives the key that signed it.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import AsTuple, DigestText, Message, decode, digest_of
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import Digest, FederationId, IdentityKey, TaskId
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal, unseal
from fedit_protocol.task import SLUG

MOST_LINES: Final = 1000
"""Lines of a record in one reply."""


class ChangeKind(StrEnum):
    """What was done to a task."""

    CREATED = "created"
    EDITED = "edited"
    OPENED = "opened"
    PAUSED = "paused"
    RESUMED = "resumed"
    CLOSED = "closed"
    ARCHIVED = "archived"
    CONTINUED = "continued"
    """Nothing changed: the record begins after the task did, or goes on under a new server key."""


class TaskChange(Message):
    """One line of a task's record. Signed by the server, context: federation."""

    task_id: Annotated[TaskId, Field(pattern=SLUG)]
    number: int = Field(ge=1, description="1 for the first line, then without a gap")
    previous: DigestText | Literal[""] = Field(description="of the envelope of the line before; empty for the first")
    at: int = Field(ge=0, description="seconds since 1970, UTC")
    kind: ChangeKind
    state: TaskState = Field(description="the task's state from now on")
    version: int = Field(ge=1, description="the task's version from now on")
    document: DigestText = Field(description="of the document of that version, as published")
    by: str = Field(max_length=64, description="who did it: server, operator, or the name of a token")
    reason: str = Field(max_length=400)


class TaskRecord(Message):
    """Lines of a record as envelopes, oldest first: all of them, or those from one number on."""

    changes: Annotated[tuple[bytes, ...], AsTuple, Field(max_length=MOST_LINES)]


def sign_change(key: SigningKey, federation_id: FederationId, change: TaskChange) -> bytes:
    """Return the envelope of a line."""
    return seal(key, Kind.TASK_CHANGE, federation_context(federation_id), change)


def check_record(
    changes: Sequence[bytes], federation_id: FederationId, task_id: TaskId, trusted: IdentityKey
) -> list[TaskChange]:
    """Return a whole record's lines if every signature and digest holds and the newest line is `trusted`'s.

    Earlier lines may have been signed by earlier keys: what vouches for them is the chain. Raises SecurityError that
    names the first line which does not hold.
    """
    lines: list[TaskChange] = []
    before = ""
    for number, envelope in enumerate(changes, 1):
        line = _check_line(envelope, federation_id, number)
        if (line.task_id, line.number, line.previous) != (task_id, number, before):
            raise _broken(number, "does not continue the one before it")
        if lines and line.at < lines[-1].at:
            raise _broken(number, "is older than the one before it")
        lines.append(line)
        before = digest_of(envelope)
    if not lines:
        raise SecurityError(ProblemType.MALFORMED, f"the record of {task_id} is empty")
    if read_envelope(changes[-1], Kind.TASK_CHANGE).signer != trusted:
        raise _broken(len(lines), "is not signed by the server's present key")
    return lines


def head_of(changes: Sequence[bytes]) -> tuple[int, Digest | Literal[""]]:
    """Return the number and digest of the newest line; 0 and nothing where there is none. Verifies nothing."""
    return len(changes), digest_of(changes[-1]) if changes else ""


def read_line(envelope: bytes) -> TaskChange:
    """Return what a line says WITHOUT verifying it."""
    return decode(TaskChange, read_envelope(envelope, Kind.TASK_CHANGE).body)


def _check_line(envelope: bytes, federation_id: FederationId, number: int) -> TaskChange:
    try:
        return unseal(envelope, Kind.TASK_CHANGE, federation_context(federation_id), TaskChange)
    except SecurityError as error:
        raise _broken(number, f"does not hold: {error}") from error


def _broken(number: int, why: str) -> SecurityError:
    return SecurityError(ProblemType.BAD_SIGNATURE, f"line {number} of the task's record {why}", code="T120")
