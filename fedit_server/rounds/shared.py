"""The rounds of a server that shares its database with others: each task is run by the one that holds its lease.

A task is *absent* (nobody owns it), *mine* or *another's*. Each time of ownership has a coordinator of its own, whose
writes carry the lease's epoch, so that nothing in memory survives the loss of a lease. A dead owner's lease runs out by
the database's clock; then the living replica that ranks first for the task takes it and goes on from the journal.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from fedit_protocol.errors import StorageError
from fedit_protocol.ids import TaskId
from fedit_server.clock import unix_seconds
from fedit_server.rounds.bell import Bell
from fedit_server.rounds.coordinator import Coordinator
from fedit_server.rounds.lease import Lease, Now, boot_time
from fedit_server.rounds.services import Services
from fedit_server.storage.leases import LEASES, Fence, Holdings, Leases, Owner

_MOST_PAUSE_S: Final = 1.0
"""How long an expired lease may go unnoticed when no word of it arrives."""
_HEAR_AGAIN_S: Final = 1.0

log = logging.getLogger(__name__)


@dataclass
class Ownership:
    """One task that this replica owns now. `lost` is set once it does no more."""

    lease: Lease
    coordinator: Coordinator
    lost: asyncio.Event
    running: "asyncio.Task[None]"


class SharedCoordinator(Coordinator):
    """The tasks that this replica owns, as one coordinator; `run` takes, keeps and gives back leases."""

    def __init__(self, services: Services, leases: Leases, now: Now = boot_time) -> None:
        super().__init__(services)
        self.leases = leases
        self.changed = Bell()
        """Rings when an owner changes."""
        self._now = now
        self._owned: dict[TaskId, Ownership] = {}
        self._taking: dict[TaskId, asyncio.Task[None]] = {}
        self._owners: Mapping[TaskId, Owner] = {}
        self._wake = Bell()

    async def start(self) -> None:
        """Enter the list of replicas. Raises StorageError S095, S096."""
        await self.leases.announce(unix_seconds(self.services.desk.clock()))
        await self.take_up_records()

    async def run(self) -> None:
        """Own tasks until cancelled; then the leases go back, so that others need not wait for their end."""
        hearing = asyncio.create_task(self._hear(), name="word of other replicas")
        try:
            while not self._stopping:
                ear = self._wake.listen()
                try:
                    await self._look_around()
                except StorageError as error:
                    log.error("the leases cannot be looked at: %s", error)
                self._drop_what_ended()
                await ear.wait(min(_MOST_PAUSE_S, self.leases.length_s / 4))
        finally:
            hearing.cancel()
            for task_id in list(self._owned):
                await self._drop(task_id)
            with contextlib.suppress(StorageError, asyncio.CancelledError):
                await self.leases.retire()

    def stop_waiting(self) -> None:
        """End every long poll, and give every task to another replica now."""
        super().stop_waiting()
        self._wake.ring()

    def owned(self, task_id: TaskId) -> Ownership | None:
        """Return how this replica owns a task now; None if it does not, may not any more, or is still taking it up."""
        found = self._owned.get(task_id)
        return found if found is not None and task_id in self._runners and found.lease.is_good else None

    def owner(self, task_id: TaskId) -> Owner | None:
        """Return who owned a task when this replica last looked; None if nobody did."""
        return self._owners.get(task_id)

    async def _hear(self) -> None:
        """Look at once when another replica tells of a lease, or a command of a change."""
        while True:
            try:
                await self.services.store.database.listen(self._heard)
            except StorageError as error:
                log.warning("other replicas cannot be heard; looking every second instead: %s", error)
            await asyncio.sleep(_HEAR_AGAIN_S)

    def _heard(self, word: str) -> None:
        self._wake.ring()
        if word != LEASES:
            for ownership in self._owned.values():
                ownership.coordinator.look_again()

    async def _look_around(self) -> None:
        asked_at = self._now()
        held = await self.leases.renew()
        for task_id, ownership in list(self._owned.items()):
            if held.get(task_id) == ownership.lease.fence.epoch:
                ownership.lease.prolong(asked_at, self.leases.length_s)
            else:
                await self._drop(task_id)
        holdings = await self.leases.holdings()
        if holdings.owners != self._owners:
            self._owners = holdings.owners
            self.changed.ring()
        for task_id in holdings.tasks:
            if task_id in self._owned:
                await self._give_way(task_id, holdings)
            elif task_id not in holdings.owners or holdings.owners[task_id].replica_id == self.leases.me.replica_id:
                self._begin_to_take(task_id, holdings)

    def _begin_to_take(self, task_id: TaskId, holdings: Holdings) -> None:
        """Take what nobody owns if this replica ranks first for it, beside the loop: taking up its round may last."""
        if task_id not in self._taking and rank(task_id, holdings) == self.leases.me.replica_id:
            self._taking[task_id] = asyncio.create_task(self._take(task_id), name=f"taking task {task_id}")

    async def _take(self, task_id: TaskId) -> None:
        try:
            asked_at = self._now()
            fence = await self.leases.take(task_id)
            if fence is None:
                return
            lease = Lease(fence, asked_at, self.leases.length_s, self._now)
            coordinator = Coordinator(self._fenced(fence, lease), task_id)
            running = asyncio.create_task(self._run(coordinator, task_id), name=f"owned task {task_id}")
            self._owned[task_id] = Ownership(lease, coordinator, asyncio.Event(), running)
        except StorageError as error:
            log.error("a task cannot be taken over: %s", error, extra={"task": task_id})
        finally:
            self._taking.pop(task_id, None)

    async def _run(self, coordinator: Coordinator, task_id: TaskId) -> None:
        try:
            await coordinator.start()
            self._runners.update(coordinator.runners)
            self.changed.ring()
            log.info("this replica owns the task now", extra={"task": task_id})
            self._wake.ring()
            await coordinator.run()
        except asyncio.CancelledError:
            raise
        except Exception:  # the lease is given up with it, and another replica, or this one, begins anew
            log.exception("an owned task stumbled", extra={"task": task_id})

    def _fenced(self, fence: Fence, lease: Lease) -> Services:
        """Return what the task's rounds work with: every write is bound to this very lease."""
        services = self.services
        store = type(services.store).over(services.store.database.guarded(self.leases.guard(fence)))
        desk = replace(services.desk, rounds=store.rounds, require_lease=lease.require)
        return replace(services, store=store, desk=desk)

    async def _give_way(self, task_id: TaskId, holdings: Holdings) -> None:
        """Between two rounds, let a replica go on that ranks before this one: it may have started later."""
        ownership, runner = self._owned[task_id], self._runners.get(task_id)
        is_idle = runner is not None and runner.live is None
        if ownership.running.done() or (is_idle and rank(task_id, holdings) != self.leases.me.replica_id):
            await self._release(task_id)

    async def _release(self, task_id: TaskId) -> None:
        fence = self._owned[task_id].lease.fence
        await self._drop(task_id)
        await self.leases.give_back(fence)

    def _drop_what_ended(self) -> None:
        """What this replica may own no more is told to those who wait for it, even while the database is away."""
        for ownership in self._owned.values():
            if not ownership.lease.is_good:
                ownership.lost.set()

    async def _drop(self, task_id: TaskId) -> None:
        ownership = self._owned.pop(task_id)
        ownership.lease.is_lost = True
        ownership.lost.set()
        self._runners.pop(task_id, None)
        ownership.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ownership.running
        log.info("this replica does not own the task any more", extra={"task": task_id})


def rank(task_id: TaskId, holdings: Holdings) -> str:
    """Return the living replica that ranks first for a task (rendezvous hashing): all of them agree, and share."""
    return max(holdings.alive, key=lambda replica: hashlib.sha256(f"{task_id} {replica}".encode()).digest(), default="")
