"""A checked task becomes a published one: its base is looked at, its adapter laid out, its version 0 made."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from fedit_protocol.adapter import first_adapter
from fedit_protocol.catalogue import TaskState
from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest
from fedit_protocol.messages import NoiseSpec
from fedit_protocol.method_rules import loses_side
from fedit_protocol.methods.side_delta import SIDE, read
from fedit_protocol.peft_folder import Edition
from fedit_protocol.round_plan import sum_specs
from fedit_protocol.secagg.sensitivity import NoisySum, noisy_sum
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.task_record import ChangeKind
from fedit_server.adapters.peft_folder import write_peft_folder
from fedit_server.adapters.state import get_state
from fedit_server.adapters.tensors import to_safetensors
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage import BlobStore
from fedit_server.storage.rows import RoundState, TaskRow
from fedit_server.storage.store import Store
from fedit_server.storage.task_records import Deed, Sign
from fedit_server.storage.tasks import Publication
from fedit_server.tasks.base_source import read_base
from fedit_server.tasks.files import resolve
from fedit_server.tasks.lifecycle import OPERATOR, refuse_archived
from fedit_server.tasks.start_adapter import carried_on, kept_start, started, with_start


@dataclass(frozen=True)
class Publisher:
    """Publishes tasks into one server's store; `base` is a local copy of the base model, if the operator gave one.

    `sign` signs the line in the task's record, which says `by` whom; `owner` is who answers for the task, if said.
    `start` is the place of the adapter that a new task begins with, if not with an untrained one.
    """

    store: Store
    blobs: BlobStore
    adapters: Path
    sign: Sign
    base: Path | None = None
    by: str = OPERATOR
    owner: str = ""
    start: Path | None = None

    async def publish(self, task: Task, now_s: int, *, draft: bool = False) -> bool:
        """Publish a new task or a new version; returns False if nothing has changed. Raises as `prepare`."""
        publication = await self.prepare(task, now_s, draft=draft)
        if publication is not None:
            await self.store.tasks.publish(publication, now_s)
        return publication is not None

    async def prepare(self, task: Task, now_s: int, *, draft: bool = False) -> Publication | None:
        """Look at the base and store version 0; what is left is one transaction. None if nothing has changed.

        `draft`: a new one is kept back. Raises ConfigError C015 for a changed task with an old version number, C016 for
        a change that the present adapter does not fit, U120 for an archived task; ModelError if the base is absent or
        not the pinned one; DataError D048 for an adapter to begin with that does not fit.
        """
        known = await self.store.tasks.task(task.id)
        task = task if known is None else carried_on(Task.model_validate_json(known.source), task)
        source = task.model_dump_json().encode()
        if known is not None and known.state is TaskState.ARCHIVED:
            refuse_archived(task.id)
        if known is not None and known.state is not TaskState.DRAFT and not _is_newer(task, known):
            return None
        if known is not None and known.source == source:
            return None
        base = await asyncio.to_thread(read_base, task.base, self.base)
        document = resolve(task, base)
        digest, newest_round = Digest(task.adapter.start), None
        if known is not None and known.state is not TaskState.DRAFT:
            check_succession(known.document, document)
            if loses_side(known.document.task.method.name, document.task.method.name):
                newest_round = await self.store.rounds.newest_no(task.id)
            await check_side(self.store, self.blobs, known.document, document)
        else:
            document, content = await self._first(document)
            source = with_start(task, document.task.adapter.start).model_dump_json().encode()
            digest = await self.blobs.put(content)
            folder = adapter_folder(self.adapters, task.id, 0)
            edition = Edition(version=0, digest=digest, parent_digest="", round_no=0, survivors=0)
            await asyncio.to_thread(write_peft_folder, folder, document, content, edition)
        await self.blobs.put(base.manifest)
        kind = ChangeKind.CREATED if known is None else ChangeKind.EDITED
        deed = Deed(kind, self.by, "", now_s, self.sign)
        return Publication(document, source, digest, deed, self.owner, draft, newest_round)

    async def _first(self, document: TaskDocument) -> tuple[TaskDocument, bytes]:
        """Return version 0, and the document, which names it where it is an adapter trained before."""
        if self.start is not None:
            return await asyncio.to_thread(started, document, self.start)
        if document.task.adapter.start:
            return document, await kept_start(document, self.blobs)
        return document, to_safetensors(document.layout, first_adapter(document.layout, document.task.adapter.seed))


def _is_newer(task: Task, known: TaskRow) -> bool:
    """Say whether the task is a new version of the known one; the same version must be the same task."""
    if task.version > known.version:
        return True
    if task.version == known.version and Task.model_validate_json(known.source) == task:
        return False
    raise ConfigError(
        f"the task {task.id} has changed, but its version is {task.version} and version {known.version} is published;"
        " people agreed to what that one says",
        code="C015",
        where=task.id,
        fix=f"set version = {known.version + 1} in the task file",
    )


def check_succession(old: TaskDocument, new: TaskDocument) -> None:
    """A new version goes on with the adapter that there is, so base and layout stay, and what it began with."""
    began = (old.task.adapter.start, new.task.adapter.start)
    if old.layout != new.layout or old.task.base.digest != new.task.base.digest or began[0] != began[1]:
        raise ConfigError(
            "another base model, rank, start or target modules need a task of their own: the adapter would not fit",
            code="C016",
            where=new.task.label,
            fix="give the task another id",
        )
    if old.task.adapter.alpha != new.task.adapter.alpha:
        raise ConfigError(
            "another alpha needs a task of its own: what was learned counts alpha / rank times, and would be scaled",
            code="C016",
            where=new.task.label,
            fix=f"keep adapter.alpha = {old.task.adapter.alpha:g}, or give the task another id",
        )
    if old.lora is not None and (old.task.method, old.task.adapter.seed) != (new.task.method, new.task.adapter.seed):
        raise ConfigError(
            "another method or seed needs a task of its own: the adapter is built from numbers that mean something"
            " under these only",
            code="C016",
            where=new.task.label,
            fix="give the task another id",
        )
    if _noise(old) != _noise(new):
        raise ConfigError(
            "other noise, clip or rounding needs a task of its own: epsilon counts all rounds of a task as alike",
            code="C016",
            where=new.task.label,
            fix="give the task another id",
        )


async def check_side(store: Store, blobs: BlobStore, old: TaskDocument, new: TaskDocument) -> None:
    """Raise ConfigError C016 for a method that does not carry on the side delta that there is, or that a round makes.

    What averaging has lost lies in it: without it the same factors are another model.
    """
    name, task_id = old.task.method.name, old.task.id
    if not loses_side(name, new.task.method.name):
        return
    newest = await store.tasks.newest_adapter(task_id)
    there = read(await get_state(blobs, newest.public_digest), SIDE)
    if there or await store.rounds.newest(task_id, RoundState.OPEN) or await store.rounds.held(task_id):
        raise ConfigError(
            f"method.name = {new.task.method.name} does not carry on the side delta of {name}: a part of what the task"
            " has learned lies there, and would be lost",
            code="C016",
            where=new.task.label,
            fix=f"keep method.name = {name}; or begin another task with all of it: fedit-server adapter export"
            f" --task {task_id} --out FOLDER, then fedit-server task create FILE --start FOLDER",
        )


def _noise(document: TaskDocument) -> tuple[NoiseSpec, NoisySum] | None:
    if document.task.privacy is None:
        return None
    ring = sum_specs(document)[0].ring
    return (ring.noise, noisy_sum(ring)) if ring.noise else None
