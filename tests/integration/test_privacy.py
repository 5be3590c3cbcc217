"""A canary loss and a canary row count in one device: nothing that the server receives, stores or logs holds them."""

import logging
import struct
from collections.abc import Iterable
from pathlib import Path

import pytest

from fedit_client.testing import FakeTrainer
from fedit_protocol.encoding import encode
from fedit_protocol.metrics import MetricSpec

from ..server.bases import make_base
from .federation import Wire, all_take_part, exact_task, federation

LOSS = 7.654321
"""Travels as 7654 thousandths, times the weight."""

EXAMPLES = 1_234_577
WEIGHT = 15
"""The device has so many rows that its weight is the task's largest."""


def needles() -> dict[str, bytes]:
    """Every way in which the canaries could stand in bytes, if they are long enough not to occur by chance."""
    found: dict[str, bytes] = {
        "loss as text": b"7.654",
        "weighted loss": str(WEIGHT * 7654).encode(),
        "rows as text": str(EXAMPLES).encode(),
        "rows in CBOR": encode(MetricSpec(name="x", maximum=EXAMPLES))[-5:],
    }
    for name, value in {"rows": EXAMPLES, "weighted loss": WEIGHT * 7654}.items():
        for order in ("<", ">"):
            found[f"{name} {order}i"] = struct.pack(f"{order}i", value)
            found[f"{name} {order}q"] = struct.pack(f"{order}q", value)
    for order in ("<", ">"):
        for size in ("f", "d"):
            found[f"loss {order}{size}"] = struct.pack(order + size, LOSS)
            found[f"rounded loss {order}{size}"] = struct.pack(order + size, 7.654)
            found[f"rows {order}{size}"] = struct.pack(order + size, float(EXAMPLES))
    return found


def canaries_in(haystack: Iterable[tuple[str, bytes]]) -> list[str]:
    """Name every place in which a canary stands."""
    return [
        f"{name} in {place}" for place, content in haystack for name, needle in needles().items() if needle in content
    ]


def files_of(folder: Path) -> list[tuple[str, bytes]]:
    return [(str(path.relative_to(folder)), path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


def said_by(record: logging.LogRecord) -> str:
    """A log line with its extra fields, without the times and numbers that every record carries."""
    standard = vars(logging.makeLogRecord({}))
    return record.getMessage() + str({name: value for name, value in vars(record).items() if name not in standard})


async def test_no_figure_of_one_device_reaches_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    during: list[tuple[str, bytes]] = []

    def photograph(verb: str) -> None:
        """Keep what lies on the server's disk while every upload is there and nothing is unmasked yet."""
        if verb == "unmask" and not during:
            during.extend(files_of(tmp_path / "server"))

    trainers = [
        FakeTrainer(examples=EXAMPLES, loss=LOSS),
        FakeTrainer(examples=50, loss=1.25),
        FakeTrainer(examples=70, loss=1.5),
    ]
    async with federation(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as fed:
        clients = [
            fed.client(f"device-{number}", trainer, Wire(before=photograph)) for number, trainer in enumerate(trainers)
        ]
        await all_take_part(clients, max_rounds=1)
        (row,) = await fed.server.parts.store.rounds.rounds()
        assert row.figures is not None
        # The sum came through, so the canaries were on their way; only the sum may be known.
        assert row.figures.report["examples"] == EXAMPLES + 50 + 70
        mean = (WEIGHT * 7.654 + 5 * 1.25 + 7 * 1.5) / (WEIGHT + 5 + 7)
        assert row.figures.report["train_loss"] == pytest.approx(mean)
        received = [(f"message {number}", body) for wire in fed.wires for number, body in enumerate(wire.sent)]
        uploads = [body for _, body in received if b"/uploads/" in body]
        after = files_of(tmp_path / "server")
    logged = [("the log", "\n".join(said_by(record) for record in caplog.records).encode())]
    assert len(uploads) == 3
    assert any("spool" in place for place, _ in during), "the uploads were on disk when the photograph was taken"
    assert canaries_in([*received, *during, *after, *logged]) == []


async def test_uploads_of_a_task_have_one_length_whatever_the_data(tmp_path: Path) -> None:
    trainers = [FakeTrainer(examples=count, loss=loss) for count, loss in ((5, 0.1), (500_000, 25.0), (70, 3.0))]
    async with federation(tmp_path, exact_task(make_base(tmp_path / "base"), 3)) as fed:
        clients = [fed.client(f"device-{number}", trainer) for number, trainer in enumerate(trainers)]
        await all_take_part(clients, max_rounds=1)
        uploads = [body for wire in fed.wires for body in wire.sent if b"/uploads/" in body]
    assert len({len(body) for body in uploads}) == 1


def test_the_search_finds_a_canary_that_is_there() -> None:
    planted = [("a log", b"client 3 trained on 1234577 rows"), ("a table", b"\x00" + struct.pack("<d", LOSS))]
    assert len(canaries_in(planted)) == 2
