"""The devices of the federation: what their owners called them and whether they are still there, nothing finer."""

from collections.abc import Mapping

from fedit_protocol.ids import ClientId
from fedit_server.admin.operations import coarse_age
from fedit_server.dashboard.views.model import PER_PAGE, View
from fedit_server.storage.rows import ClientRow, ClientState
from fedit_server.storage.store import Store


class ClientLine(View):
    """One device."""

    id: str
    label: str
    device_kind: str
    client_version: str
    state: ClientState
    last_seen: str
    """In coarse words."""
    evaluator: bool
    suspect_in: tuple[str, ...]
    """Tasks in which its cohorts keep being far from the others."""


class WaitingLine(View):
    """A device that has been invited and waits to be let in."""

    code: str
    """What its owner reads out: it is derived from the device's key."""
    label: str
    invite: str


class ClientsPage(View):
    """One page of devices, those that joined last first."""

    waiting: tuple[WaitingLine, ...]
    counts: dict[str, int]
    kinds: dict[str, int]
    state: str
    """Only devices in this state are listed; empty: all."""
    clients: tuple[ClientLine, ...]
    offset: int
    more: bool


async def clients_page(store: Store, now_s: int, state: ClientState | None, offset: int) -> ClientsPage:
    """Return up to PER_PAGE devices from `offset`."""
    rows = await store.readings.client_lines(PER_PAGE + 1, offset, state)
    evaluators = await store.candidates.evaluators()
    suspects = await _suspects(store)
    counts = await store.readings.client_counts()
    waiting = await store.approvals.waiting()
    return ClientsPage(
        waiting=tuple(WaitingLine(code=one.code, label=one.label, invite=one.invite_id) for one in waiting),
        counts={str(name): count for name, count in counts.items()},
        kinds=await store.readings.device_kinds(),
        state="" if state is None else str(state),
        clients=tuple(_line(row, now_s, row.client_id in evaluators, suspects) for row in rows[:PER_PAGE]),
        offset=offset,
        more=len(rows) > PER_PAGE,
    )


async def _suspects(store: Store) -> dict[ClientId, list[str]]:
    found: dict[ClientId, list[str]] = {}
    for name in await store.readings.task_names():
        for client, held in (await store.suspicions.of_task(name.task_id)).items():
            if held.is_named:
                found.setdefault(client, []).append(name.task_id)
    return found


def _line(row: ClientRow, now_s: int, evaluator: bool, suspects: Mapping[ClientId, list[str]]) -> ClientLine:
    return ClientLine(
        id=row.client_id,
        label=row.label,
        device_kind=row.device_kind,
        client_version=row.client_version,
        state=row.state,
        last_seen=coarse_age(now_s - row.last_seen),
        evaluator=evaluator,
        suspect_in=tuple(suspects.get(row.client_id, ())),
    )
