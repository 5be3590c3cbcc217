"""Signs an adapter version so that anybody can check it: its folder with card, lineage and signature."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedit_protocol.errors import FeditError
from fedit_protocol.ids import Digest
from fedit_protocol.lineage import Lineage, Made
from fedit_protocol.peft_folder import CARD, Edition, model_card
from fedit_protocol.task_record import head_of
from fedit_server.adapters.origin import check_folder, sign_folder, steps_of
from fedit_server.admin.operations import Admin
from fedit_server.home.files import write_atomically
from fedit_server.storage.rows import AdapterRow, RoundRow, TaskRow
from fedit_server.tasks.base_source import local_licence


async def sign_version(admin: Admin, task: TaskRow, chosen: AdapterRow) -> Path:
    """Return a version's folder with a card that says all that is known of it, its lineage and a signature.

    They are written when they are first asked for, and again after a change of the server's key.
    """
    folder = await admin.folder(task, chosen)
    if await asyncio.to_thread(_is_signed, folder, admin.identity.pin):
        return folder
    lineage = await lineage_of(admin, task, chosen)
    edition, of_round = await _edition(admin, chosen, lineage)
    origin = await admin.store.tasks.task_at(task.task_id, of_round.task_version) if of_round else None
    content = (origin or task).document.task
    known = replace(edition, licence=await asyncio.to_thread(local_licence, content.base))
    await asyncio.to_thread(write_atomically, folder / CARD, model_card(content, known).encode(), mode=0o644)
    await asyncio.to_thread(sign_folder, folder, lineage, admin.identity, admin.now_s)
    return folder


def _is_signed(folder: Path, pin: Digest) -> bool:
    try:
        return check_folder(folder, pin).pin == pin
    except FeditError:
        return False


async def lineage_of(admin: Admin, task: TaskRow, chosen: AdapterRow) -> Lineage:
    """Return where a version comes from."""
    store, base = admin.store, task.document.task.base
    versions = await store.lineages.versions(task.task_id, chosen.version)
    lines, head = head_of(await store.records.lines(task.task_id))
    described = admin.identity.descriptor
    return Lineage(
        federation_id=described.federation_id,
        federation=described.name[:200],
        task_id=task.task_id,
        title=task.document.task.title,
        base_model=base.model,
        base_revision=base.revision,
        base_digest=Digest(base.digest),
        record_lines=lines,
        record_head=head,
        steps=steps_of(versions, await store.tasks.documents(task.task_id)),
    )


async def _edition(admin: Admin, chosen: AdapterRow, lineage: Lineage) -> tuple[Edition, RoundRow | None]:
    """Return what the card says of a version, and the round whose content it has."""
    made = [step for step in lineage.steps if step.made is Made.ROUND]
    row = await admin.round(chosen.task_id, chosen.round_no) if chosen.round_no else None
    # Epsilon counts every round that was answered up to here, also those that were gone back on.
    newest = await admin.round(chosen.task_id, made[-1].round_no) if made else None
    report = _report(newest)
    tested: dict[int, float] = {}
    for step in (made[0], made[-1]) if made else ():
        loss = _report(await admin.round(chosen.task_id, step.round_no)).get("held_out_loss")
        if isinstance(loss, float):
            tested[step.version - 1] = loss  # measured before the round's devices trained
    edition = Edition(
        version=chosen.version,
        digest=chosen.digest,
        parent_digest=chosen.parent_digest,
        round_no=chosen.round_no,
        survivors=row.figures.survivors if row and row.figures else 0,
        rounds=len(made),
        epsilon=report.get("epsilon"),
        delta=report.get("delta"),
        tested=tuple(tested.items()),
    )
    return edition, row


def _report(row: RoundRow | None) -> dict[str, Any]:
    return {} if row is None or row.figures is None else row.figures.report
