"""One open round: its cohorts run side by side, and it ends when enough of them have their sums, or no longer can.

A cohort that fails contributes nothing; what it was given stays under its masks. A trusted round is one cohort.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import ClientId, client_id
from fedit_protocol.methods.combination import CohortSum
from fedit_protocol.secagg.effects import Effects, Fail, Finish, Opened, Record
from fedit_protocol.task import Mode, TaskDocument
from fedit_server.rounds.bell import Bell
from fedit_server.rounds.driver import CohortEnding, Desk, Driver, Machine
from fedit_server.rounds.live_cohort import LiveCohort
from fedit_server.rounds.sealed_cohort import SealedCohort
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import RoundView

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summed:
    """Enough of several cohorts have finished: what the server learned of each, by cohort id."""

    sums: dict[int, CohortSum]
    members: dict[int, frozenset[ClientId]]
    """Whose updates are in each sum."""


Ending = Finish | Summed | Opened | Fail
"""A round of one cohort ends as its cohort does."""


class LiveRound:
    """The cohorts of one open round. `run` moves them on until `ending` is set; `bell` rings when it is."""

    def __init__(
        self, opening: Opening, document: TaskDocument, desk: Desk, journals: Sequence[Sequence[Record]] = ()
    ) -> None:
        """Take up a round at the start, or from its cohorts' journals. Raises FeditError if they do not fit."""
        self.opening = opening
        self.bell = Bell()
        self.ending: Ending | None = None
        self.aborted = ""
        """Why an operator ended it; empty if none did."""
        self.cohorts = tuple(
            _driver(opening, number, document, desk, journals[number] if journals else ())
            for number in range(len(opening.cohorts))
        )
        self._needed = self.cohorts[0].machine.offer.combination.needed
        self._sums: dict[int, CohortSum] = {}
        self._members: dict[int, frozenset[ClientId]] = {}
        self._failures: dict[int, Fail] = {}

    @property
    def views(self) -> list[RoundView]:
        """Where each cohort stands."""
        return [cohort.view for cohort in self.cohorts]

    def cohort_of(self, client: ClientId) -> Driver[Machine]:
        """Return the cohort that a client was assigned to; raises SecurityError (not-in-cohort)."""
        for cohort in self.cohorts:
            if client in cohort.invited:
                return cohort
        raise SecurityError(ProblemType.NOT_IN_COHORT, "this device was not invited to the round")

    def awaits(self, client: ClientId) -> bool:
        """Say whether the offer still stands for this client."""
        return any(cohort.awaits(client) for cohort in self.cohorts)

    def look_again(self) -> None:
        """Wake everything that waits for this round."""
        self.bell.ring()
        for cohort in self.cohorts:
            cohort.look_again()

    async def abort(self, reason: str) -> None:
        """End every cohort that still runs; the round then fails with this reason, whatever the others learned."""
        self.aborted = self.aborted or reason
        for cohort in self.cohorts:
            if cohort.ending is None:
                await cohort.fail(ProblemType.ROUND_FAILED, self.aborted)

    async def close_stage(self, stage: str) -> None:
        """End the present stage of every cohort that is in `stage`, with the devices that came.

        Raises ProtocolError (stage-mismatch) if no cohort can: it is in another stage, or too few devices came.
        """
        refusal = ProtocolError(ProblemType.STAGE_MISMATCH, f"the round is no longer in the stage {stage}")
        closed = 0
        for cohort in self.cohorts:
            if cohort.ending is None and cohort.machine.stage == stage:
                try:
                    await cohort.handle(_close_stage)
                    closed += 1
                except ProtocolError as error:
                    refusal = error
        if not closed:
            raise refusal

    async def run(self) -> Ending:
        """Run every cohort to its end; the round then has its sums, or a reason why there are too few."""
        if self.ending is None:
            if len(self.cohorts) == 1:
                self.ending = await self.cohorts[0].run()
            else:
                async with asyncio.TaskGroup() as group:
                    for cohort in self.cohorts:
                        group.create_task(self._run(cohort), name=f"cohort {cohort.cohort_id}")
                self.ending = self._conclude()
            if self.aborted:
                self.ending = Fail(ProblemType.ROUND_FAILED, self.aborted)
            self.bell.ring()
        return self.ending

    async def _run(self, cohort: Driver[Machine]) -> None:
        self._take(cohort, await cohort.run())
        if self._is_hopeless():
            for other in self.cohorts:
                if other.ending is None:
                    await other.fail(ProblemType.ROUND_FAILED, "too many cohorts of the round have failed")

    def _take(self, cohort: Driver[Machine], ending: CohortEnding) -> None:
        number = cohort.cohort_id
        if number in self._sums:
            return  # the round ran on after trouble with the disk
        if isinstance(ending, Finish):
            self._sums[number] = CohortSum.of(ending.aggregate)
            if isinstance(cohort, LiveCohort):
                self._members[number] = frozenset(map(client_id, cohort.machine.counted))
            cohort.let_go()
        elif isinstance(ending, Fail) and number not in self._failures:
            self._failures[number] = ending
            fields = {"task": self.opening.task_id, "round": self.opening.round_no, "cohort": number}
            log.warning("a cohort failed and contributes nothing: %s", ending.reason, extra=fields)

    def _is_hopeless(self) -> bool:
        return len(self.cohorts) - len(self._failures) < self._needed

    def _conclude(self) -> Summed | Fail:
        if not self._is_hopeless():
            return Summed(dict(sorted(self._sums.items())), self._members)
        first = next(iter(self._failures.values()))  # later ones may have been given up because of it
        done = len(self.cohorts) - len(self._failures)
        return Fail(
            ProblemType.ROUND_FAILED,
            f"{done} of {len(self.cohorts)} cohorts finished, {self._needed} are needed;"
            f" the first failed: {first.reason}",
        )


def _close_stage(machine: Machine, now: datetime) -> Effects:
    return machine.close_stage(now)


def _driver(
    opening: Opening, number: int, document: TaskDocument, desk: Desk, records: Sequence[Record]
) -> Driver[Machine]:
    """Return what drives one cohort; the mode is the task's, which the round's offer repeats."""
    if document.task.round.mode is Mode.TRUSTED:
        return SealedCohort(opening, number, document, desk, records)
    return LiveCohort(opening, number, document, desk, records)
