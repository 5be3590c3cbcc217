"""What the operator's commands look up and change, in the store of a server that may be running beside them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import digest_of
from fedit_protocol.enrollment import federation_context
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import TaskId
from fedit_protocol.peft_folder import Edition
from fedit_protocol.signing import Kind, seal
from fedit_server.access.address import advertised
from fedit_server.access.tokens import LOCAL, Caller, TokenGate
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.state import get_state
from fedit_server.clock import Clock, unix_seconds, utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, Identity, load_identity
from fedit_server.problems import StateConflictError
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.audit import AuditHead, Event
from fedit_server.storage.opening import open_blobs
from fedit_server.storage.place import place_of
from fedit_server.storage.retention import RetiredVersion
from fedit_server.storage.rows import (
    AdapterRow,
    ClientRow,
    Decision,
    RoundRow,
    TaskRow,
)
from fedit_server.storage.store import Store
from fedit_server.tasks.lifecycle import refuse_archived

_HOUR_S: Final = 3600


@dataclass
class Change:
    """What the audit log will say that a change replaced, and by what; digested, never shown."""

    before: object = None
    after: object = None


@dataclass(frozen=True)
class Admin:
    """A set-up data folder, opened beside the server or by it, and who asks."""

    home: Home
    config: ServerConfig
    identity: Identity
    store: Store
    clock: Clock = utc_now
    caller: Caller = LOCAL
    request: str = ""
    """The id of the request that this is about; empty for a local command."""

    @classmethod
    @asynccontextmanager
    async def open(cls, config: ServerConfig) -> AsyncIterator[Self]:
        """Open the folder's store; raises ConfigError C030 if no server was ever set up there."""
        home = Home(config.home)
        identity = load_identity(home)
        async with await Store.open(place_of(config, home.database), migrate=False) as store:
            yield cls(home, config, identity, store)

    def asked_by(self, caller: Caller, request: str) -> Self:
        """Return the same for one request of somebody."""
        return replace(self, caller=caller, request=request)

    @property
    def now_s(self) -> int:
        """The time in whole seconds."""
        return unix_seconds(self.clock())

    @property
    def gate(self) -> TokenGate:
        """Who turns tokens into callers."""
        return TokenGate(self.store.tokens, self.clock)

    @asynccontextmanager
    async def change(self, action: str, subject: str) -> AsyncIterator[Change]:
        """One transaction: the store's changes inside, and their line in the audit log, all of it or nothing.

        `action` is `resource.verb`, `subject` the id of what is changed.
        """
        async with self.store.database.writing() as db:
            said = Change()
            yield said
            await self.store.audit.append(
                Event(
                    who=self.caller.who,
                    role=self.caller.role,
                    action=action,
                    subject=subject,
                    request=self.request,
                    before=_digest(said.before),
                    after=_digest(said.after),
                ),
                self._sign,
                self.now_s,
            )
            await self.store.database.tell(db, "changed")

    def _sign(self, head: AuditHead) -> bytes:
        context = federation_context(self.identity.descriptor.federation_id)
        return seal(self.identity.keys.server, Kind.AUDIT_HEAD, context, head)

    @property
    def apart(self) -> bool:
        """Whether the enrolment authority lives apart from this server."""
        return self.identity.keys.authority is None

    def need_authority(self) -> None:
        """Raise ConfigError U031 where the enrolment authority lives apart: codes are made and kept there."""
        if self.apart:
            raise ConfigError(
                "this federation's enrolment authority lives apart from the server, and invites are made there",
                code="U031",
                fix="on its machine: fedit-server authority invite create",
            )

    def address(self) -> tuple[str, int]:
        """Return the host and port that the server has, or last had."""
        url = self.home.last_url()
        if self.config.advertise or url is None:
            return advertised(self.config, self.config.port)
        host, _, port = url.removeprefix("https://").rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def url(self) -> str:
        """The address that the server has, or last had."""
        host, port = self.address()
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    async def client(self, name: str) -> ClientRow:
        """Return a device by its id or the beginning of it; raises ConfigError U025 unless exactly one fits."""
        found = await self.store.members.clients_like(name.lower()) if name else []
        if len(found) != 1:
            what = "no client" if not found else "more than one client"
            raise ConfigError(
                f"{what} with an id that begins with {name}", code="U025", fix="fedit-server clients list"
            )
        return found[0]

    async def decide(self, task: str | None, number: int, decision: Decision, note: str) -> RoundRow:
        """Approve or reject a held round; a running server carries it out within seconds, else the next start does.

        Raises ConfigError U025 if there is no such round, U030 if it is not held, or decided already.
        """
        found = await self.round(task, number)
        if not await self.store.candidates.decide(found.round_id, decision, note):
            decided = found.candidate.decision if found.candidate else Decision.NONE
            what = f"was decided already ({decided})" if decided else f"is {found.state}, not held"
            raise ConfigError(f"round {number} {what}", code="U030", fix=f"fedit-server round show {number}")
        return await self.round(task, number)

    async def round(self, task: str | None, number: int) -> RoundRow:
        """Return one round; raises ConfigError U025 if there is none."""
        task_id = (await self.task(task)).task_id
        round_id = await self.store.readings.round_id(task_id, number)
        row = None if round_id is None else await self.store.rounds.round(round_id)
        if row is not None:
            return row
        raise ConfigError(f"task {task_id} has no round {number}", code="U025", fix="fedit-server round list")

    async def task(self, name: str | None) -> TaskRow:
        """Return a task by id, or the only one; raises ConfigError U025."""
        tasks = {task.task_id: task for task in await self.store.tasks.tasks()}
        if name is None and len(tasks) == 1:
            return next(iter(tasks.values()))
        if name is None or TaskId(name) not in tasks:
            missing = "say which task" if name is None else f"there is no task {name}"
            raise ConfigError(
                f"{missing}; there are {', '.join(tasks) or 'none'}", code="U025", fix="fedit-server status"
            )
        return tasks[TaskId(name)]

    async def folder(self, task: TaskRow, chosen: AdapterRow) -> Path:
        """Return a version's PEFT folder, written anew where another replica has published it."""
        folder = adapter_folder(self.home.adapters, chosen.task_id, chosen.version)
        if not folder.exists():
            blobs = open_blobs(self.config, self.home)
            content, public = await blobs.get(chosen.digest), await get_state(blobs, chosen.public_digest)
            edition = Edition(chosen.version, chosen.digest, chosen.parent_digest, chosen.round_no)
            await asyncio.to_thread(write_peft_folder, folder, task.document, content, edition, public)
        return folder

    async def roll_back(self, task: str | None, version: int) -> dict[str, Any]:
        """Make an earlier version's content the newest version; raises ConfigError U025 if there is none such, U120.

        A number once used is never used again, so devices accept it as the successor of what they know; a round that is
        open fails with this reason when it ends, for its updates belong to another adapter.
        """
        found = await self.task(task)
        if found.state is TaskState.ARCHIVED:
            refuse_archived(found.task_id)
        chosen = await self.version(found.task_id, version)
        newest = await self.store.tasks.newest_adapter(found.task_id)
        if chosen.digest == newest.digest:
            raise StateConflictError(
                f"version {version} is what there is now",
                code="U025",
                fix=f"fedit-server adapter list --task {found.task_id}",
            )
        made = replace(
            chosen, version=newest.version + 1, parent_digest=newest.digest, created_at=self.now_s
        )  # with the state of its method
        folder = adapter_folder(self.home.adapters, found.task_id, made.version)
        blobs = open_blobs(self.config, self.home)
        content, public = await blobs.get(chosen.digest), await get_state(blobs, chosen.public_digest)
        edition = Edition(made.version, made.digest, made.parent_digest, made.round_no)
        await asyncio.to_thread(write_peft_folder, folder, found.document, content, edition, public)
        async with self.change("adapter.rollback", found.task_id) as change:
            change.before, change.after = newest.digest, {"version": made.version, "content_of": version}
            await self.store.tasks.append_adapter(made)
        return {**self.adapter_data(made), "content_of": version}

    async def version(self, task_id: TaskId, version: int | None) -> AdapterRow:
        """Return a version, the newest for None; raises ConfigError U025."""
        versions = {row.version: row for row in await self.store.tasks.adapters(task_id)}
        chosen = max(versions) if version is None else version
        if chosen not in versions:
            raise ConfigError(
                f"task {task_id} has no adapter version {chosen}",
                code="U025",
                fix=f"fedit-server adapter list --task {task_id}",
            )
        if RetiredVersion(task_id, chosen) in await self.store.retentions.retired():
            raise ConfigError(
                f"the content of version {chosen} of {task_id} is gone: the task's retention does not keep it",
                code="U106",
                fix="restore a backup that still has it: fedit-server backup restore FILE --home NEW-DIR",
            )
        return versions[chosen]

    def adapter_data(self, row: AdapterRow) -> dict[str, Any]:
        """Return a version as the API and the commands show it."""
        return {
            "task": row.task_id,
            "version": row.version,
            "digest": row.digest,
            "parent_digest": row.parent_digest,
            "round": row.round_no,
            "folder": str(adapter_folder(self.home.adapters, row.task_id, row.version)),
        }


def _digest(said: object) -> str:
    """Return the digest of something as canonical JSON; nothing for None."""
    if said is None:
        return ""
    return digest_of(json.dumps(said, sort_keys=True, separators=(",", ":"), default=str).encode())


def coarse_age(seconds: int) -> str:
    """Return how long ago in coarse words: an operator sees who is gone, not when somebody sleeps."""
    if seconds < 2 * _HOUR_S:
        return "recently"
    if seconds < 24 * _HOUR_S:
        return "today"
    return "this week" if seconds < 7 * 24 * _HOUR_S else "longer ago"
