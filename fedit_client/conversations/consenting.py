"""`fedit-client consent`: what was agreed to, what has changed since, a new yes, and taking it back."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedit_client.client import Client
from fedit_client.config import ClientConfig
from fedit_client.consent.agreements import Agreement, Agreements, changes_to
from fedit_client.consent.changes import TaskChange
from fedit_client.consent.terms import Consent, missing_consent, summarise
from fedit_client.console import Console
from fedit_client.membership.joined import Membership, require_membership
from fedit_client.membership.offers import TaskOffer, fetch_listed, read_task
from fedit_client.network.transport import HttpTransport
from fedit_client.records.contacts import note_server
from fedit_protocol.errors import ConsentError, FeditError, TaskRefusedError
from fedit_protocol.limits import Limits
from fedit_protocol.task import TaskDocument


@dataclass(frozen=True)
class Agreed:
    """What `consent show` says: the decision in force, all of them, and what waits for a yes."""

    membership: Membership
    decisions: tuple[Agreement, ...]
    in_force: bool
    summary: tuple[str, ...]
    pending: TaskDocument | None
    changes: tuple[TaskChange, ...]

    def lines(self) -> list[str]:
        """The same in words."""
        task = self.membership.consent
        lines = [f"you agreed to {task}" if self.in_force else f"you took back your consent to {task}"]
        lines += [f"  {_when(one.at)}  {_deed(one)}" for one in self.decisions]
        lines += ["", *self.summary]
        if self.pending is not None:
            lines += ["", f"{self.pending.task.label} waits for your yes: fedit-client consent diff"]
            lines += [f"  {change.line()}" for change in self.changes]
        return lines

    def as_data(self) -> dict[str, Any]:
        """The same for scripts; documents by their digest."""
        return {
            "task": self.membership.consent,
            "digest": self.membership.task_document.digest,
            "in_force": self.in_force,
            "summary": list(self.summary),
            "decisions": [one.model_dump(mode="json", exclude={"document", "summary"}) for one in self.decisions],
            "pending": self.pending.task.label if self.pending else None,
            "changes": changes_data(self.changes),
        }


def agreed(config: ClientConfig) -> Agreed:
    """Return what this device's owner agreed to, from its own files; raises MembershipError J001, StorageError."""
    membership = require_membership(config.paths.membership_file)
    agreements = Agreements(config.paths.consents)
    last, pending = agreements.of(membership), agreements.pending(membership)
    return Agreed(
        membership=membership,
        decisions=tuple(agreements.all()),
        in_force=last is None or last.kind == "agreed",
        summary=_shown(last) or tuple(_now(membership, config.limits)),
        pending=pending,
        changes=changes_to(membership, pending, config.limits) if pending else (),
    )


@dataclass(frozen=True)
class Differing:
    """What the server publishes now beside what was agreed to."""

    membership: Membership
    raw: bytes
    document: TaskDocument
    changes: tuple[TaskChange, ...]
    withdrawn: bool

    @property
    def needs_a_yes(self) -> bool:
        """Whether nothing is trained until the owner agrees."""
        return self.withdrawn or self.document.digest != self.membership.task_document.digest


async def look(config: ClientConfig) -> Differing:
    """Fetch the joined task as it is now and compare; nothing about this device is sent but that it asks."""
    membership = require_membership(config.paths.membership_file)
    tls, direct = membership.federation.tls(), config.network.no_proxy
    note_server(config.paths.cache, membership.host, membership.port)
    async with HttpTransport(membership.host, membership.port, tls, None, no_proxy=direct) as transport:
        raw = await fetch_listed(transport, membership.task_document.task.id)
    document, agreements = read_task(raw), Agreements(config.paths.consents)
    last = agreements.of(membership)
    if document.digest != membership.task_document.digest:
        agreements.note_pending(membership, raw)
    changes = changes_to(membership, document, config.limits)
    return Differing(membership, raw, document, changes, last is not None and last.kind == "withdrawn")


def decide(config: ClientConfig, console: Console, found: Differing, accept: str | None) -> bool:
    """Show the whole new text and ask, or take `accept` as the answer; return whether the owner agreed.

    Raises TaskRefusedError if the task lies outside the owner's limits, ConsentError A001, A002, A003.
    """
    membership = found.membership
    try:
        summary = summarise(found.document, membership.federation.descriptor, config.limits)
    except TaskRefusedError:
        console.say("The new version does not keep to your limits, so it cannot be agreed to:")
        raise
    for line in ["", "The task as it is now:", *(f"  {line}" for line in summary.lines())]:
        console.say(line)
    _answer(console, summary.label, accept)
    offer = TaskOffer(summary, found.document, membership.federation, found.raw)
    Client.open(config=config).agree(offer, Consent(summary.label, summary.digest))
    return True


def changes_data(changes: tuple[TaskChange, ...]) -> list[dict[str, str]]:
    """Return changes as plain values."""
    return [{"setting": one.name, "words": one.words, "old": one.old, "new": one.new} for one in changes]


def _answer(console: Console, label: str, accept: str | None) -> None:
    if accept is not None:
        if accept != label:
            raise ConsentError(f"you agreed to {accept}, but the task is {label}; read it, then agree to that",
                               code="A003", fix=f"fedit-client consent diff --accept {label}",
                               again=f"--accept {label}")  # fmt: skip
        return
    if console.yes:
        return
    if not console.interactive:
        raise missing_consent(label)
    if not console.confirm(f"Agree to {label}?", flag=f"--accept {label}"):
        raise ConsentError("the new version was declined; training stays paused", code="A002",
                           fix="fedit-client leave, or fedit-client consent diff to look again")  # fmt: skip


def _shown(last: Agreement | None) -> tuple[str, ...]:
    return last.summary if last is not None else ()


def _now(membership: Membership, limits: Limits) -> list[str]:
    """The agreed document in today's words, where those that were shown were not kept."""
    try:
        summary = summarise(membership.task_document, membership.federation.descriptor, limits)
    except FeditError as error:
        return [f"the task does not keep to your limits any more: {error}"]
    return summary.lines()


def _when(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _deed(one: Agreement) -> str:
    if one.kind == "withdrawn":
        return f"taken back: {one.label}"
    client = f"fedit-client {one.client_version}" if one.client_version else "an earlier fedit-client"
    return f"agreed to {one.label} of {one.federation or one.server} ({one.digest[:19]}…), asked by {client}"
