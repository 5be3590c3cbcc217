"""What operators do to tasks: make, edit, open, pause, resume, close and archive them, and read their records."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedit_protocol.catalogue import TaskState
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.task import Task
from fedit_protocol.task_record import check_record
from fedit_server.access.tokens import LOCAL
from fedit_server.admin.models.tasks import (
    EditedTask,
    MadeTask,
    NewTask,
    RetentionInfo,
    RetentionRules,
    SettingChange,
    TaskChanged,
    TaskChangeLine,
    TaskFile,
    TaskPatch,
    TaskRecordReply,
    WholeTask,
)
from fedit_server.admin.operations import Admin
from fedit_server.problems import QuotaError
from fedit_server.storage.opening import open_blobs
from fedit_server.storage.rows import TaskRow
from fedit_server.tasks.base_source import read_base
from fedit_server.tasks.editing import EditPlan, plan_edit, task_toml
from fedit_server.tasks.files import check_task, resolve
from fedit_server.tasks.lifecycle import OPERATOR, Lifecycle, Verb, refuse_archived
from fedit_server.tasks.modes import check_allowed, pinned_modes
from fedit_server.tasks.publishing import Publisher, check_side, check_succession
from fedit_server.tasks.retention import Retention


@dataclass(frozen=True)
class Brought:
    """What an operator has on this machine for a task: a copy of its base, an adapter that it begins with."""

    base: Path | None = None
    start: Path | None = None


@dataclass(frozen=True)
class TaskDesk:
    """The tasks of a data folder, whoever asks; who it is stands in each record and in the audit log."""

    admin: Admin

    async def create(
        self, task: Task, *, draft: bool = False, owner: str = "", base: Path | None = None, start: Path | None = None
    ) -> TaskRow:
        """Publish a new task, or keep it as a draft; a running server takes it up within seconds.

        `start` is a PEFT folder that it begins with, instead of an untrained adapter. Raises ConfigError U121 if there
        is a task with this id, QuotaError U115, C037 or C038 for a mode that is not allowed here, DataError D048 for a
        start that does not fit; what reading the base raises.
        """
        known = await self.admin.store.tasks.task(task.id)
        if known is not None:
            raise ConfigError(
                f"there is a task {known.document.task.label} already ({known.state})",
                code="U121",
                where=task.title,
                fix="give the new one another id in its file"
                if known.state is TaskState.ARCHIVED
                else f"fedit-server task edit {task.id} FILE",
            )
        self._check_mode(task)
        kept = [row for row in await self.admin.store.tasks.tasks() if row.state is not TaskState.ARCHIVED]
        if len(kept) >= self.admin.config.most_tasks:
            raise QuotaError(
                f"there are {len(kept)} tasks, as many as the settings allow",
                fix="archive one: fedit-server task list, fedit-server task archive ID; or raise most_tasks",
            )
        await self._publish(task, "task.create", Brought(base, start), owner, draft=draft)
        return await self.admin.task(task.id)

    async def plan_edit(self, name: str | None, wanted: Task, base: Path | None = None) -> EditPlan:
        """Return what an edit would change, checked as far as publishing checks it; nothing is written.

        Raises ConfigError U120 for an archived task, C120, U125, C015, C016.
        """
        known = await self.admin.task(name)
        if known.state is TaskState.ARCHIVED:
            refuse_archived(known.task_id)
        plan = plan_edit(known, wanted)
        self._check_mode(plan.task)
        if not plan.draft:
            document = resolve(plan.task, await asyncio.to_thread(read_base, plan.task.base, base))
            check_succession(known.document, document)
            blobs = open_blobs(self.admin.config, self.admin.home)
            await check_side(self.admin.store, blobs, known.document, document)
        return plan

    async def edit(self, name: str | None, wanted: Task, base: Path | None = None) -> EditPlan:
        """Publish a new version; each device waits with it until its owner has agreed. Raises as `plan_edit`.

        An open round ends under its own version. A draft is replaced, and a paused task stays paused.
        """
        plan = await self.plan_edit(name, wanted, base)
        await self._publish(plan.task, "task.edit", Brought(base), "")
        return plan

    async def change(self, name: str | None, verb: Verb, reason: str = "") -> TaskRow:
        """Open, pause, resume, close or archive a task; raises ConfigError U025, U120."""
        found = await self.admin.task(name)
        lifecycle = Lifecycle(self.admin.store, self.admin.identity, self.admin.clock)
        async with self.admin.change(f"task.{verb}", found.task_id) as change:
            change.before = found.state
            changed = await lifecycle.change(found.task_id, verb, self._by, reason)
            change.after = changed.state
        return changed

    async def record(self, name: str | None) -> list[dict[str, Any]]:
        """Return a task's record, checked against the server's key; raises SecurityError T120."""
        found = await self.admin.task(name)
        envelopes = await self.admin.store.records.lines(found.task_id)
        described = self.admin.identity.descriptor
        lines = check_record(envelopes, described.federation_id, found.task_id, IdentityKey(described.server_key))
        return [
            {**line.model_dump(mode="json"), "digest": digest_of(envelope)}
            for line, envelope in zip(lines, envelopes, strict=True)
        ]

    def _check_mode(self, task: Task) -> None:
        check_allowed(task, self.admin.config, pinned_modes(self.admin.home))

    @property
    def _by(self) -> str:
        return OPERATOR if self.admin.caller == LOCAL else self.admin.caller.who

    async def _publish(self, task: Task, action: str, brought: "Brought", owner: str, *, draft: bool = False) -> None:
        """Look at the base first, which may take long; only what is written in the end keeps other writers waiting."""
        admin = self.admin
        sign = admin.identity.sign_change
        blobs = open_blobs(admin.config, admin.home)
        publisher = Publisher(
            admin.store, blobs, admin.home.adapters, sign, brought.base, self._by, owner, brought.start
        )
        publication = await publisher.prepare(task, admin.now_s, draft=draft)
        if publication is not None:
            async with admin.change(action, task.id) as change:
                change.after = publication.document.digest
                await admin.store.tasks.publish(publication, admin.now_s)


async def create_task(admin: Admin, wanted: NewTask) -> MadeTask:
    """Publish a task, or keep it as a draft; raises ConfigError U121, C013 and what TaskDesk.create raises."""
    task = check_task(wanted.task, "the request")
    made = await TaskDesk(admin).create(task, draft=wanted.draft, owner=wanted.owner)
    if wanted.retention is not None:
        await keep(admin, made.task_id, wanted.retention)
    return MadeTask(task=made.task_id, version=made.version, state=str(made.state), owner=made.owner)


async def edit_task(admin: Admin, task_id: str, wanted: TaskPatch) -> EditedTask:
    """Publish a new version with some settings changed; raises ConfigError U025, U120, U125, C013, C120."""
    known = await admin.task(task_id)
    merged = merge_patch(json.loads(known.source), wanted.changes)
    return await _edited(admin, task_id, merged, dry_run=wanted.dry_run)


async def replace_task(admin: Admin, task_id: str, wanted: WholeTask) -> EditedTask:
    """Publish a new version that is as the request says; raises as `edit_task`."""
    edited = await _edited(admin, task_id, wanted.task, dry_run=wanted.dry_run)
    if wanted.retention is not None and not wanted.dry_run:
        await keep(admin, task_id, wanted.retention)
    return edited


async def _edited(admin: Admin, task_id: str, values: dict[str, Any], *, dry_run: bool) -> EditedTask:
    task, desk = check_task(values, "the request"), TaskDesk(admin)
    plan = await (desk.plan_edit(task_id, task) if dry_run else desk.edit(task_id, task))
    changes = tuple(SettingChange(**vars(change)) for change in plan.changes)
    return EditedTask(**{**plan.as_data(), "changes": changes}, published=not dry_run)


async def task_file(admin: Admin, task_id: str) -> TaskFile:
    """Return a task as a file to edit; raises ConfigError U025."""
    found = await admin.task(task_id)
    return TaskFile(task=found.task_id, toml=task_toml(found))


async def kept(admin: Admin, task_id: str) -> RetentionInfo:
    """Return what a task keeps; raises ConfigError U025."""
    found = await admin.task(task_id)
    return RetentionInfo(task=found.task_id, **(await admin.store.retentions.rules(found.task_id)).model_dump())


async def keep(admin: Admin, task_id: str, wanted: RetentionRules) -> RetentionInfo:
    """Replace all rules of what a task keeps; raises ConfigError U025."""
    found = await admin.task(task_id)
    new = Retention(**wanted.model_dump())
    async with admin.change("task.retention", found.task_id) as change:
        change.before = (await admin.store.retentions.rules(found.task_id)).model_dump()
        change.after = new.model_dump()
        await admin.store.retentions.give(found.task_id, new)
    return RetentionInfo(task=found.task_id, **new.model_dump())


def merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Return `target` changed by a JSON merge patch (RFC 7396, section 2): null removes, objects are merged."""
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            before = merged.get(name)
            merged[name] = merge_patch(before if isinstance(before, dict) else {}, value)
        else:
            merged[name] = value
    return merged


async def change_task(admin: Admin, task_id: str, verb: Verb, reason: str = "") -> TaskChanged:
    """Do to a task what the verb says; raises ConfigError U025, U120."""
    changed = await TaskDesk(admin).change(task_id, verb, reason)
    return TaskChanged(task=changed.task_id, state=str(changed.state))


async def task_record(admin: Admin, task_id: str) -> TaskRecordReply:
    """Return a task's record, checked; raises ConfigError U025."""
    lines = await TaskDesk(admin).record(task_id)
    kept = TaskChangeLine.model_fields
    return TaskRecordReply(changes=tuple(TaskChangeLine(**{name: line[name] for name in kept}) for line in lines))
