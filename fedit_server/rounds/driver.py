"""Drives one machine of a round: carries out its effects in order, each record on disk before anybody hears of it.

The rules are the machine's, masked (`secagg.aggregator`) or sealed (`sealed.collector`). A driver owns clock, journal,
uploads and threads; what a machine wants computed is its subclass's business, how cohorts make a round `live_round`'s.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import numpy as np

from fedit_protocol.encoding import decode
from fedit_protocol.errors import FeditError, ProblemType, StorageError
from fedit_protocol.ids import ClientId, IdentityKey, client_id
from fedit_protocol.messages import Abort, Offer, UploadHeader
from fedit_protocol.secagg.effects import Effect, Effects, Fail, Finish, Opened, Persist, Record
from fedit_protocol.secagg.stages import Stage
from fedit_protocol.signing import Envelope, SigningKey
from fedit_server.clock import Clock, unix_seconds
from fedit_server.metrics import Metrics
from fedit_server.rounds.bell import Bell
from fedit_server.rounds.missed import missed_in
from fedit_server.rounds.round_keys import RoundKeys
from fedit_server.storage import BlobStore
from fedit_server.storage.rounds import Opening, Rounds
from fedit_server.storage.rows import RoundView
from fedit_server.storage.spool import Slot, Spool


class Machine(Protocol):
    """What every kind of round can do; the rest is asked of the machine that a route knows it has."""

    @property
    def offer(self) -> Offer:
        """The round."""
        ...

    @property
    def stage(self) -> Stage:
        """Where it stands."""
        ...

    @property
    def deadline(self) -> datetime | None:
        """When the stage ends at the latest."""
        ...

    @property
    def failure(self) -> tuple[ProblemType, str] | None:
        """Why it failed, if it did."""
        ...

    @property
    def blamed(self) -> Mapping[IdentityKey, str]:
        """The devices that signed something against the rules, and what it was."""
        ...

    @property
    def progress(self) -> dict[str, int]:
        """How many devices have come how far."""
        ...

    def check_upload(self, header: bytes, now: datetime) -> UploadHeader:
        """Check an upload's header before its body is read."""
        ...

    def on_upload(self, header: bytes, now: datetime) -> Effects:
        """Count an upload whose whole body is on disk."""
        ...

    def on_abort(self, received: bytes, now: datetime) -> Effects:
        """Note that a device gave up."""
        ...

    def receipt(self, reader: IdentityKey, sum_index: int) -> bytes:
        """Return the signed receipt of a stored upload."""
        ...

    def tick(self, now: datetime) -> Effects:
        """Move on if a stage is over."""
        ...

    def close_stage(self, now: datetime) -> Effects:
        """End the present stage with those who came; raises ProtocolError (stage-mismatch) if they are too few."""
        ...

    def fail(self, problem: ProblemType, reason: str, now: datetime, blamed: tuple[IdentityKey, ...] = ()) -> Effects:
        """End it without a result."""
        ...


M_co = TypeVar("M_co", bound=Machine, covariant=True)
M = TypeVar("M", bound=Machine)
T = TypeVar("T")
CohortEnding = Finish | Opened | Fail

RETRY_S: Final = 5.0
"""How long a cohort waits when the disk refuses, before it tries again."""

_JOINING: Final = frozenset({Stage.ADVERTISE_KEYS, Stage.ACCEPT})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """What every round works with."""

    rounds: Rounds
    spool: Spool
    blobs: BlobStore
    round_keys: RoundKeys
    key: SigningKey
    clock: Clock
    metrics: Metrics = field(default_factory=Metrics)
    require_lease: Callable[[], None] = lambda: None
    """Raises StorageError S093 once another replica may own the task: nothing is signed or told any more."""


