"""A cohort of five over real HTTPS: whoever is lost, and wherever, the sum is the plain sum of those who stayed."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from fedit_client.events import Event, EventKind

from ..server.bases import make_base
from .federation import (
    StepTrainer,
    Wire,
    all_take_part,
    exact_task,
    expected_adapter,
    federation,
    take_part,
)

LOST = 2
"""The number of the device that vanishes."""

CASES = {
    "nobody is lost": ("", True),
    "lost before it joins": ("join", False),
    "lost before it deals shares": ("shares", False),
    "lost after it dealt shares": ("ack", False),
    "lost during its upload": ("during upload", False),
    "lost after its upload, before unmasking": ("unmask", True),
}


@pytest.mark.parametrize(("verb", "counts"), CASES.values(), ids=CASES)
async def test_the_sum_is_that_of_the_survivors(verb: str, counts: bool, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", layers=12)
    trainers = [StepTrainer(examples=20 + 10 * number, place=number, steps=3 + number) for number in range(5)]
    async with federation(tmp_path, exact_task(base, 5)) as fed:
        clients = [
            fed.client(f"device-{number}", trainer, Wire(verb if number == LOST else ""))
            for number, trainer in enumerate(trainers)
        ]
        events = await all_take_part(clients, max_rounds=1)
        survivors = [number for number in range(5) if counts or number != LOST]
        start, end = await fed.adapter(0), await fed.adapter(1)
        figures = (await fed.server.parts.store.rounds.rounds())[0].figures
    steps = {number: trainers[number].steps for number in survivors}
    weights = {number: trainers[number].examples // 10 for number in survivors}
    assert np.array_equal(end, expected_adapter(start, steps, weights))
    assert figures is not None
    assert figures.survivors == len(survivors)
    assert figures.weight == sum(weights.values())
    assert figures.report["examples"] == sum(trainers[number].examples for number in survivors)
    for number in survivors:
        if not (verb == "unmask" and number == LOST):
            assert EventKind.ROUND_COMMITTED in {event.kind for event in events[number]}


async def test_two_lost_of_five_are_too_many_and_nothing_is_opened(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", layers=12)
    async with federation(tmp_path, exact_task(base, 5, max_failures=1)) as fed:
        wires = [Wire("during upload" if number < 2 else "") for number in range(5)]
        clients = [fed.client(f"device-{number}", StepTrainer(place=number), wires[number]) for number in range(5)]
        heard = asyncio.Event()
        texts: list[str] = []

        def listen(event: Event) -> None:
            if event.kind is EventKind.ROUND_LOST:
                texts.append(event.text)
                heard.set()

        stay = [asyncio.create_task(take_part(client, on_event=listen)) for client in clients[2:]]
        tasks = [*stay, *(asyncio.create_task(take_part(client)) for client in clients[:2])]
        await heard.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        store = fed.server.parts.store
        # Devices hear of the failure from the machine, a moment before the row of the round says it.
        (row,) = await store.rounds.rounds()
        async with asyncio.timeout(20):
            while row.state == "open":
                await asyncio.sleep(0.02)  # nothing rings when a row changes
                (row,) = await store.rounds.rounds()
        assert (row.state, row.reason) == ("failed", "3 devices uploaded, 4 are needed")
        assert (await store.tasks.newest_adapter(row.task_id)).version == 0
        (task_row,) = await store.tasks.tasks()
        assert task_row.state == "paused"
    assert "4 are needed" in texts[0]
