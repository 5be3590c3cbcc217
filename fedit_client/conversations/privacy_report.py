"""`fedit-client privacy` and `history`: what was given so far, how well it hides, from this device's own files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedit_client.config import ClientConfig
from fedit_client.membership.joined import Membership, load_membership, require_membership
from fedit_client.membership.key_log import SeenLog
from fedit_client.migrations.format import first_format_of
from fedit_client.records.history import History, Line, RoundEntry, faults
from fedit_client.records.journal import Journal
from fedit_protocol.accounting import epsilon, planned_epsilon
from fedit_protocol.errors import StorageError
from fedit_protocol.task import Mode
from fedit_protocol.words import counted

_SHOWN: Final = 5
_WITHOUT_HISTORY: Final = 1
"""The format of homes whose first rounds were in no history."""


@dataclass(frozen=True)
class PrivacyReport:
    """What this device has given to the joined task, and what hides it."""

    task: str
    mode: str
    delta: float | None
    epsilon_spent: float | None
    epsilon_promised: float | None
    rounds_planned: int
    rounds_committed: int
    rounds_without_result: int
    sums: tuple[RoundEntry, ...]
    """Every round of the task in the history that a sum came of, or may have."""
    log_devices: int | None
    log_devices_first: int | None

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "task": self.task,
            "mode": self.mode,
            "epsilon": {"spent": self.epsilon_spent, "promised": self.epsilon_promised, "delta": self.delta},
            "rounds": {
                "planned": self.rounds_planned,
                "committed": self.rounds_committed,
                "without_result": self.rounds_without_result,
            },
            "sums": [
                {"round": one.round_no, "devices": one.cohort, "hidden_among": one.honest, "survivors": one.survivors}
                for one in self.sums
            ],
            "member_log": {"devices": self.log_devices, "first_seen_with": self.log_devices_first},
        }

    def lines(self) -> list[str]:
        """The same in words."""
        return [
            f"task        {self.task}, {self.mode}",
            f"epsilon     {self._epsilon()}",
            f"rounds      {self._rounds()}",
            *self._sums(),
            f"member log  {self._log()}",
        ]

    def _rounds(self) -> str:
        planned = f"contributed to {self.rounds_committed:,} of {self.rounds_planned:,} that the task plans"
        lost = self.rounds_without_result
        return f"{planned}; {lost:,} came to nothing" if lost else planned

    def _epsilon(self) -> str:
        if self.epsilon_spent is None or self.epsilon_promised is None:
            return "no bound: the task adds no noise, so what the sums say about you is not bounded by a number"
        spent, promised = f"{self.epsilon_spent:.3g}", f"{self.epsilon_promised:.3g}"
        return (
            f"{spent} spent of {promised} promised over {counted(self.rounds_planned, 'round')}, delta {self.delta:.0e}"
        )

    def _sums(self) -> list[str]:
        if self.mode == Mode.TRUSTED:
            return ["sums        none hides an update: in trusted mode the server reads each one by itself (level T0)"]
        known = [one for one in self.sums if one.honest is not None]
        if not known:
            return ["sums        none yet"]
        fewest = min(known, key=lambda one: one.honest or 0)
        newest = ", ".join(f"round {one.round_no}: {counted(one.cohort or 0, 'device')}" for one in known[-_SHOWN:])
        more = f"{len(known) - _SHOWN} earlier, " if len(known) > _SHOWN else ""
        least = f"least hidden in round {fewest.round_no}: among {fewest.honest} of {fewest.cohort}, yours counted"
        return [f"sums        {more}{newest}; {least}"]

    def _log(self) -> str:
        if self.log_devices is None:
            return "not seen yet"
        if self.log_devices_first is None:
            return f"{counted(self.log_devices, 'device')} enrolled"
        more = self.log_devices - self.log_devices_first
        since = f"{more:+d} since your first round" if more else "as many as in your first round"
        return f"{counted(self.log_devices, 'device')} enrolled, {since}"


def privacy_report(config: ClientConfig) -> PrivacyReport:
    """Return the report on the joined task; raises MembershipError J001, StorageError, ConfigError C025."""
    paths = config.paths
    membership = require_membership(paths.membership_file)
    document, descriptor = membership.task_document, membership.federation.descriptor
    task, journal = document.task, _journal(paths.journal, membership)
    mine = [
        one
        for one in History(paths.history).entries()
        if (one.federation_id, one.task.rpartition("@")[0]) == (descriptor.federation_id, task.id)
    ]
    seen = SeenLog.load(paths.key_log / f"{descriptor.federation_id}.json")
    noisy = journal.last.noisy if journal and journal.last else ()
    sizes = [one.log_devices for one in mine if one.log_devices is not None]
    return PrivacyReport(
        task=membership.consent,
        mode=str(task.round.mode),
        delta=task.privacy.delta if task.privacy else None,
        epsilon_spent=epsilon(noisy, task.privacy.delta) if task.privacy else None,
        epsilon_promised=planned_epsilon(document) if task.privacy else None,
        rounds_planned=task.round.rounds,
        rounds_committed=journal.rounds if journal else 0,
        rounds_without_result=sum(one.outcome in {"lost", "left"} for one in mine),
        sums=tuple(one for one in mine if one.uploads),
        log_devices=seen.devices if seen else None,
        log_devices_first=sizes[0] if sizes else None,
    )


def verified(config: ClientConfig, lines: list[Line]) -> list[str]:
    """Return what is wrong with a history, held against signatures, chain and round journal; empty if nothing is."""
    membership = load_membership(config.paths.membership_file)
    committed = {}
    if membership is not None and (journal := _journal(config.paths.journal, membership)) is not None:
        federation, task = membership.federation.descriptor.federation_id, membership.task_document.task.id
        committed[f"{federation}/{task}"] = journal.rounds
    return faults(lines, committed, whole=first_format_of(config.paths.state) != _WITHOUT_HISTORY)


def broken(found: list[str], folder: Path) -> StorageError:
    """The error of a history that does not hold."""
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return StorageError(f"the history does not hold: {found[0]}{more}", code="S019", where=str(folder),
                        fix="fedit-client help S019")  # fmt: skip


def _journal(folder: Path, membership: Membership) -> Journal | None:
    place = folder / membership.federation.descriptor.federation_id / membership.task_document.task.id
    return Journal(place) if place.exists() else None
