"""Devices and evaluators: listing, excluding, keeping out for a while, forgetting, appointing."""

from collections.abc import Mapping
from dataclasses import asdict

from fedit_protocol.ids import ClientId, TaskId
from fedit_server.admin.models.clients import (
    ClientChanged,
    ClientInfo,
    ClientPage,
    ClientQuery,
    EvaluatorChanged,
    EvaluatorList,
    FarOff,
)
from fedit_server.admin.operations import Admin, coarse_age
from fedit_server.authority.authority import Authority
from fedit_server.keys.log_book import LogBook
from fedit_server.problems import StateConflictError
from fedit_server.rounds.suspicion import Suspicion
from fedit_server.storage.rows import ClientRow, ClientState

Held = Mapping[TaskId, Mapping[ClientId, Suspicion]]


async def list_clients(admin: Admin, query: ClientQuery) -> ClientPage:
    """Return devices by id; when they were last seen in coarse words."""
    rows = await admin.store.members.clients_after(query.after or "", query.limit + 1)
    held = await _held(admin)
    shown = rows[: query.limit]
    more = len(rows) > query.limit
    return ClientPage(
        clients=tuple(_info(admin, row, held) for row in shown), next=shown[-1].client_id if more else None
    )


async def show_client(admin: Admin, name: str) -> ClientInfo:
    """Return a device by its id or how that begins; raises ConfigError U025."""
    return _info(admin, await admin.client(name), await _held(admin))


async def revoke_client(admin: Admin, name: str) -> ClientChanged:
    """Exclude a device for good; raises ConfigError U025.

    A running server refuses it from then on; a round that is open already ends as it began. Where the authority lives
    apart it is blocked here, and its certificate is in force until the authority revokes it.
    """
    found = await admin.client(name)
    described, keys = admin.identity.descriptor, admin.identity.keys.authority
    salt = await admin.store.members.federation_salt(described.federation_id, admin.now_s)
    async with admin.change("client.revoke", found.client_id) as change:
        change.before = str(found.state)
        if keys is None:
            await admin.store.admissions.block(found.client_id)
        else:
            store = admin.store
            book = LogBook(store.key_log)
            authority = Authority(keys, described.federation_id, store.members, book, salt, admin.clock)
            await authority.revoke(found.client_id)
        changed = await admin.client(found.client_id)
        change.after = str(changed.state)
    return _changed(admin, changed)


async def block_client(admin: Admin, name: str) -> ClientChanged:
    """Keep a device out of this server until it is unblocked; raises ConfigError U025, StateConflictError U030."""
    return await _switch(admin, name, ClientState.ACTIVE, ClientState.BLOCKED)


async def unblock_client(admin: Admin, name: str) -> ClientChanged:
    """Let a blocked device in again; raises ConfigError U025, StateConflictError U030."""
    return await _switch(admin, name, ClientState.BLOCKED, ClientState.ACTIVE)


async def _switch(admin: Admin, name: str, before: ClientState, after: ClientState) -> ClientChanged:
    found = await admin.client(name)
    if found.state is after:
        return _changed(admin, found)
    if found.state is not before:
        raise StateConflictError(f"this device is {found.state}, not {before}", fix="fedit-server clients list")
    if after is ClientState.ACTIVE and await admin.store.members.certificate(found.client_id, admin.now_s) is None:
        raise StateConflictError(
            "this device has no valid certificate any more, so it has to join again", fix="fedit-server invite create"
        )
    verb = "client.block" if after is ClientState.BLOCKED else "client.unblock"
    async with admin.change(verb, found.client_id) as change:
        await admin.store.members.set_state(found.client_id, before, after)
        change.before, change.after = str(before), str(after)
    return _changed(admin, await admin.client(found.client_id))


async def forget_client(admin: Admin, name: str) -> ClientChanged:
    """Remove what is known of a device that is gone, but for its key; raises ConfigError U025, StateConflictError U030.

    The key stays: an excluded one must not come back, and the log of devices names it for good.
    """
    found = await admin.client(name)
    if found.state in (ClientState.ACTIVE, ClientState.BLOCKED):
        raise StateConflictError(
            f"this device is {found.state}; only one that left or was excluded can be forgotten",
            fix=f"fedit-server clients revoke {found.client_id[:12]}",
        )
    async with admin.change("client.forget", found.client_id):
        await admin.store.members.forget(found.client_id)
    return _changed(admin, await admin.client(found.client_id))


async def list_evaluators(admin: Admin) -> EvaluatorList:
    """Return the devices whose reported losses count."""
    held = await _held(admin)
    named = sorted(await admin.store.candidates.evaluators())
    rows = [await admin.store.members.client(client) for client in named]
    return EvaluatorList(evaluators=tuple(_info(admin, row, held) for row in rows if row is not None))


async def appoint(admin: Admin, name: str, *, may: bool) -> EvaluatorChanged:
    """Let a device report losses of candidates, or no more; raises ConfigError U025."""
    found = await admin.client(name)
    async with admin.change("evaluator.add" if may else "evaluator.remove", found.client_id):
        if may:
            await admin.store.candidates.appoint(found.client_id, admin.now_s)
        else:
            await admin.store.candidates.dismiss(found.client_id)
    return EvaluatorChanged(id=found.client_id)


async def _held(admin: Admin) -> Held:
    tasks = await admin.store.readings.task_names()
    return {task.task_id: await admin.store.suspicions.of_task(task.task_id) for task in tasks}


def _info(admin: Admin, row: ClientRow, held: Held) -> ClientInfo:
    far_off = tuple(
        FarOff(task=task, **asdict(of_task[row.client_id]), named=of_task[row.client_id].is_named)
        for task, of_task in held.items()
        if row.client_id in of_task and of_task[row.client_id].flagged
    )
    return ClientInfo(
        id=row.client_id,
        label=row.label,
        device_kind=row.device_kind,
        client_version=row.client_version,
        state=str(row.state),
        last_seen=coarse_age(admin.now_s - row.last_seen),
        far_off=far_off,
    )


def _changed(admin: Admin, row: ClientRow) -> ClientChanged:
    return ClientChanged(id=row.client_id, state=str(row.state), logged=not admin.apart)
