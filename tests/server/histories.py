"""A long history in a store, written in bulk: what pages and curves are measured on."""

import json
import math
from collections.abc import Iterable
from typing import Any

from sqlalchemy import insert

from fedit_protocol.encoding import digest_of
from fedit_protocol.evaluation import CategoryLoss, EvaluationReport
from fedit_protocol.ids import Digest, RoundId, TaskId
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.task import TaskDocument
from fedit_server.home.folder import Identity
from fedit_server.rounds.offers import RoundFacts, signed_offer
from fedit_server.storage.rows import AdapterRow, ClientState
from fedit_server.storage.store import Store
from fedit_server.storage.tables import (
    adapters,
    clients,
    cohorts,
    evaluations,
    evaluators,
    invited,
    rounds,
    stage_times,
)

NOTES = TaskId("notes")
BEGAN = 1_700_000_000
EVERY_S = 900
"""A round every quarter of an hour."""
RESULT = bytes(500)
"""As long as a signed result."""


def _report() -> bytes:
    """A signed report with three categories; the losses beside it in the table are another round's."""
    categories = (
        CategoryLoss(name="letters", loss_before=2.0, loss_after=1.75, tokens=900),
        CategoryLoss(name="lists", loss_before=1.5, loss_after=1.625, tokens=500),
        CategoryLoss(name="=notes, old", loss_before=3.0, loss_after=2.5, tokens=100),
    )
    report = EvaluationReport(
        task_id=NOTES,
        round_id=RoundId("0" * 32),
        adapter_digest=Digest(_digest(1)),
        parent_digest=Digest(_digest(0)),
        loss_before=2.0,
        loss_after=1.75,
        rows=200,
        tokens=9000,
        categories=categories,
    )
    return seal(SigningKey(bytes(32)), Kind.EVALUATION, bytes(32), report)


def offer_of(identity: Identity, document: TaskDocument) -> bytes:
    """Return a signed offer of a masked round, as every round of the history has it."""
    digest = Digest(_digest(0))
    newest = AdapterRow(document.task.id, 0, digest, "", 0, BEGAN)
    facts = RoundFacts(RoundId("0" * 32), 1, newest, log_head=b"head", now_s=BEGAN)
    return signed_offer(identity, document, facts)


async def add_clients(store: Store, count: int, label: str = "desk {}") -> list[str]:
    """Enrol devices without certificates; returns their ids."""
    names = [f"{number:064x}" for number in range(1, count + 1)]
    await _insert(
        store,
        clients,
        (
            {
                "client_id": name,
                "label": label.format(number),
                "device_kind": ("nvidia-8gb", "cpu", "apple")[number % 3],
                "state": ClientState.ACTIVE,
                "enrolled_at": BEGAN + number,
                "last_seen": BEGAN + number * 3600,
                "invite_id": None,
            }
            for number, name in enumerate(names)
        ),
    )
    return names


async def add_rounds(
    store: Store, count: int, names: list[str], offer: bytes = RESULT, *, cohort: int = 12, reports: bool = True
) -> None:
    """Add `count` rounds that are over to the task `notes`: every 25th failed, the losses fall slowly."""
    numbers = range(1, count + 1)
    await _insert(store, rounds, (_round(number, cohort, offer) for number in numbers))
    await _insert(store, cohorts, (_cohort(number, cohort) for number in numbers))
    await _insert(
        store,
        invited,
        (
            {"round_id": f"{n:032x}", "client_id": names[(n + i) % len(names)], "cohort_id": 0}
            for n in numbers
            for i in range(min(cohort, len(names)))
        ),
    )
    stages = ("advertise_keys", "share_keys", "acknowledge", "masked_update", "unmask", "sum", "done")
    await _insert(
        store,
        stage_times,
        (
            {"round_id": f"{n:032x}", "cohort_id": 0, "stage": stage, "entered_at": BEGAN + n * EVERY_S + 40 * place}
            for n in numbers
            for place, stage in enumerate(("advertise_keys", "failed") if _failed(n) else stages)
        ),
    )
    made = [number for number in numbers if not _failed(number)]
    await _insert(
        store,
        adapters,
        (
            {"task_id": NOTES, "version": place, "digest": _digest(place), "parent_digest": _digest(place - 1),
             "public_digest": "", "kept_digest": "",
             "round_no": number, "created_at": BEGAN + number * EVERY_S + 300}
            for place, number in enumerate(made, 1)
        ),
    )  # fmt: skip
    if reports:
        await _insert(store, evaluators, ({"client_id": name, "appointed_at": BEGAN} for name in names[:2]))
        await _insert(
            store, evaluations, (_evaluation(n, names[place], 0.1 * place) for n in made for place in range(2))
        )


def _failed(number: int) -> bool:
    return number % 25 == 0


def _digest(version: int) -> str:
    return digest_of(str(version).encode())


def _loss(number: int) -> float:
    return 1.2 + 1.4 * math.exp(-number / 800) + 0.02 * math.sin(number / 7)


def _round(number: int, cohort: int, offer: bytes) -> dict[str, Any]:
    failed, opened = _failed(number), BEGAN + number * EVERY_S
    report = {
        "examples": 100 * cohort,
        "train_loss": _loss(number),
        "held_out_loss": _loss(number) + 0.1,
        "clipped_fraction": 0.01,
    }
    return {
        "round_id": f"{number:032x}",
        "task_id": NOTES,
        "task_version": 1,
        "round_no": number,
        "state": "failed" if failed else "committed",
        "offer": offer,
        "opened_at": opened,
        "ended_at": opened + 300,
        "result": RESULT,
        "problem": "urn:fedit:error:round-failed" if failed else "",
        "reason": "2 of 3 devices joined, 3 are needed" if failed else "",
        "survivors": None if failed else cohort - number % 3,
        "weight": None if failed else 10 * cohort,
        "report": None if failed else json.dumps(report),
    }


def _cohort(number: int, cohort: int) -> dict[str, Any]:
    failed = _failed(number)
    came = 2 if failed else cohort - number % 2
    survivors = 0 if failed else cohort - number % 3
    progress = {
        "joined": came,
        "shared": 0 if failed else came,
        "acknowledged": 0 if failed else came,
        "sharers": 0 if failed else came,
        "sum": 1,
        "uploaded": min(came, survivors),
        "survivors": min(came, survivors),
        "answered": min(came, survivors),
    }
    return {
        "round_id": f"{number:032x}",
        "cohort_id": 0,
        "stage": "failed" if failed else "done",
        "progress": json.dumps(progress),
        "deadline": None,
        "reason": "2 of 3 devices joined, 3 are needed" if failed else "",
        "survivors": None if failed else survivors,
        "weight": None if failed else 10 * cohort,
        "report": None,
    }


def _evaluation(number: int, name: str, harder: float) -> dict[str, Any]:
    return {
        "round_id": f"{number:032x}",
        "client_id": name,
        "envelope": REPORT,
        "loss_before": _loss(number - 1) + harder,
        "loss_after": _loss(number) + harder,
        "rows": 200,
        "tokens": 9000,
        "received_at": BEGAN + number * EVERY_S + 400,
    }


REPORT = _report()


async def _insert(store: Store, table: Any, rows: Iterable[dict[str, Any]]) -> None:
    async with store.database.writing() as db:
        await db.execute(insert(table), list(rows))
