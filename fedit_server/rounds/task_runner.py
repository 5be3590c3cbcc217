"""Runs one task: gathers free clients, opens a round, waits for its end, commits or fails it, and begins again."""

import asyncio
import logging
import secrets
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from itertools import chain
from typing import Final

from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import StorageError
from fedit_protocol.ids import ClientId, RoundId, client_id
from fedit_protocol.messages import CheckIn, CheckInReply, WaitReason
from fedit_protocol.round_plan import cohort_rules
from fedit_protocol.sealed.opening import OpenedSum
from fedit_protocol.secagg.effects import Opened
from fedit_protocol.selection import NOTHING_DECLARED, Declared, Seen
from fedit_protocol.task import ROBUST_COHORTS, Mode
from fedit_protocol.task_selection import DECLARED, SEEN, least_free
from fedit_server.adapters.state import get_state
from fedit_server.clock import unix_seconds
from fedit_server.rounds.bell import Bell
from fedit_server.rounds.candidates import settle
from fedit_server.rounds.cohort import Known, divide, draw_round
from fedit_server.rounds.driver import RETRY_S
from fedit_server.rounds.endings import record_ending
from fedit_server.rounds.live_round import Ending, LiveRound, Summed
from fedit_server.rounds.lobby import Lobby
from fedit_server.rounds.offers import RoundFacts, signed_offer
from fedit_server.rounds.services import Services
from fedit_server.rounds.starting import state_ref
from fedit_server.rounds.suspicion import after_round, far_off
from fedit_server.storage.rounds import Opening
from fedit_server.storage.rows import ClientRow, RoundRow, TaskRow
from fedit_server.storage.tasks import Standing
from fedit_server.tasks.lifecycle import Lifecycle

LOOK_AGAIN_S: Final = 2.0
"""How often a task's state is read again: an administrator's command writes it from another process."""

_RETRY_AFTER_S: Final = {
    WaitReason.TASK_FINISHED: 3600.0,
    WaitReason.TASK_CHANGED: 60.0,
    WaitReason.TASK_PAUSED: 15.0,
    WaitReason.TOO_NEW: 300.0,
}
log = logging.getLogger(__name__)


def ends_waiting(standing: bytes | WaitReason) -> bool:
    """Say whether a client is told this at once: an offer, or a reason that waiting does not change."""
    return not isinstance(standing, WaitReason) or standing in _RETRY_AFTER_S


