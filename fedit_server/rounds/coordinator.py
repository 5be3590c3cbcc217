"""Owns every task and open round: the one place through which rounds are opened, fed, ended and found again.

A round in the database is `open` until one transaction makes it `committed` or `failed`; it never leaves that state.
After a restart `start` takes open rounds up from their journals, or records why one cannot go on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final

from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import FeditError, ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import ClientId, IdentityKey, RoundId, TaskId, client_id
from fedit_protocol.messages import CheckIn, CheckInReply, WaitReason
from fedit_protocol.secagg.effects import Fail
from fedit_protocol.version import can_talk, spoken
from fedit_server.rounds.bell import Bell
from fedit_server.rounds.candidates import show_figures
from fedit_server.rounds.driver import Driver, Machine
from fedit_server.rounds.endings import record_ending
from fedit_server.rounds.live_round import LiveRound
from fedit_server.rounds.orders import carry_out_orders
from fedit_server.rounds.services import Services
from fedit_server.rounds.task_runner import LOOK_AGAIN_S, TaskRunner, ends_waiting
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import ClientRow, RoundRow, RoundState, TaskRow
from fedit_server.storage.tasks import Standing
from fedit_server.tasks.lifecycle import Lifecycle

_LAST_LOOK_S: Final = 5.0
"""How long a stop waits for a look into the store that has begun."""

log = logging.getLogger(__name__)


class Coordinator:
    """The rounds of one server."""

    def __init__(self, services: Services, only: TaskId | None = None) -> None:
        """With `only`, one task's rounds: those of a replica that owns it."""
        self.services = services
        self._only = only
        self._runners: dict[TaskId, TaskRunner] = {}
        self._changes = Bell()
        self._stopping = False

    async def start(self) -> None:
        """Load the tasks, take up open rounds, delete the uploads and keys of rounds that are over."""
        store = self.services.store
        if self._only is None:
            await self.take_up_records()
        for task in filter(self._is_mine, await store.tasks.tasks()):
            self._runners[task.task_id] = TaskRunner(task, self.services)
        for row in filter(self._is_mine, await store.rounds.open_rounds()):
            self._runners[row.task_id].live = await self._take_up(row)
        for runner in self._runners.values():
            await runner.refresh()  # a finished task's runner does not run, and still answers check-ins
            last = await store.rounds.newest(runner.task.task_id, RoundState.COMMITTED)
            if last is not None and last.figures is not None:
                show_figures(self.services, runner.task.task_id, last.figures.report)
        live = {runner.live.opening.round_id for runner in self._runners.values() if runner.live is not None}
        if self._only is None:
            await self.services.desk.spool.discard_all_but(live)
            await asyncio.to_thread(self.services.desk.round_keys.destroy_all_but, live)
        elif not live:  # the owner before may have died between the end of its last round and this
            for newest in await store.rounds.newest_ids(self._only):
                await self.services.desk.spool.discard(newest)
        await store.database.clear_log()

    async def take_up_records(self) -> None:
        """See that the record of every task ends under the present key."""
        await Lifecycle(self.services.store, self.services.identity, self.services.desk.clock).take_up_records()

    def _is_mine(self, row: TaskRow | RoundRow | Standing) -> bool:
        return self._only in (None, row.task_id)

    async def run(self) -> None:
        """Run every task until cancelled, also those that are made meanwhile, and carry out orders about rounds."""
        async with asyncio.TaskGroup() as group:
            while True:
                ear = self._changes.listen()
                try:
                    await _to_its_end(self._look_at_tasks())
                except StorageError as error:
                    log.error("the store cannot be asked about tasks: %s", error)
                for runner in self._runners.values():
                    if runner.has_work and not runner.is_running:
                        runner.is_running = True
                        group.create_task(runner.run(), name=f"task {runner.task.task_id}")
                await ear.wait(LOOK_AGAIN_S)

    async def _look_at_tasks(self) -> None:
        """Take up what a command beside this server has made or changed, and what it has ordered."""
        store = self.services.store
        for standing in filter(self._is_mine, await store.tasks.standings()):
            runner = self._runners.get(standing.task_id)
            if runner is None and (task := await store.tasks.task(standing.task_id)) is not None:
                runner = TaskRunner(task, self.services)
                await runner.refresh()
                self._runners[standing.task_id] = runner
            elif runner is not None and runner.differs_from(standing):
                await runner.refresh()
                runner.bell.ring()
        await carry_out_orders(store.orders, [*self._runners.values()])

    @property
    def runners(self) -> Mapping[TaskId, TaskRunner]:
        """What runs each task."""
        return self._runners

    def stop_waiting(self) -> None:
        """End every long poll: the server is about to stop."""
        self._stopping = True
        self.look_again()

    def look_again(self) -> None:
        """Wake everything that waits, for instance because a test has moved the clock."""
        self._changes.ring()
        for runner in self._runners.values():
            runner.bell.ring()
            runner.lobby.call_all()
            if runner.live is not None:
                runner.live.look_again()

    @property
    def waiting_clients(self) -> int:
        """How many clients have a check-in open; one that waits for two tasks counts twice."""
        return sum(runner.lobby.waiting_count for runner in self._runners.values())

    async def check_in(self, caller: ClientRow, message: CheckIn) -> CheckInReply:
        """Wait for a round that wants this client; answers with an offer, or after the long poll with a reason."""
        client = caller.client_id
        if not can_talk(message.version):
            raise ProtocolError(
                ProblemType.VERSION_MISMATCH, f"this server does not speak the client's version: it takes {spoken()}"
            )
        runner = self._runner(message.task_id)
        if message.version < runner.task.protocol:
            raise ProtocolError(ProblemType.VERSION_MISMATCH, "this task needs a newer client")
        if runner.is_too_new(caller):
            return runner.reply(WaitReason.TOO_NEW)
        standing = runner.standing(client, message)
        if ends_waiting(standing):
            return runner.reply(standing)
        declared = runner.declared_by(message)
        runner.lobby.saw(client, self.services.desk.clock(), declared)
        with runner.lobby.waiting(client) as bell:
            runner.somebody_came()
            standing = await self._wait_for_offer(runner, client, message, bell)
            reply = runner.reply(standing)
        if not ends_waiting(standing):
            runner.lobby.saw(client, self.services.desk.clock(), declared)
        return reply

    def forget(self, key: IdentityKey) -> None:
        """Stop counting on a client that has left."""
        for runner in self._runners.values():
            runner.lobby.remove(client_id(key))

    async def live(self, round_id: RoundId) -> LiveRound:
        """Return an open round; raises ProtocolError: unknown-round, round-failed with the reason, too-late."""
        for runner in self._runners.values():
            if runner.live is not None and runner.live.opening.round_id == round_id:
                if isinstance(runner.live.ending, Fail):
                    raise ProtocolError(ProblemType.ROUND_FAILED, runner.live.ending.reason)
                return runner.live
        row = await self._row(round_id)
        if row.state is RoundState.FAILED:
            raise ProtocolError(ProblemType.ROUND_FAILED, row.reason)
        raise ProtocolError(ProblemType.TOO_LATE, f"round {row.round_no} is over")

    async def cohort(self, round_id: RoundId, client: ClientId) -> Driver[Machine]:
        """Return a client's cohort of an open round; raises as `live`, and SecurityError (not-in-cohort)."""
        cohort = (await self.live(round_id)).cohort_of(client)
        if isinstance(cohort.ending, Fail):
            raise ProtocolError(ProblemType.ROUND_FAILED, cohort.ending.reason)
        return cohort

    async def result(self, round_id: RoundId) -> bytes:
        """Return a round's signed result, waiting for it as long as a long poll may; then raises not-ready."""
        return await self.poll(lambda: self._result(round_id), self._bell(round_id))

    async def document(self, round_id: RoundId, reader: ClientId, question: Callable[[Machine], bytes]) -> bytes:
        """Ask the reader's cohort for a document, waiting until it is there; then raises not-ready."""
        cohort = await self.cohort(round_id, reader)
        return await self.poll(lambda: self._ask(cohort, question), cohort.documents)

    async def poll(self, look: Callable[[], Awaitable[bytes]], bell: Bell) -> bytes:
        """Look again at every ring until there is an answer, another error than not-ready, or the long poll is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.services.long_poll_s
        while True:
            ear = bell.listen()
            try:
                return await look()
            except ProtocolError as error:
                left = until - loop.time()
                if error.problem is not ProblemType.NOT_READY or left <= 0 or self._stopping:
                    raise
            await ear.wait(left)

    def bell_of(self, task_id: TaskId) -> Bell:
        """Return the bell of a task; raises ProtocolError (unknown-task)."""
        return self._runner(task_id).bell

    def _runner(self, task_id: TaskId) -> TaskRunner:
        runner = self._runners.get(task_id)
        if runner is None or runner.task.state is TaskState.DRAFT:
            raise ProtocolError(ProblemType.UNKNOWN_TASK, f"there is no task {task_id}")
        if runner.task.state is TaskState.ARCHIVED:
            reason = f"the task {task_id} is over, and its organiser has archived it"
            raise ProtocolError(ProblemType.UNKNOWN_TASK, reason)
        return runner

    def _bell(self, round_id: RoundId) -> Bell:
        for runner in self._runners.values():
            if runner.live is not None and runner.live.opening.round_id == round_id:
                return runner.live.bell
        return Bell()

    async def _ask(self, cohort: Driver[Machine], question: Callable[[Machine], bytes]) -> bytes:
        if cohort.ending is not None and not isinstance(cohort.ending, Fail):
            raise ProtocolError(ProblemType.TOO_LATE, f"round {cohort.opening.round_no} is over")
        return await cohort.read(question)

    async def _row(self, round_id: RoundId) -> RoundRow:
        row = await self.services.store.rounds.round(round_id)
        if row is None:
            raise ProtocolError(ProblemType.UNKNOWN_ROUND, "there is no such round")
        return row

    async def _result(self, round_id: RoundId) -> bytes:
        row = await self._row(round_id)
        if row.result is None:
            raise ProtocolError(ProblemType.NOT_READY, "the round is still running")
        return row.result

    async def _wait_for_offer(
        self, runner: TaskRunner, client: ClientId, message: CheckIn, bell: Bell
    ) -> bytes | WaitReason:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.services.long_poll_s
        while True:
            ear = bell.listen()
            standing = runner.standing(client, message)
            left = until - loop.time()
            if ends_waiting(standing) or left <= 0 or self._stopping:
                return standing
            await ear.wait(left)

    async def close_open_rounds(self, reason: str) -> int:
        """Fail every open round for good, before `start`; returns how many there were.

        A restored server must not go on with them: it could publish a second list of survivors for a round whose first
        one is in its devices' hands, and two lists are what unmasking single updates takes (THREATS).
        """
        store = self.services.store
        tasks = {task.task_id: task for task in await store.tasks.tasks()}
        found = await store.rounds.open_rounds()
        for row in found:
            ending = Fail(ProblemType.ROUND_FAILED, reason)
            await record_ending(self.services, tasks[row.task_id], await self._opening(row), ending)
        return len(found)

    async def _opening(self, row: RoundRow) -> Opening:
        return Opening(
            round_id=row.round_id,
            task_id=row.task_id,
            task_version=row.task_version,
            round_no=row.round_no,
            offer=row.offer,
            cohorts=await self.services.store.rounds.invited(row.round_id),
        )

    async def _take_up(self, row: RoundRow) -> LiveRound | None:
        """Continue an open round after a restart, under the version of its task that it was opened with.

        What cannot be continued is recorded as failed, with the reason.
        """
        rounds = self.services.store.rounds
        task = await self.services.store.tasks.task_at(row.task_id, row.task_version)
        if task is None:
            raise RuntimeError("a round's document is never deleted")
        opening = await self._opening(row)
        await self.services.desk.spool.take_up(row.round_id)
        try:
            journals = [await rounds.journal(row.round_id, number) for number in range(len(opening.cohorts))]
            live = LiveRound(opening, task.document, self.services.desk, journals)
            await _give_up_lost_cohorts(live)
        except (FeditError, RuntimeError, ValueError, KeyError) as error:
            log.warning("a round cannot go on after the restart", extra={"task": row.task_id, "round": row.round_no})
            reason = f"the server restarted and could not continue: {error}"
            await record_ending(self.services, task, opening, Fail(ProblemType.ROUND_FAILED, reason))
            return None
        log.info("a round goes on after the restart", extra={"task": row.task_id, "round": row.round_no})
        return live


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it although this is cancelled meanwhile: a query that is cut off leaves its connection behind."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=_LAST_LOOK_S)
        raise


async def _give_up_lost_cohorts(live: LiveRound) -> None:
    """Fail every cohort that lost what it needs; raises ValueError if that is the round's only one."""
    for cohort in live.cohorts:
        loss = cohort.loss()
        if loss and len(live.cohorts) == 1:
            raise ValueError(loss)
        if loss:
            await cohort.fail(ProblemType.ROUND_FAILED, f"after a restart {loss}")
