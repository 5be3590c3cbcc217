"""Every yes of the owner, kept as data: which document, in which words, when, by which client; and every taking back.

One small file per decision, numbered, never changed afterwards. The newest one of a task is what counts.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedit_client.consent.changes import TaskChange, changed_text, differences
from fedit_client.consent.terms import Consent, ConsentSummary
from fedit_client.events import Event, EventKind, RoundStage
from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.lock import in_turn
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import Membership, require_membership
from fedit_client.network.patience import Emit
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConsentError, StorageError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument

GivenBy = Literal["join", "diff", "withdraw", "earlier client"]
_PENDING: Final = "pending.json"
_LOOK_EVERY_S: Final = 1.0
_WAITS_FOR_A_YES: Final = frozenset({"A003", "A005"})
M = TypeVar("M", bound=BaseModel)


class Agreement(BaseModel):
    """One decision about one version of one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    schema_version: Literal[1] = 1
    kind: Literal["agreed", "withdrawn"]
    at: int
    """Seconds since 1970, UTC."""
    federation_id: str
    federation: str
    server: str
    label: str
    """`TASK@N`."""
    digest: str
    """Of the task document."""
    document: bytes = b""
    """The document as it was published; empty in a withdrawal."""
    summary: tuple[str, ...] = ()
    """What the owner was shown, line by line."""
    client_version: str
    given_by: GivenBy


class _Pending(BaseModel):
    """A version that the server has published and nobody has agreed to yet."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    federation_id: str
    document: bytes


class Agreements:
    """The decisions on this device, in their order."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet; nothing is created by asking."""
        self._folder = folder

    def all(self) -> list[Agreement]:
        """Return every decision, oldest first; raises StorageError S013 for a file that is damaged."""
        with translating(self._folder):
            files = sorted(path for path in self._folder.glob("*.json") if path.stem.isdigit())
        return [_read(path, Agreement) for path in files]

    def of(self, membership: Membership) -> Agreement | None:
        """Return the newest decision about the joined task, or None if none was kept."""
        federation, task = membership.federation.descriptor.federation_id, membership.task_document.task.id
        about = [one for one in self.all() if (one.federation_id, _task(one)) == (federation, task)]
        return about[-1] if about else None

    def agree(self, membership: Membership, summary: ConsentSummary, by: GivenBy, client_version: str) -> Agreement:
        """Keep the owner's yes to the membership's document; the same yes twice is kept once."""
        last = self.of(membership)
        if last is None or (last.kind, last.digest) != ("agreed", summary.digest):
            shown = {"document": membership.document, "summary": tuple(summary.lines())}
            last = _decision(membership, "agreed", by, client_version).model_copy(update=shown)
            self._keep(last)
        self._clear_pending()
        return last

    def keep_earlier(self, membership: Membership) -> None:
        """Keep a yes that an earlier client had asked for; in which words it did is not known any more."""
        decision = _decision(membership, "agreed", "earlier client", "")
        self._keep(decision.model_copy(update={"document": membership.document, "at": membership.joined_at}))

    def withdraw(self, membership: Membership, client_version: str) -> Agreement:
        """Keep that the owner takes the yes back; from now on no round is joined and no update is sent."""
        decision = _decision(membership, "withdrawn", "withdraw", client_version)
        self._keep(decision)
        return decision

    def note_pending(self, membership: Membership, document: bytes) -> None:
        """Remember a version that waits for a yes, so that `status` and `consent show` can name it offline."""
        pending = _Pending(federation_id=membership.federation.descriptor.federation_id, document=document)
        write_atomic(self._folder / _PENDING, pending.model_dump_json().encode())

    def pending(self, membership: Membership) -> TaskDocument | None:
        """Return the version that waits for a yes, if one was seen that differs from what was agreed to."""
        path = self._folder / _PENDING
        with translating(path):
            if not path.exists():
                return None
        found = _read(path, _Pending)
        if found.federation_id != membership.federation.descriptor.federation_id:
            return None
        document = decode(TaskDocument, found.document)
        agreed = membership.task_document
        return document if document.task.id == agreed.task.id and document.digest != agreed.digest else None

    def _clear_pending(self) -> None:
        with translating(self._folder):
            (self._folder / _PENDING).unlink(missing_ok=True)

    def _keep(self, decision: Agreement) -> None:
        with in_turn(self._folder / ".lock"):  # or two processes take one number, and one decision is gone
            with translating(self._folder):
                used = [int(path.stem) for path in self._folder.glob("*.json") if path.stem.isdigit()]
            path = self._folder / f"{max(used, default=0) + 1:06d}.json"
            write_atomic(path, decision.model_dump_json(indent=2).encode() + b"\n")