class Driver(ABC, Generic[M_co]):
    """One machine that is run. `handle` feeds it messages, `run` moves it on; both end with `ending` set."""

    def __init__(self, opening: Opening, cohort_id: int, desk: Desk, records: Sequence[Record] = ()) -> None:
        """Take up a machine at the start, or from its journal's `records`. Raises FeditError if they do not fit."""
        self.opening = opening
        self.cohort_id = cohort_id
        self.bell = Bell()
        """Rings after every event: for who moves the cohort on."""
        self.documents = Bell()
        """Rings when there may be a new document: devices would else all look again after each message of one."""
        self.ending: CohortEnding | None = None
        self._desk = desk
        self._lock = asyncio.Lock()
        self._stale = False
        self._joined: set[ClientId] = set()
        self._uploads: dict[tuple[int, ClientId], Slot] = {}
        self.machine = self._rebuild(records)
        self._take_note_again(records)
        self._view = self.view
        self._told = self.machine.stage
        self._stage_since = desk.clock()

    @abstractmethod
    def _rebuild(self, records: Sequence[Record]) -> M_co:
        """Return the machine that these records lead to."""

    @abstractmethod
    async def _work(self) -> bool:
        """Do what the machine waits for, if anything; return whether there was something."""

    @abstractmethod
    def _take(self, effect: Effect) -> None:
        """Note what the machine wants done next."""

    @abstractmethod
    def _drop_work(self) -> None:
        """Forget what was noted: the machine is about to be rebuilt, and asks again."""

    @abstractmethod
    def _joiner(self, record: Record) -> ClientId | None:
        """Return the device that a record lets take part; None for any other record."""

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
        return client in self.invited and client not in self._joined and self.machine.stage in _JOINING

    def loss(self) -> str:
        """Return what a restart has lost that the journal counts on; empty if nothing."""
        stored = (
            (slot, self._desk.spool.received(slot.round_id, slot.client, slot.sum_index))
            for slot in self._uploads.values()
        )
        return "an upload is no longer on disk" if any(slot.length != length for slot, length in stored) else ""

    async def handle(self, event: Callable[[M_co, datetime], Effects]) -> None:
        """Tick, feed one event, tick again; when this returns, what was accepted is on disk. Raises FeditError."""
        try:
            async with self._lock:
                self._desk.require_lease()
                await self._catch_up()
                effects, refusal = await self._off_loop(event)
                await self._perform(effects)
                if refusal is not None:
                    raise refusal
        finally:
            self._ring()

    async def read(self, question: Callable[[M_co], T]) -> T:
        """Ask the machine for a document; never sees a fact before it is on disk. Raises FeditError."""
        async with self._lock:
            self._desk.require_lease()  # before it is signed, and before it leaves: this process may have stood still
            await self._catch_up()
            machine = self.machine
            answer = await asyncio.to_thread(question, machine)
            self._desk.require_lease()
            return answer

    async def run(self) -> CohortEnding:
        """Move the cohort on until it ends; every way out is a Finish or a Fail with a reason."""
        while self.ending is None:
            try:
                await self._move()
            except StorageError as error:
                log.error("the round waits for the disk: %s", error, extra=self._fields)
                await self.bell.wait(RETRY_S)
        self.documents.ring()
        return self.ending

    async def _move(self) -> None:
        try:
            await self.handle(_nothing)
            if self.ending is None and self.machine.failure is None and await self._work():
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

    def _ring(self) -> None:
        """Wake who waits for a change; devices only at another stage, since each document ends one."""
        self.bell.ring()
        told, self._told = self._told, self.machine.stage
        if told != self._told or self.ending is not None:
            self.documents.ring()

    def look_again(self) -> None:
        """Wake everybody who waits."""
        self.bell.ring()
        self.documents.ring()

    def let_go(self) -> None:
        """Forget the vectors of a finished sum, once the round has what it needs of them."""
        if isinstance(self.ending, Finish):
            empty = replace(self.ending.aggregate, total=np.zeros(0), ring_sum=np.zeros(0, dtype=np.int64))
            self.ending = Finish(empty)

    def slot(self, header: bytes, opened: UploadHeader) -> Slot:
        """Return where an upload with this checked header is stored."""
        client = client_id(IdentityKey(decode(Envelope, header).signer))
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

    async def _off_loop(self, event: Callable[[M_co, datetime], Effects]) -> tuple[Effects, FeditError | None]:
        """Feed the machine in a thread: signatures, shares and rosters of a hundred devices are no work for the loop.

        The caller holds the lock, so one thread at a time works on the machine. Besides what is to be done it returns
        why the event was refused, if it was: the tick before it stands nevertheless.
        """
        try:
            return await asyncio.to_thread(_step, self.machine, event, self._desk.clock())
        except BaseException:
            # Broken or cancelled (its thread goes on, then): the steps that it took are in memory only.
            self._stale = True
            raise

    async def _perform(self, effects: Effects) -> None:
        """Carry out effects in order: all records in one transaction first, then what they allow."""
        records = [effect.record for effect in effects if isinstance(effect, Persist)]
        if records or self.view != self._view:
            await self._persist(records)
        for effect in effects:
            if isinstance(effect, Finish | Opened | Fail):
                self.ending = effect
            else:
                self._take(effect)

    async def _persist(self, records: Sequence[Record]) -> None:
        before = self._view
        # Until the disk has what the machine has taken in, a retry must not be told that it is stored.
        self._stale = True
        view = self.view
        entered_at = unix_seconds(self._desk.clock()) if view.stage != before.stage else None
        await self._desk.rounds.append(self.opening.round_id, self.cohort_id, records, view, entered_at)
        self._stale = False
        self._note(records)
        self._count_aborts(records)
        self._view = self.view
        if before.stage != self._view.stage:
            self._leave_stage(before.stage)
            log.info("the round has a new stage", extra={**self._fields, **self._view.progress})

    def _leave_stage(self, stage: str) -> None:
        """Count how long the cohort stood there, and who was awaited in vain."""
        now = self._desk.clock()
        missed = missed_in(stage, len(self.invited), self._view.progress)
        self._desk.metrics.stage_ended(stage, (now - self._stage_since).total_seconds(), missed)
        self._stage_since = now

    def _count_aborts(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.kind == "abort":
                self._desk.metrics.aborted(decode(Abort, decode(Envelope, record.body).body).problem)

    async def _catch_up(self) -> None:
        """After a failed write, go back to what the journal says."""
        if self._stale:
            records = await self._desk.rounds.journal(self.opening.round_id, self.cohort_id)
            self.machine = await asyncio.to_thread(self._rebuild, records)
            self._take_note_again(records)
            self._view = self.view
            self._stale = False

    def _take_note_again(self, records: Sequence[Record]) -> None:
        self._drop_work()
        self._joined.clear()
        self._uploads.clear()
        self._note(records)

    def _note(self, records: Sequence[Record]) -> None:
        """Keep who joined and where uploads lie, as the journal says it."""
        for record in records:
            if (joiner := self._joiner(record)) is not None:
                self._joined.add(joiner)
            elif record.kind == "upload":
                header = decode(UploadHeader, decode(Envelope, record.body).body)
                slot = self.slot(record.body, header)
                self._uploads[slot.sum_index, slot.client] = slot

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
            self._ring()


def _step(machine: M, event: Callable[[M, datetime], Effects], now: datetime) -> tuple[Effects, FeditError | None]:
    """Tick, feed one event, tick again; an event that is refused has changed nothing."""
    before = machine.tick(now)
    try:
        effects = event(machine, now)
    except FeditError as refusal:
        return before, refusal
    return (*before, *effects, *machine.tick(now)), None


def _nothing(_machine: Machine, _now: datetime) -> Effects:
    return ()
