"""Devices of two base classes in one cohort over real HTTPS: an exact sum, both means, and no loss of one device."""

import asyncio
import logging
import struct
from pathlib import Path

import numpy as np
import pytest

from fedit_client.events import EventKind
from fedit_client.records.outbox import outbox_of
from fedit_client.records.payloads import Payload
from fedit_protocol.encoding import encode
from fedit_protocol.metrics import MetricSpec
from fedit_protocol.task import Task

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .federation import StepTrainer, Wire, all_take_part, exact_task, expected_adapter, federation
from .test_privacy import files_of, said_by
from .test_training_federation import task_for

LOSS = 7.654321
"""Travels as 76543 ten-thousandths."""
LOSSES = (LOSS, 2.0, 2.5, 3.0, 3.25, 3.5)
CLASSES = ("nf4",) * 3 + ("bf16",) * 3
CANARY = {"rows": [{"instruction": "say red", "response": "red it is"}], "tokens": 64}


def in_classes(task: Task, **tables: object) -> Task:
    values = task.model_dump(mode="json") | {"canary": CANARY, **tables}
    values["base"] = {"model": task.base.model, "classes": ["nf4", "bf16"]}
    values["round"] |= {"cohort_min": 6, "cohort_size": 6}
    return Task.model_validate(values)


def needles() -> dict[str, bytes]:
    """Every way in which the loss of one device could stand in bytes."""
    scaled = 76543
    found = {"text": b"7.654", "integer text": b"76543", "CBOR": encode(MetricSpec(name="x", maximum=scaled))[-5:]}
    for order in ("<", ">"):
        found |= {f"integer {order}{size}": struct.pack(order + size, scaled) for size in "iq"}
        found |= {f"loss {order}{size}": struct.pack(order + size, LOSS) for size in "fd"}
        found |= {f"rounded {order}{size}": struct.pack(order + size, 7.6543) for size in "fd"}
    return found


async def test_two_classes_meet_and_no_loss_of_one_device_reaches_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    during: list[tuple[str, bytes]] = []

    def photograph(verb: str) -> None:
        if verb == "unmask" and not during:
            during.extend(files_of(tmp_path / "server"))

    async with federation(tmp_path, in_classes(exact_task(make_base(tmp_path / "base"), 6))) as fed:
        clients = [
            fed.client(
                f"device-{number}",
                StepTrainer(examples=10, place=number, steps=number + 1, canary_loss=LOSSES[number]),
                Wire(before=photograph),
                device={"prefer": "cpu", "base_class": CLASSES[number]},
            )
            for number in range(6)
        ]
        told = await all_take_part(clients, max_rounds=1)
        (row,) = await fed.server.parts.store.rounds.rounds()
        start, end = await fed.adapter(0), await fed.adapter(1)
        received = [(f"message {number}", body) for wire in fed.wires for number, body in enumerate(wire.sent)]
        after = files_of(tmp_path / "server")
    assert np.array_equal(end, expected_adapter(start, {n: n + 1 for n in range(6)}, dict.fromkeys(range(6), 1)))
    assert row.figures is not None
    nf4, bf16 = row.figures.report["canary"]
    assert (nf4["class"], nf4["devices"], nf4["loss"]) == ("nf4", 3, pytest.approx((7.6543 + 2.0 + 2.5) / 3))
    assert (bf16["class"], bf16["devices"], bf16["loss"]) == ("bf16", 3, pytest.approx(3.25))
    assert row.figures.report["drift"] == pytest.approx(nf4["loss"] - 3.25)
    texts = [event.text for events in told for event in events]
    assert "loading the base model in bf16: the program's own trainer decides" in texts
    logged = [("the log", "\n".join(said_by(record) for record in caplog.records).encode())]
    assert any("spool" in place for place, _ in during)
    places = [*received, *during, *after, *logged]
    assert [(name, place) for place, content in places for name, needle in needles().items() if needle in content] == []


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.xdist_group("training federations")
@pytest.mark.timeout(600)
async def test_six_devices_train_one_adapter_in_two_classes(tmp_path: Path) -> None:
    """Three train in 4 bits, three in bfloat16; what left each is in its outbox, and their sum is the new adapter."""
    base = make_tiny_llama(tmp_path / "base")
    encoding = {"clip_norm": 100.0, "value_range": 1.0, "value_bits": 16}
    sent: list[Payload] = []
    async with federation(tmp_path, in_classes(task_for(base, "nf4"), encoding=encoding)) as fed:

        async def take_part(number: int) -> list[str]:
            settings = {"prefer": "cpu", "threads": 1, "base_class": CLASSES[number]}
            async with fed.client(f"device-{number}", trainer=None, device=settings) as client:
                client.add_records([{"instruction": f"say {number}", "response": f"{number} it is"}] * 40)
                await client.join(consent=(await client.fetch_offer()).accept())
                events = [event async for event in client.run(max_rounds=1)]
                assert any(f"in {CLASSES[number]}: your setting device.base_class" in event.text for event in events)
                outbox = outbox_of(client.config)
                assert outbox is not None
                sent.append(outbox.payload(outbox.entries()[-1].number))
                return [event.kind for event in events]

        kinds = await asyncio.gather(*(take_part(number) for number in range(6)))
        (row,) = await fed.server.parts.store.rounds.rounds()
        task = (await fed.server.parts.store.tasks.tasks())[0]
        start, end = await fed.adapter(0), await fed.adapter(1)
    total, weight = np.zeros(len(start), dtype=np.int64), sum(one.weight for one in sent)
    for one in sent:
        for tensor, span in task.document.layout.spans():
            total[span] += one.tensors[tensor.name].reshape(-1).astype(np.int64)
    assert all(EventKind.ROUND_COMMITTED in of_one for of_one in kinds)
    unit = 1.0 / (2**15 - 1)
    assert np.array_equal(end, (start.astype(np.float64) + total * unit / weight).astype(np.float32))
    assert row.figures is not None
    nf4, bf16 = row.figures.report["canary"]
    assert [nf4["devices"], bf16["devices"]] == [3, 3]
    assert 0 < abs(nf4["loss"] - bf16["loss"]) == pytest.approx(row.figures.report["drift"])