@dataclass(frozen=True)
class ConsentWatch:
    """What a running client asks of its owner's decisions: they may change in another process at any time."""

    paths: Paths

    def check(self) -> None:
        """Raise ConsentError A005 if the yes was taken back meanwhile, MembershipError J001 if the device has left."""
        membership = require_membership(self.paths.membership_file)
        check_not_withdrawn(Agreements(self.paths.consents), membership)

    def note_pending(self, document: bytes) -> None:
        """Remember a version of the task that waits for a yes."""
        membership = require_membership(self.paths.membership_file)
        Agreements(self.paths.consents).note_pending(membership, document)

    async def renewed(self, outdated: bytes | None, every_s: float = _LOOK_EVERY_S) -> Membership:
        """Wait for a yes in force, to another document than `outdated` if one is given; return the membership then.

        Raises MembershipError J001 if the device leaves meanwhile.
        """
        while True:
            membership = require_membership(self.paths.membership_file)
            last = Agreements(self.paths.consents).of(membership)
            if (last is None or last.kind == "agreed") and membership.document != outdated:
                return membership
            await asyncio.sleep(every_s)


async def through_changes(
    stay: Callable[[Membership, int | None, Emit], Awaitable[int]],
    membership: Membership,
    max_rounds: int | None,
    emit: Emit,
    watch: ConsentWatch,
    unless_finishing: Callable[[Callable[[], Awaitable[Membership]]], Awaitable[Membership | None]],
) -> int:
    """Take part like `stay`, and pause instead of ending where the owner has to agree again; return the rounds done.

    `unless_finishing` cuts the waiting short, and returns None, when the owner wants to stop.
    """
    done = 0

    def counted(event: Event) -> None:
        nonlocal done
        done += event.kind is EventKind.ROUND_COMMITTED
        emit(event)

    while True:
        try:
            await stay(membership, None if max_rounds is None else max_rounds - done, counted)
            return done
        except ConsentError as error:
            if error.code not in _WAITS_FOR_A_YES:
                raise
            emit(Event(EventKind.WAITING, f"FEDIT-{error.code}: {error}; fix: {error.fix}", None, RoundStage.WAIT))
            known = membership.document if error.code == "A003" else None
            agreed = await unless_finishing(partial(watch.renewed, known))
            if agreed is None:
                return done
            membership = agreed
            emit(Event(EventKind.NOTICE, f"you agreed to {membership.consent}: going on"))


def open_question(paths: Paths, membership: Membership) -> str | None:
    """Return what the owner still has to decide, in words; None while the yes to the joined task is in force."""
    agreements = Agreements(paths.consents)
    last, pending = agreements.of(membership), agreements.pending(membership)
    if last is not None and last.kind == "withdrawn":
        return f"you took back your consent to {last.label}, so nothing is trained"
    return f"{pending.task.label} waits for your yes, so nothing is trained" if pending else None


def check_not_withdrawn(agreements: Agreements, membership: Membership) -> None:
    """Raise ConsentError A005 if the owner has taken the yes back."""
    last = agreements.of(membership)
    if last is not None and last.kind == "withdrawn":
        raise ConsentError(f"you took back your consent to {last.label}, so nothing is trained", code="A005",
                           fix="fedit-client consent diff")  # fmt: skip


def check_agreed(paths: Paths, membership: Membership) -> None:
    """Raise ConsentError A005 if the yes was taken back, A003 if a version that was seen waits for one."""
    check_not_withdrawn(Agreements(paths.consents), membership)
    if (question := open_question(paths, membership)) is not None:
        raise ConsentError(question, code="A003", fix="fedit-client consent diff")


def renewed(membership: Membership, raw: bytes, consent: Consent) -> Membership:
    """Return the membership with a yes to another version, `raw` as published; rows, device and identity stay.

    So does the base class, where the task had one and lists it beside others now.
    """
    before = membership.task_document.task.base.allowed
    held = membership.base_class or (before[0] if len(before) == 1 else None)
    return membership.model_copy(update={"consent": consent.label, "document": raw, "base_class": held})


def changes_to(membership: Membership, document: TaskDocument, limits: Limits) -> tuple[TaskChange, ...]:
    """Return what differs between the agreed task and another version of it."""
    return differences(membership.task_document, document, membership.federation.descriptor, limits)


def task_changed(old: TaskDocument, new: TaskDocument, changes: tuple[TaskChange, ...]) -> ConsentError:
    """The error of a client whose task is another one now: nothing is trained until the owner has seen the diff."""
    text = changed_text(old, new, changes)
    return ConsentError(text, code="A003", fix="fedit-client consent diff")


def _decision(
    membership: Membership, kind: Literal["agreed", "withdrawn"], by: GivenBy, client_version: str
) -> Agreement:
    descriptor = membership.federation.descriptor
    return Agreement(
        kind=kind,
        at=int(time.time()),
        federation_id=descriptor.federation_id,
        federation=descriptor.name,
        server=f"{membership.host}:{membership.port}",
        label=membership.consent,
        digest=membership.task_document.digest,
        client_version=client_version,
        given_by=by,
    )


def _task(decision: Agreement) -> str:
    return decision.label.rpartition("@")[0]


def _read(path: Path, kind: type[M]) -> M:
    with translating(path):
        raw = path.read_bytes()
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise StorageError("a file with your consent cannot be read", code="S013", where=str(path),
                           fix=f"restore it from a backup, or remove it: rm {path}") from error  # fmt: skip