class TaskRunner:
    """One task. `live` is its open round, `held` one that waits for a decision; `bell` rings for those who wait.

    A round is run and ended under the version that it was opened with, although the task may have a newer one by then.
    """

    def __init__(self, task: TaskRow, services: Services) -> None:
        self.task = task
        self.live: LiveRound | None = None
        self.is_running = False
        self.held: RoundRow | None = None
        self.lobby = Lobby()
        self.bell = Bell()
        self.round_no = 0
        self.adapter_version = 0
        self._services = services
        self._passed_over: frozenset[ClientId] = frozenset()
        self._served = Counter[str]()
        """How often holders of each declared domain were invited, since this server took the task up."""
        self._seen: dict[str, Seen] = {}
        """What the last update of each device said, where a trusted task draws by it; never written down."""
        self._round_s: dict[str, float] = {}
        """How long the devices of such a task expect a round to take."""

    async def run(self) -> None:
        """Run rounds until the task is over, and nothing of it is open or waits for a decision."""
        self.is_running = True
        try:
            while self.has_work:
                try:
                    await self._turn()
                except StorageError as error:
                    log.error("the task waits for the disk: %s", error, extra={"task": self.task.task_id})
                    await asyncio.sleep(RETRY_S)
                except Exception:  # one task's bug must not stop the others, nor end its open round unrecorded
                    log.exception("the task stumbled and tries again", extra={"task": self.task.task_id})
                    await asyncio.sleep(RETRY_S)
        finally:
            self.is_running = False

    @property
    def has_work(self) -> bool:
        """Whether rounds may open, or one has to be ended."""
        runs = self.task.state in (TaskState.ACTIVE, TaskState.PAUSED)
        return runs or self.live is not None or self.held is not None

    def differs_from(self, standing: Standing) -> bool:
        """Say whether the task was changed since it was read."""
        return (self.task.version, self.task.state) != (standing.version, standing.state)

    def somebody_came(self) -> None:
        """Let the task look whether a round may open, if one more free client can make the difference."""
        policy, count = self.task.document.task.round, self.lobby.count(self._services.desk.clock())
        gathers = self.task.state is TaskState.ACTIVE and self.live is None and self.held is None
        if gathers and (count == least_free(self.task.document.task) or count >= policy.most_clients):
            self.bell.ring()

    async def refresh(self) -> None:
        """Read the task and its newest version again; who waits with a yes to another version is awaited no more."""
        store = self._services.store
        before, task = self.task, await store.tasks.task(self.task.task_id)
        if task is not None:
            if task.version != self.task.version:
                self.lobby.empty()
            self.task = task
        if (before.state, before.version) != (self.task.state, self.task.version):
            self.lobby.call_all()
        self.round_no = await store.rounds.newest_no(self.task.task_id)
        self.held = await store.rounds.held(self.task.task_id)
        self.adapter_version = (await store.tasks.newest_adapter(self.task.task_id)).version
        if self.adapter_version >= self.task.document.task.round.rounds and self.task.state is TaskState.ACTIVE:
            lifecycle = Lifecycle(store, self._services.identity, self._services.desk.clock)
            await lifecycle.finish(self.task.task_id)
            await self.refresh()

    async def _turn(self) -> None:
        await self.refresh()
        if self.live is not None:
            await self._end(self.live, await self.live.run())
        elif self.held is not None:
            await self._settle(self.held)
        elif self.task.state is TaskState.ACTIVE:
            await self._gather()
        else:
            await self.bell.wait(LOOK_AGAIN_S)

    def standing(self, client: ClientId, message: CheckIn) -> bytes | WaitReason:
        """Return the offer that stands for a client, or why there is none now."""
        live = self.live
        if live and live.awaits(client) and message.consent_version == live.opening.task_version:
            return live.opening.offer
        return self._reason(client, message)

    def declared_by(self, message: CheckIn) -> Declared:
        """Return what a check-in says of its device, as far as the task asks for it."""
        said = message.declared
        if said is None or self.task.document.task.round.selection not in DECLARED:
            return NOTHING_DECLARED
        known = frozenset(said.domains) & frozenset(self.task.document.task.selection.domains)
        return Declared(known, said.round_s)

    def is_too_new(self, client: ClientRow) -> bool:
        """Say whether a client enrolled too lately: every member would refuse a roster with it (C5)."""
        age_s = unix_seconds(self._services.desk.clock()) - client.enrolled_at
        return age_s < cohort_rules(self.task.document.task).min_cert_age_s

    def reply(self, standing: bytes | WaitReason) -> CheckInReply:
        """Tell a client of its offer, or why there is none now."""
        now = self._services.desk.clock()
        reason = standing if isinstance(standing, WaitReason) else None
        return CheckInReply(
            offer=None if isinstance(standing, WaitReason) else standing,
            reason=reason,
            free_clients=self.lobby.count(now),
            wanted_clients=least_free(self.task.document.task),
            round_no=self.round_no,
            adapter_version=self.adapter_version,
            retry_after_s=_RETRY_AFTER_S.get(reason, 1.0) if reason else 0.0,
            server_time=unix_seconds(now),
        )

    def _reason(self, client: ClientId, message: CheckIn) -> WaitReason:
        if self.task.state is TaskState.FINISHED:
            return WaitReason.TASK_FINISHED
        if message.consent_version != self.task.version:
            return WaitReason.TASK_CHANGED
        if self.task.state is TaskState.PAUSED:
            return WaitReason.TASK_PAUSED
        if self.held is not None:
            return WaitReason.ROUND_HELD
        if self.live is None:
            return WaitReason.GATHERING
        return WaitReason.NOT_SELECTED if client in self._passed_over else WaitReason.ROUND_RUNNING

    async def _settle(self, held: RoundRow) -> None:
        """Carry out what became of a held round, or wait: for evaluators, whose reports ring, or for the operator."""
        ear = self.bell.listen()
        verdict = await settle(self._services, await self._task_of(held.task_version), held)
        await self.refresh()
        if self.held is None:
            self.bell.ring()
            return
        left = LOOK_AGAIN_S if verdict.until is None else verdict.until - unix_seconds(self._services.desk.clock())
        await ear.wait(min(LOOK_AGAIN_S, max(0.0, left)))

    async def _gather(self) -> None:
        """Open a round once enough clients are free, or wait a little for them."""
        policy, now = self.task.document.task.round, self._services.desk.clock()
        gather = timedelta(seconds=policy.deadlines.gather_s)
        # A choice by what is known of devices needs more of them than it takes: it is made at the end of gathering.
        wanted = sys.maxsize if policy.selection in DECLARED | SEEN else policy.most_clients
        opens_at = self.lobby.opens_at(least_free(self.task.document.task), wanted, gather, now)
        if opens_at is None or opens_at > now:
            left = LOOK_AGAIN_S if opens_at is None else (opens_at - now).total_seconds()
            await self.bell.wait(min(LOOK_AGAIN_S, left))
            return
        free = self.lobby.free(now)
        seed = secrets.token_bytes(32)
        declared = self.lobby.declared()
        basis = Known(self.round_no + 1, declared, self._served, self._seen)
        drawn = draw_round(free, policy, basis, seed)
        if policy.selection in SEEN:
            self._round_s |= {client: said.round_s for client, said in declared.items() if said.round_s}
        self._served.update(name for client in drawn if client in declared for name in declared[client].domains)
        known = await self._services.store.suspicions.of_task(self.task.task_id)
        streaks = {client: held.streak for client, held in known.items() if held.streak}
        cohorts = divide(drawn, policy, seed, streaks)
        await self._open(cohorts)
        self._passed_over = frozenset(free).difference(*cohorts)

    async def _open(self, cohorts: Sequence[Collection[ClientId]]) -> None:
        services = self._services
        now_s = unix_seconds(services.desk.clock())
        head = await services.store.key_log.head()
        if head is None:
            raise RuntimeError("clients are free although nobody is enrolled")
        adapter = await services.store.tasks.newest_adapter(self.task.task_id)
        round_id = RoundId(secrets.token_hex(16))
        key = await self._round_key(round_id)
        state = await state_ref(services.blobs, adapter.public_digest)
        known = await get_state(services.blobs, adapter.public_digest)
        facts = RoundFacts(round_id, self.round_no + 1, adapter, head, now_s, len(cohorts), key, state, known)
        opening = Opening(
            round_id=facts.round_id,
            task_id=self.task.task_id,
            task_version=self.task.version,
            round_no=facts.round_no,
            offer=signed_offer(services.identity, self.task.document, facts),
            cohorts=tuple(map(frozenset, cohorts)),
        )
        live = LiveRound(opening, self.task.document, services.desk)
        if not await services.store.rounds.open(opening, live.views, now_s):
            await asyncio.to_thread(services.desk.round_keys.destroy, round_id)
            return  # paused, closed or edited in this very moment
        for client in chain.from_iterable(cohorts):
            self.lobby.remove(client)
        self.lobby.start_over()
        self.live, self.round_no = live, facts.round_no
        self.lobby.call(chain.from_iterable(cohorts))
        services.desk.metrics.cohort_formed(self.task.task_id, sum(map(len, cohorts)))
        log.info("a round is open", extra={**self._fields, "invited": sum(map(len, cohorts)), "cohorts": len(cohorts)})
        self.bell.ring()

    async def _round_key(self, round_id: RoundId) -> bytes | None:
        """Return what the devices of a trusted round seal to; durable before anything is signed, let alone sealed."""
        if self.task.document.task.round.mode is not Mode.TRUSTED:
            return None
        return await asyncio.to_thread(self._services.desk.round_keys.create, round_id)

    @property
    def _fields(self) -> dict[str, object]:
        return {"task": self.task.task_id, "round": self.round_no}

    async def _end(self, live: LiveRound, ending: Ending) -> None:
        """Record how the round ended, tell everybody, delete what was uploaded and the key that opens it (S9)."""
        task = await self._task_of(live.opening.task_version)
        await record_ending(self._services, task, live.opening, ending, by_order=bool(live.aborted))
        await asyncio.to_thread(self._services.desk.round_keys.destroy, live.opening.round_id)
        for cohort in live.cohorts:
            for device, deed in cohort.machine.blamed.items():
                client = client_id(device)
                self.lobby.bar(client)
                log.warning("a device is left out from now on: it %s", deed, extra={**self._fields, "client": client})
        if isinstance(ending, Summed):
            await self._suspect(ending)
        if isinstance(ending, Opened) and task.document.task.round.selection in SEEN:
            self._see(ending.result)
        self.live = None
        await self._services.desk.spool.discard(live.opening.round_id)
        await self.refresh()
        live.look_again()
        self.bell.ring()
        await self._services.store.database.clear_log()

    def _see(self, opened: OpenedSum) -> None:
        """Note what a trusted round's devices said, until their next one; the time is what they declared."""
        for device, (rows, loss) in opened.seen.items():
            client = client_id(device)
            self._seen[client] = Seen(rows, loss**2, self._round_s.get(client, 0.0), self.round_no)

    async def _task_of(self, version: int) -> TaskRow:
        """Return the task as a round of this version knows it."""
        task = await self._services.store.tasks.task_at(self.task.task_id, version)
        if task is None:
            raise RuntimeError("a round's document is never deleted")
        return task

    async def _suspect(self, ending: Summed) -> None:
        """Note whose cohorts were far from the others, and name who keeps being in them; nobody is left out for it.

        A crash before this forgets the one round: suspicion grows from the next one.
        """
        if len(ending.sums) < ROBUST_COHORTS:
            return
        far = await asyncio.to_thread(far_off, ending.sums)
        store = self._services.store.suspicions
        after = after_round(await store.of_task(self.task.task_id), ending.members, far)
        await store.note(self.task.task_id, after)
        if far:
            log.warning("cohorts are far from the others", extra={**self._fields, "cohorts": sorted(far)})
        for client, held in after.items():
            if held.is_named:
                fields = {**self._fields, "client": client, "in_a_row": held.streak}
                log.warning("a device keeps being where a cohort is far off; the operator should look", extra=fields)
