"""What may become of a task: its states, the one table of the ways between them, and who records each.

DRAFT      known on this server only; may be edited without a trace on devices, its base too.
ACTIVE     listed, and rounds open as devices are free. People say open.
PAUSED     listed; no round opens, an open one ends as it would.
FINISHED   listed; nothing trains any more, its adapters can be fetched. A new version with more rounds goes on.
ARCHIVED   for good: devices hear of it no more, the operator keeps its adapters and its record.

Every change is one transaction with a signed line in the task's record (SPEC, section 17); a server that runs sees it
within `LOOK_AGAIN_S`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, Self

from fedit_protocol.catalogue import TaskState
from fedit_protocol.ids import TaskId
from fedit_protocol.task_record import ChangeKind, read_line
from fedit_server.clock import Clock, unix_seconds
from fedit_server.home.folder import Identity
from fedit_server.problems import StateConflictError
from fedit_server.storage.rows import TaskRow
from fedit_server.storage.store import Store
from fedit_server.storage.task_records import SERVER, Deed

OPERATOR: Final = "operator"
"""Who changes a task by a command on the server's own machine."""


class Verb(StrEnum):
    """What an operator does to a task, as the commands are called."""

    OPEN = "open"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "close"
    ARCHIVE = "archive"


@dataclass(frozen=True)
class Transition:
    """Which states a verb may find, which it leads to, and whether an open or held round forbids it."""

    allowed: frozenset[TaskState]
    leads_to: TaskState
    kind: ChangeKind
    needs_rest: bool = False


_Draft, _Active, _Paused, _Finished, _Archived = TaskState  # in the order in which they are defined

TRANSITIONS: Final = {
    Verb.OPEN: Transition(frozenset({_Draft}), _Active, ChangeKind.OPENED),
    Verb.PAUSE: Transition(frozenset({_Active}), _Paused, ChangeKind.PAUSED),
    Verb.RESUME: Transition(frozenset({_Paused}), _Active, ChangeKind.RESUMED),
    Verb.CLOSE: Transition(frozenset({_Active, _Paused}), _Finished, ChangeKind.CLOSED, needs_rest=True),
    Verb.ARCHIVE: Transition(frozenset({_Draft, _Finished}), _Archived, ChangeKind.ARCHIVED, needs_rest=True),
}

_INSTEAD: Final = {
    (Verb.OPEN, _Paused): "fedit-server task resume {task}",
    (Verb.OPEN, _Finished): "publish a new version with more rounds: fedit-server task edit {task} FILE",
    (Verb.PAUSE, _Draft): "fedit-server task open {task}",
    (Verb.RESUME, _Draft): "fedit-server task open {task}",
    (Verb.RESUME, _Finished): "publish a new version with more rounds: fedit-server task edit {task} FILE",
    (Verb.CLOSE, _Draft): "fedit-server task archive {task}",
    (Verb.ARCHIVE, _Active): "fedit-server task close {task}",
    (Verb.ARCHIVE, _Paused): "fedit-server task close {task}",
}
"""Verb and state → the command that leads on, where another than `task show` does."""


@dataclass(frozen=True)
class Lifecycle:
    """Changes the states of one server's tasks."""

    store: Store
    identity: Identity
    clock: Clock

    @classmethod
    def of(cls, store: Store, identity: Identity, clock: Clock) -> Self:
        """Put it together."""
        return cls(store, identity, clock)

    async def change(self, task_id: TaskId, verb: Verb, by: str = OPERATOR, reason: str = "") -> TaskRow:
        """Do to a task what the verb says, and return it as it is then; where it is so already nothing happens.

        Raises ConfigError U120 with the command that leads on, where the task's state or an open round forbids it.
        """
        transition = TRANSITIONS[verb]

        def decide(state: TaskState, busy: bool) -> TaskState:
            if state is transition.leads_to:
                return state
            if state not in transition.allowed:
                _refuse(task_id, verb, state)
            if busy and transition.needs_rest:
                _refuse_while_busy(task_id, verb)
            return transition.leads_to

        note = f"paused by the {by}{reason and ': '}{reason}" if verb is Verb.PAUSE else ""
        await self.store.tasks.change(task_id, decide, self.deed(transition.kind, by, reason), note=note)
        changed = await self.store.tasks.task(task_id)
        if changed is None:
            raise RuntimeError("a task is never deleted")
        return changed

    async def finish(self, task_id: TaskId) -> None:
        """Close an active task that has all its rounds, in the server's own name."""

        def decide(state: TaskState, _busy: bool) -> TaskState:
            return _Finished if state is _Active else state

        await self.store.tasks.change(
            task_id, decide, self.deed(ChangeKind.CLOSED, SERVER, "all of its rounds are committed")
        )

    async def take_up_records(self) -> None:
        """See that every record ends with a line under the present key, so that one who trusts that key can check it.

        It does not where the task is older than records are, or where the server's key was changed since.
        """
        for standing in await self.store.tasks.standings():
            newest = await self.store.records.newest(standing.task_id)
            if newest is None:
                reason = "the record begins here: before, this server kept none"
            elif self._is_ours(newest):
                continue
            else:
                reason = "the record goes on under a new key of the server"
            await self.store.records.append(standing.task_id, self.deed(ChangeKind.CONTINUED, SERVER, reason))

    def _is_ours(self, line: bytes) -> bool:
        # Ed25519 signs the same bytes alike, so what this key would write is what it has written.
        return self.identity.sign_change(read_line(line)) == line

    def deed(self, kind: ChangeKind, by: str, reason: str = "") -> Deed:
        """Return what is written into the record."""
        return Deed(kind, by, reason, unix_seconds(self.clock()), self.identity.sign_change)


def _refuse(task_id: TaskId, verb: Verb, state: TaskState) -> NoReturn:
    if state is _Archived:
        refuse_archived(task_id)
    why = f"is {WORDS[state]}, and only one that is {_either(TRANSITIONS[verb])} can be {_DONE[verb]}"
    fix = _INSTEAD.get((verb, state), "fedit-server task show {task}").format(task=task_id)
    raise StateConflictError(f"task {task_id} {why}", code="U120", fix=fix)


def refuse_archived(task_id: TaskId) -> NoReturn:
    """Say that an archived task stays as it is; raises ConfigError U120."""
    raise StateConflictError(
        f"task {task_id} is archived, which is for good",
        code="U120",
        fix=f"fedit-server task create FILE, with another id than {task_id}",
    )


def _refuse_while_busy(task_id: TaskId, verb: Verb) -> NoReturn:
    raise StateConflictError(
        f"task {task_id} cannot be {_DONE[verb]} while a round of it is open or held: let it end (pause the task, so"
        " that no other opens), decide a held one, or abort it",
        code="U120",
        fix=f"fedit-server task pause {task_id}",
    )


_DONE: Final = {
    Verb.OPEN: "opened", Verb.PAUSE: "paused", Verb.RESUME: "resumed", Verb.CLOSE: "closed", Verb.ARCHIVE: "archived",
}  # fmt: skip
WORDS: Final = {
    _Draft: "a draft", _Active: "open", _Paused: "paused", _Finished: "finished", _Archived: "archived",
}  # fmt: skip
"""A state as people read it."""


def _either(transition: Transition) -> str:
    return " or ".join(WORDS[state] for state in TaskState if state in transition.allowed)
