"""Held rounds over real HTTPS: devices hear of it, wait, and end up with the adapter that the operator approved."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedit_client.events import Event, EventKind
from fedit_protocol.task import Task
from fedit_server.storage.rows import Decision

from ..server.bases import make_base
from .federation import Federation, StepTrainer, exact_task, expected_adapter, federation, take_part


def held_task(base: Path, **gates: object) -> Task:
    """Return a task of one round whose step is always beyond the gate."""
    task = exact_task(base, 3).model_dump(mode="json")
    return Task.model_validate({**task, "gates": {"max_norm": 1e-6, "hold": ["max_norm"], **gates}})


def when_held(fed: Federation, decision: Decision) -> Callable[[Event], None]:
    """Return a listener that decides as soon as a device hears that its round is held."""
    deciding: list[asyncio.Task[bool]] = []

    async def decide() -> bool:
        store = fed.server.parts.store
        (row,) = await store.rounds.rounds()
        return await store.candidates.decide(row.round_id, decision, "")

    def listen(event: Event) -> None:
        if event.kind is EventKind.NOTICE and "is held by the organiser" in event.text and not deciding:
            deciding.append(asyncio.create_task(decide()))

    return listen


@pytest.mark.parametrize("decision", [Decision.APPROVE, Decision.REJECT])
async def test_devices_wait_for_a_held_round_and_follow_the_decision(tmp_path: Path, decision: Decision) -> None:
    base = make_base(tmp_path / "base", layers=2)
    trainers = [StepTrainer(examples=20, place=number, steps=3 + number) for number in range(3)]
    approved = decision is Decision.APPROVE
    heard: list[Event] = []
    async with federation(tmp_path, held_task(base)) as fed:
        decide, over = when_held(fed, decision), asyncio.Event()

        def listen(event: Event) -> None:
            heard.append(event)
            decide(event)
            if event.kind is EventKind.ROUND_LOST:
                over.set()

        clients = [fed.client(f"device-{number}", trainer) for number, trainer in enumerate(trainers)]
        staying = [asyncio.create_task(take_part(client, 1, listen)) for client in clients]
        if approved:
            await asyncio.gather(*staying)
            start, end = await fed.adapter(0), await fed.adapter(1)
            weights = dict.fromkeys(range(3), 2)
            assert np.array_equal(end, expected_adapter(start, {i: 3 + i for i in range(3)}, weights))
            assert {client.latest_adapter() for client in clients} == {
                tmp_path / f"device-{number}" / "adapters" / "exact" / "1" for number in range(3)
            }
        else:
            await over.wait()
            for task in staying:
                task.cancel()
            await asyncio.gather(*staying, return_exceptions=True)
    told = [event.text for event in heard]
    assert any("round 1 is held by the organiser: the step has norm" in text for text in told)
    if approved:
        assert sum("round 1 is committed" in text for text in told) == 3
    else:
        assert any("it has failed: rejected by the operator" in text for text in told)
