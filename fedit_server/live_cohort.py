"""Drives one cohort: carries out its aggregator's effects in order, each record on disk before anybody hears of it.

The rules are the aggregator's (fedit_protocol.secagg). This driver owns clock, journal, uploads and threads; how
several cohorts make one round is `live_round`'s business.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

import numpy as np

from fedit_protocol.encoding import decode
from fedit_protocol.errors import ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import ClientId, IdentityKey, client_id, identity_key
from fedit_protocol.messages import RosterMember, UploadHeader
from fedit_protocol.secagg.aggregator import Aggregator
from fedit_protocol.secagg.effects import Compute, Derive, Effects, Fail, Finish, Persist, Record
from fedit_protocol.secagg.quantize import Aggregate
from fedit_protocol.secagg.ring import word_type
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.secagg.unmask import UnmaskJob, WrongSharesError
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.task import TaskDocument
from fedit_server.bell import Bell
from fedit_server.clock import Clock
from fedit_server.cores import usable_cores
from fedit_server.second_sum import SecondSum
from fedit_server.storage import BlobStore
from fedit_server.storage.rounds import Opening, Rounds
from fedit_server.storage.rows import RoundView
from fedit_server.storage.spool import Slot, Spool

Event = Callable[[Aggregator, datetime], Effects]
CohortEnding = Finish | Fail
T = TypeVar("T")

RETRY_S: Final = 5.0
"""How long a cohort waits when the disk refuses, before it tries again."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """What every round works with."""

    rounds: Rounds
    spool: Spool
    blobs: BlobStore
    key: SigningKey
    clock: Clock


class LiveCohort:
    """One open cohort. `handle` feeds it messages, `run` moves it on; both end with `ending` set."""

    def __init__(
        self, opening: Opening, cohort_id: int, document: TaskDocument, desk: Desk, records: Sequence[Record] = ()
    ) -> None:
        """Take up a cohort at the start, or from the `records` of its journal. Raises FeditError if they do not fit."""
        self.opening = opening
        self.cohort_id = cohort_id
        self.bell = Bell()
        self.ending: CohortEnding | None = None
        self._desk = desk
        self._lock = asyncio.Lock()
        self._stale = False
        self._job: UnmaskJob | None = None
        self._first: Aggregate | None = None
        """The first sum, while the second's input is to be derived from it."""
        self._second_sum = SecondSum.of(document, opening.offer, desk.blobs)
        self._joined: set[ClientId] = set()
        self._uploads: dict[tuple[int, ClientId], Slot] = {}
        self.machine = self._rebuild(records)
        self._take_note_again(records)
        self._view = self.view

    @property
    def invited(self) -> Collection[ClientId]:
        """The devices that were assigned to this cohort."""
        return self.opening.cohorts[self.cohort_id]

    @property
    def view(self) -> RoundView:
        """Where the cohort stands, as counts."""
        deadline, failure = self.machine.deadline, self.machine.failure
        return RoundView(
            stage=self.machine.stage,
            progress=self.machine.progress,
            deadline=deadline.timestamp() if deadline else None,
            reason=failure[1] if failure else "",
        )

    def awaits(self, client: ClientId) -> bool:
        """Say whether the offer still stands for this client: invited, not joined, joining still open."""
        invited = client in self.invited and client not in self._joined
        return invited and self.machine.stage is Stage.ADVERTISE_KEYS

    def lost_uploads(self) -> bool:
        """Say whether an upload that the journal counts is no longer on disk."""
        stored = (
            (slot, self._desk.spool.received(slot.round_id, slot.client, slot.sum_index))
            for slot in self._uploads.values()
        )
        return any(slot.length != length for slot, length in stored)

    async def handle(self, event: Event) -> None:
        """Tick, feed one event, tick again; when this returns, what was accepted is on disk. Raises FeditError."""
        try:
            async with self._lock:
                await self._catch_up()
                await self._tick()
                await self._perform(await self._off_loop(event))
                await self._tick()
        finally:
            self.bell.ring()

    async def read(self, question: Callable[[Aggregator], T]) -> T:
        """Ask the machine for a document; never sees a fact before it is on disk. Raises FeditError."""
        async with self._lock:
            await self._catch_up()
            machine = self.machine
            return await asyncio.to_thread(question, machine)

    async def run(self) -> CohortEnding:
        """Move the cohort on until it ends; every way out is a Finish or a Fail with a reason."""
        while self.ending is None:
            try:
                await self._move()
            except StorageError as error:
                log.error("the round waits for the disk: %s", error, extra=self._fields)
                await self.bell.wait(RETRY_S)
        return self.ending

    async def _move(self) -> None:
        try:
            await self.handle(_nothing)
            if self.ending is None and self.machine.failure is None:
                if self._job is not None:
                    await self._sum(self._job)
                    return
                if self._first is not None:
                    await self._derive(self._first)
                    return
        except StorageError:
            raise
        except Exception as error:
            log.exception("the round cannot go on", extra=self._fields)
            self._stale = True
            await self.fail(ProblemType.INTERNAL, f"the server could not go on ({type(error).__name__})")
        if self.ending is None and self.machine.failure is not None:
            # It failed before a restart that lost the rest.
            self.ending = Fail(*self.machine.failure, tuple(self.machine.blamed))
        if self.ending is None:
            await self.bell.wait(self._seconds_left())

    def let_go(self) -> None:
        """Forget the vectors of a finished sum, once the round has what it needs of them."""
        if isinstance(self.ending, Finish):
            empty = replace(self.ending.aggregate, total=np.zeros(0), ring_sum=np.zeros(0, dtype=np.int64))
            self.ending = Finish(empty)

    def slot(self, header: bytes, opened: UploadHeader) -> Slot:
        """Return where an upload with this checked header is stored."""
        client = client_id(IdentityKey(read_envelope(header, Kind.UPLOAD).signer))
        return Slot(self.opening.round_id, client, opened.sum_index, opened.length, opened.digest)

    def now(self) -> datetime:
        """Return the time on the round's clock."""
        return self._desk.clock()

    @property
    def _fields(self) -> dict[str, object]:
        opening = self.opening
        where: dict[str, object] = {"task": opening.task_id, "round": opening.round_no}
        if len(opening.cohorts) > 1:
            where["cohort"] = self.cohort_id
        return {**where, "stage": str(self.machine.stage)}

    def _seconds_left(self) -> float | None:
        deadline = self.machine.deadline
        return None if deadline is None else max(0.0, (deadline - self._desk.clock()).total_seconds())

    async def _off_loop(self, event: Event) -> Effects:
        """Feed the machine in a thread: signatures, shares and rosters of a hundred devices are no work for the loop.

        The caller holds the lock, so one thread at a time works on the machine.
        """
        try:
            return await asyncio.to_thread(event, self.machine, self._desk.clock())
        except asyncio.CancelledError:
            self._stale = True  # the thread goes on, with a machine that is given up: what it does is on no disk
            raise

    async def _tick(self) -> None:
        try:
            effects = await self._off_loop(_tick)
        except Exception:
            self._stale = True  # the steps that it took before it broke are in memory only
            raise
        await self._perform(effects)

    async def _perform(self, effects: Effects) -> None:
        """Carry out effects in order: all records in one transaction first, then what they allow."""
        records = [effect.record for effect in effects if isinstance(effect, Persist)]
        if records or self.view != self._view:
            await self._persist(records)
        for effect in effects:
            match effect:
                case Compute(job):
                    self._job = job
                case Derive(aggregate):
                    self._first = aggregate
                case Finish() | Fail():
                    self.ending = effect
                case _:
                    pass

    async def _persist(self, records: Sequence[Record]) -> None:
        before = self._view.stage
        # Until the disk has what the machine has taken in, a retry must not be told that it is stored.
        self._stale = True
        await self._desk.rounds.append(self.opening.round_id, self.cohort_id, records, self.view)
        self._stale = False
        self._note(records)
        self._view = self.view
        if before != self._view.stage:
            log.info("the round has a new stage", extra={**self._fields, **self._view.progress})

    async def _catch_up(self) -> None:
        """After a failed write, go back to what the journal says."""
        if self._stale:
            records = await self._desk.rounds.journal(self.opening.round_id, self.cohort_id)
            self.machine = await asyncio.to_thread(self._rebuild, records)
            self._take_note_again(records)
            self._view = self.view
            self._stale = False

    def _rebuild(self, records: Sequence[Record]) -> Aggregator:
        invited = [identity_key(client) for client in self.invited]
        now = self._desk.clock()
        return Aggregator.restore(self.opening.offer, self._desk.key, records, now, invited, self.cohort_id)

    def _take_note_again(self, records: Sequence[Record]) -> None:
        self._job = self._first = None
        self._joined.clear()
        self._uploads.clear()
        self._note(records)

    def _note(self, records: Sequence[Record]) -> None:
        """Keep who joined and where uploads lie, as the journal says it."""
        for record in records:
            if record.kind == "join":
                join = read_envelope(decode(RosterMember, record.body).join, Kind.JOIN)
                self._joined.add(client_id(IdentityKey(join.signer)))
            elif record.kind == "upload":
                header = decode(UploadHeader, read_envelope(record.body, Kind.UPLOAD).body)
                slot = self.slot(record.body, header)
                self._uploads[slot.sum_index, slot.client] = slot

    async def _sum(self, job: UnmaskJob) -> None:
        """Run the job in a thread and hand its result back, or fail the cohort with the reason."""
        self._job = None
        try:
            slots = [self._uploads[job.sum_index, client_id(survivor.identity)] for survivor in job.survivors]
            reader = self._desk.spool.reader(slots, word_type(job.ring))
            aggregate = await asyncio.to_thread(job.run, reader, usable_cores())
        except WrongSharesError as error:
            await self.fail(error.problem, str(error), (error.dealer,))
        except ProtocolError as error:
            await self.fail(error.problem, str(error))
        except Exception as error:  # an error that escaped would leave the stage without job and without deadline
            log.exception("the sum failed", extra=self._fields)
            await self.fail(ProblemType.INTERNAL, f"the server could not sum the uploads ({type(error).__name__})")
        else:
            if self.ending is None:  # the round may have given this cohort up meanwhile
                await self.handle(lambda machine, now: machine.on_sum(aggregate, now))

    async def _derive(self, first: Aggregate) -> None:
        """Prepare the second sum's input; whatever goes wrong leaves the first sum, which is safe."""
        self._first = None
        try:
            derived = await self._second_sum.derive(first) if self._second_sum else None
        except Exception as error:
            log.exception("the second sum's input cannot be derived", extra=self._fields)
            reason = f"its input could not be derived ({type(error).__name__})"
            await self.handle(lambda machine, now: machine.give_up_second(reason, now))
            return
        if derived is None:
            await self.handle(lambda machine, now: machine.give_up_second("there is nothing to gain by it", now))
        else:
            await self.handle(lambda machine, now: machine.on_second_input(*derived, now))

    async def fail(self, problem: ProblemType, reason: str, blamed: tuple[IdentityKey, ...] = ()) -> None:
        """End the cohort without a tick: a tick may be what cannot go on."""
        try:
            async with self._lock:
                await self._catch_up()
                await self._perform(self.machine.fail(problem, reason, self._desk.clock(), blamed))
        except StorageError:
            raise
        except Exception:  # not even the journal can be taken up again; the round's row still says how it ended
            log.exception("the round fails without a last record", extra=self._fields)
            self.ending = Fail(problem, reason, blamed)
        finally:
            self.bell.ring()


def _tick(machine: Aggregator, now: datetime) -> Effects:
    return machine.tick(now)


def _nothing(_machine: Aggregator, _now: datetime) -> Effects:
    return ()
