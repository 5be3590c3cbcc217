"""Exports an adapter version that anybody can check: its folder with card, lineage and signature."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import Digest
from fedit_protocol.lineage import Lineage, Made
from fedit_protocol.peft_folder import CARD, Edition, model_card
from fedit_protocol.task_record import head_of
from fedit_server.adapters.origin import sign_folder, steps_of
from fedit_server.admin.operations import Admin
from fedit_server.home.files import write_atomically
from fedit_server.rounds.services import adapter_folder
from fedit_server.storage.rows import AdapterRow, RoundRow, TaskRow
from fedit_server.tasks.base_source import local_licence


async def export_adapter(admin: Admin, task: str | None, version: int | None, out: Path) -> dict[str, Any]:
    """Copy a version's folder to `out`, with a card that says all that is known of it, its lineage and a signature.

    Raises ConfigError U025 if there is no such version, U027 if `out` exists.
    """
    found = await admin.task(task)
    chosen = await admin.version(found.task_id, version)
    if out.exists():
        raise ConfigError(f"{out} exists already", code="U027", fix="name a folder that does not exist yet")
    lineage = await lineage_of(admin, found, chosen)
    edition, of_round = await _edition(admin, chosen, lineage)
    origin = await admin.store.tasks.task_at(found.task_id, of_round.task_version) if of_round else None
    content = (origin or found).document.task
    known = replace(edition, licence=await asyncio.to_thread(local_licence, content.base))
    await asyncio.to_thread(shutil.copytree, adapter_folder(admin.home.adapters, found.task_id, chosen.version), out)
    await asyncio.to_thread(write_atomically, out / CARD, model_card(content, known).encode(), mode=0o644)
    await asyncio.to_thread(sign_folder, out, lineage, admin.identity, admin.now_s)
    return {**admin.adapter_data(chosen), "folder": str(out.absolute()), "pin": admin.identity.pin}


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
