"""From what a session knows when a round ends to the line that its history keeps."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fedit_client.membership.joined import Membership
from fedit_client.network.metering import MeteredTransport, Traffic
from fedit_client.records.history import History, Outcome, RoundEntry, reason_of
from fedit_client.records.journal import Journal
from fedit_protocol.accounting import epsilon
from fedit_protocol.errors import ConfigError
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Offer, RoundOutcome, RoundResult
from fedit_protocol.secagg.thresholds import Thresholds
from fedit_protocol.task import Mode


@dataclass(frozen=True)
class RoundFacts:
    """How one round ended for this device."""

    offer: Offer
    outcome: Outcome
    reason: str
    result: RoundResult | None
    thresholds: Thresholds | None
    uploads: tuple[str, ...]


@dataclass(frozen=True)
class Seen:
    """What this device knows beside the round, at its end."""

    log_devices: int | None
    journal: Journal
    limits: Limits
    now: datetime


class TakesNotes(Protocol):
    """Whoever writes down how rounds end for a device; RoundNotes does so for its owner."""

    def begin(self, now: datetime) -> None:
        """A round begins."""
        ...

    def catch_up(self, journal: Journal, now: datetime, uploads: tuple[str, ...]) -> None:
        """A program begins anew; the last one may have ended in the midst of a round."""
        ...

    def write(self, facts: RoundFacts, seen: Seen) -> None:
        """A round has ended."""
        ...


class RoundNotes:
    """Writes the history of one stay; `metered` counts its bytes."""

    def __init__(self, history: History, membership: Membership, metered: MeteredTransport) -> None:
        """Write nothing yet."""
        self._history, self._membership, self._metered = history, membership, metered
        self._before, self._began = Traffic(), 0

    def begin(self, now: datetime) -> None:
        """Count from here: a round begins."""
        self._before, self._began = self._metered.traffic, int(now.timestamp())

    def catch_up(self, journal: Journal, now: datetime, uploads: tuple[str, ...]) -> None:
        """Note the round in whose midst this program ended the last time; `uploads` were finished since then."""
        joined, document = journal.unsettled, self._membership.task_document
        if joined is None or self._history.mentions(joined.round_id):
            return
        entry = RoundEntry(
            started_at=joined.at,
            ended_at=int(now.timestamp()),
            server=f"{self._membership.host}:{self._membership.port}",
            federation_id=self._membership.federation.descriptor.federation_id,
            task=self._membership.consent,
            task_digest=document.digest,
            model=document.task.base.model,
            model_digest=document.task.base.digest,
            mode=str(document.task.round.mode),
            round_no=joined.round_no,
            round_id=joined.round_id,
            outcome="left",
            reason="this program ended in the midst of it",
            uploads=uploads,
            adapter_before=joined.adapter_version,
            adapter_before_digest=joined.adapter_digest,
            committed=journal.rounds,
        )
        self._history.append(entry)

    def write(self, facts: RoundFacts, seen: Seen) -> None:
        """Append one line; raises StorageError."""
        offer, base = facts.offer, self._membership.task_document.task.base
        traffic = self._metered.traffic.since(self._before)
        committed = facts.result if facts.result and facts.result.outcome is RoundOutcome.COMMITTED else None
        entry = RoundEntry(
            started_at=self._began,
            ended_at=int(seen.now.timestamp()),
            server=f"{self._membership.host}:{self._membership.port}",
            federation_id=offer.federation_id,
            task=f"{offer.task_id}@{offer.task_version}",
            task_digest=offer.task_digest,
            model=base.model,
            model_digest=offer.base_digest,
            mode=str(offer.mode),
            round_no=offer.round_no,
            round_id=offer.round_id,
            outcome=facts.outcome,
            reason=reason_of(Exception(facts.reason)) if facts.reason else "",
            cohort=facts.thresholds.members if facts.thresholds else None,
            honest=_honest(facts, seen.limits),
            survivors=facts.result.survivors if facts.result else None,
            log_devices=seen.log_devices,
            epsilon=_epsilon(offer, seen.journal),
            delta=next((spec.ring.noise.delta for spec in offer.sums if spec.ring.noise), None),
            bytes_up=traffic.up,
            bytes_down=traffic.down,
            uploads=facts.uploads,
            adapter_before=offer.adapter_version,
            adapter_before_digest=offer.adapter_digest,
            adapter_after=committed.adapter_version if committed else None,
            adapter_after_digest=committed.adapter_digest if committed else None,
            committed=seen.journal.rounds,
        )
        self._history.append(entry)


def _honest(facts: RoundFacts, limits: Limits) -> int | None:
    """Devices that the sum hides this one among, judged by the share that the owner expects to collude."""
    if facts.offer.mode is Mode.TRUSTED:
        return 0
    if facts.thresholds is None:
        return None
    try:
        return facts.thresholds.against(limits.corrupt_fraction).hidden_among
    except ConfigError:
        return 0


def _epsilon(offer: Offer, journal: Journal) -> float | None:
    noise = next((spec.ring.noise for spec in offer.sums if spec.ring.noise), None)
    if noise is None:
        return None
    return epsilon(journal.last.noisy if journal.last else (), noise.delta)
