"""A fleet on one machine: all virtual clients in one event loop, until the task is over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from fedit_client.events import Event, EventKind
from fedit_client.fleet.member import Member, VirtualClient, World
from fedit_client.network.transport import Transport
from fedit_client.task_groups import task_group
from fedit_protocol.catalogue import TaskList, TaskState
from fedit_protocol.encoding import decode
from fedit_protocol.errors import DataError, DeviceError, FeditError, FleetError, TransportError
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_selection import least_free

_ENROL_AT_ONCE: Final = 8
_LOOK_EVERY_S: Final = 3.0
_COMPLETE_EVERY_S: Final = 1.0
_STALLED_S: Final = 2.0
_MOST_TOLD: Final = 5

Say = Callable[[str], None]
EndStage = Callable[[int, bool], Awaitable[bool]]
"""Ends the present stage of a round by hand, or the whole round; False where the server refuses. Only a server of the
fleet's own has it."""


@dataclass
class Fleet:
    """The clients of one world. `end_stage` is there where the server is the fleet's own."""

    clients: Sequence[VirtualClient]
    world: World
    say: Say = lambda _: None
    end_stage: EndStage | None = None
    max_rounds: int | None = None
    out: dict[str, FeditError] = field(default_factory=dict)
    """Clients that ended before the others, with the reason: rows that cannot be used, training that diverged."""

    def __post_init__(self) -> None:
        self.members = [Member(client, self.world, self._hear) for client in self.clients]
        self._told: set[str] = set()

    async def run(self) -> None:
        """Enrol everybody, then let them live until the task is over or enough rounds were committed.

        Raises FleetError F010 if the task is paused on a server of the fleet's own and F014 if too few clients are left
        for one of its rounds, SecurityError at an alarm, and what training raises if it concerns all clients.
        """
        await self._enrol()
        self.say(f"{len(self.members)} virtual clients are enrolled")
        async with task_group() as group:
            watching = [group.create_task(self._watch_task()), group.create_task(self._watch_lines())]
            if self.end_stage is not None:
                watching.append(group.create_task(self._watch_stalls(self.end_stage)))
            lives = [group.create_task(self._life(member)) for member in self.members]
            await asyncio.wait(lives)
            for task in watching:
                task.cancel()

    def finish(self) -> None:
        """Let every client end once its round is over."""
        for member in self.members:
            member.finish()

    async def _enrol(self) -> None:
        """Enrol a few at a time: an authority signs one after another anyway."""
        places = asyncio.Semaphore(_ENROL_AT_ONCE)

        async def one(member: Member) -> None:
            async with places:
                await member.enrol()

        async with task_group() as group:
            # Awaited in the block: what fails while a group is left looks like a cancellation in Python 3.11.
            await asyncio.wait([group.create_task(one(member)) for member in self.members])

    async def _life(self, member: Member) -> None:
        try:
            await member.live(self.max_rounds)
        except (DataError, DeviceError) as error:
            if isinstance(error, DeviceError) and error.code != "H010":
                raise
            self.out[member.client.name] = error
            if len(self.out) <= _MOST_TOLD:
                self.say(f"{member.client.name} is out: {error}")
            if len(self.out) == len(self.members):
                raise
            self._check_enough(error)

    def _check_enough(self, error: FeditError) -> None:
        """Raise FleetError F014 if too few are left for a round of the fleet's own server, where nobody else comes."""
        needed, left = least_free(self.world.offer.document.task), len(self.members) - len(self.out)
        if self.end_stage is not None and left < needed:
            raise FleetError(f"{len(self.out)} of {len(self.members)} clients are out, and a round needs {needed}; the "
                             f"last one said: {error}", code="F014",
                             fix=error.fix or "fedit-client fleet --out NEW_FOLDER, with more rows for each client"
                             ) from error  # fmt: skip

    def _hear(self, event: Event) -> None:
        enough = self.max_rounds is not None and self.world.tally.committed >= self.max_rounds
        if event.kind is EventKind.TASK_FINISHED or enough:
            self.finish()
        if event.kind in {EventKind.CONNECTION_LOST, EventKind.ROUND_LOST} and event.text not in self._told:
            self._told.add(event.text)
            self.say(event.text)

    async def _watch_task(self) -> None:
        """Notice that the task is over, or paused, also where every client is away."""
        told = False
        async with self.world.connect(None) as transport:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                try:
                    state = await task_state(transport, self.world.offer.document)
                except TransportError:  # the clients say so themselves, and wait
                    continue
                if state == TaskState.FINISHED:
                    self.finish()
                elif state != TaskState.ACTIVE and self.end_stage is not None:
                    raise not_open(self.world.offer.document, state)
                elif state != TaskState.ACTIVE and not told:
                    told = True
                    self.say(f"the task is {state}; the fleet waits")

    async def _watch_lines(self) -> None:
        """Write the rounds that wait for the server's report."""
        while True:
            await asyncio.sleep(_COMPLETE_EVERY_S)
            await self.world.tally.complete()

    async def _watch_stalls(self, end_stage: EndStage) -> None:
        """End stages that wait for vanished clients only: what a deadline would do, without sitting it out."""
        stalls = self.world.tally.stalls
        while True:
            await asyncio.sleep(_STALLED_S / 2)
            before = stalls.stalled
            if before is None:
                continue
            await asyncio.sleep(_STALLED_S)  # who was invited may not have begun yet
            if stalls.stalled != before:
                continue
            if await end_stage(before[0], False):
                stalls.close(*before)
                continue
            await asyncio.sleep(_STALLED_S)
            if stalls.stalled == before:  # too few are left to go on: the deadline would find the same
                await end_stage(before[0], True)


async def task_state(transport: Transport, document: TaskDocument) -> str:
    """Return the state that the server lists a task in; archived if it lists it no more."""
    listed = decode(TaskList, await transport.get("/v1/tasks")).tasks
    states = {decode(TaskDocument, listing.document).task.id: listing.state for listing in listed}
    return states.get(document.task.id, TaskState.ARCHIVED)


def not_open(document: TaskDocument, state: str) -> FleetError:
    """Return the error for a task that no round can be opened in."""
    task = document.task.id
    again = "; the fleet goes on with --resume" if state == TaskState.PAUSED else ""
    return FleetError(f"the task {document.task.label} is {state}, so no round opens{again}", code="F010",
                      fix=f"fedit-server task resume {task}" if state == TaskState.PAUSED
                      else "ask the organiser for a task that runs: fedit-server task list")  # fmt: skip
