"""What a device keeps for its owner, against the real server: outbox and history of every kind of round, a new key."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client import ClientConfig
from fedit_client.conversations.privacy_report import privacy_report
from fedit_client.home.paths import Paths
from fedit_client.records.history import History
from fedit_client.records.outbox import Outbox
from fedit_protocol.task import Task

from ..server.bases import make_base
from .federation import ROWS, UNIT, StepTrainer, Wire, all_take_part, exact_task, federation, take_part

TRUSTING: dict[str, Any] = {"limits": {"modes": ["masked", "trusted"]}}


def kept(folder: Path, name: str) -> tuple[Outbox, History]:
    paths = Paths.under(folder / name)
    return Outbox(paths.outbox, 10**9), History(paths.history)


def sent_upload(wire: Wire) -> bytes:
    """Return header and payload of the one upload that went through a wire."""
    (upload,) = [sent for sent in wire.sent if b"/uploads/1 " in sent]
    return upload


async def test_in_trusted_mode_the_outbox_holds_exactly_what_the_server_reads(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 1, mode="trusted", cohort_min=1, cohort_size=1)
    wire = Wire()
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        trainer = StepTrainer(examples=30, place=4, steps=7)
        await all_take_part([fed.client("device-0", trainer, wire, **TRUSTING)], max_rounds=1)
        start, end = await fed.adapter(0), await fed.adapter(1)
        (row,) = await fed.server.parts.store.rounds.rounds()
        layout = (await fed.server.parts.store.tasks.tasks())[0].document.layout
    outbox, history = kept(tmp_path, "device-0")
    (entry,) = outbox.entries()
    update = layout.flatten(outbox.values(1))
    assert np.array_equal(end, (start.astype(np.float64) + update).astype(np.float32))
    assert update[4] == 7 * UNIT
    upload = sent_upload(wire)
    assert hashlib.sha256(upload[-entry.bytes :]).hexdigest() == entry.sha256
    assert update.tobytes() not in upload  # it travels sealed
    assert "the server reads it by itself" in entry.purpose
    assert (entry.payload["weight"], entry.payload["report"]["examples"]) == (3, 30)
    (noted,) = history.entries()
    assert (noted.mode, noted.cohort, noted.honest, noted.survivors) == ("trusted", None, 0, 1)
    assert (noted.uploads, noted.outcome) == ((entry.sha256,), "committed")
    assert row.mode == "trusted"
    report = privacy_report(ClientConfig.model_validate({"home": tmp_path / "device-0"}))
    assert any("the server reads each one by itself (level T0)" in line for line in report.lines())


async def test_noise_is_in_the_outbox_and_counted_in_history_and_privacy(tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting", reason="the extra dp is not installed")
    known = exact_task(make_base(tmp_path / "base"), 3).model_dump(mode="json")
    task = Task.model_validate(
        known
        | {
            "encoding": known["encoding"] | {"clip_norm": 1.0, "max_weight": 1},
            "adapter": known["adapter"] | {"rank": 2},
        }
        | {"privacy": {"noise_multiplier": 2.0, "accept_weak": True}}
    )
    async with federation(tmp_path, task) as fed:
        await all_take_part([fed.client(f"device-{n}", StepTrainer(place=n)) for n in range(3)], max_rounds=1)
    outbox, history = kept(tmp_path, "device-0")
    (entry,), (noted,) = outbox.entries(), history.entries()
    assert "with this device's noise in it" in entry.purpose
    assert (entry.payload["figures"], entry.payload["report"]) == ({"weight": 1}, {})
    assert max(tensor["nonzeros"] for tensor in entry.payload["tensors"]) > 10  # the trainer moved one number only
    report = privacy_report(ClientConfig.model_validate({"home": tmp_path / "device-0"}))
    assert report.epsilon_spent == noted.epsilon == report.epsilon_promised
    assert any("spent of" in line and "promised over 1 round" in line for line in report.lines())


async def test_a_new_key_joins_again_and_starts_a_history_of_its_own(tmp_path: Path) -> None:
    task = exact_task(make_base(tmp_path / "base"), 1, mode="trusted", cohort_min=1, cohort_size=1, rounds=2)
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        first = fed.client("device-0", StepTrainer(examples=20), **TRUSTING)
        await take_part(first, max_rounds=1)
        receipt = await first.leave(new_key=True)
        assert receipt.answered.startswith("forgotten")
        second = fed.client("device-0", StepTrainer(examples=20), **TRUSTING)
        second.add_records(ROWS)
        await second.join(consent=(await second.fetch_offer()).accept())
        await second.run_to_end(max_rounds=1)
        clients = await fed.server.parts.store.members.clients()
    assert sorted(str(client.state) for client in clients) == ["active", "left"]
    outbox, history = kept(tmp_path, "device-0")
    lines = history.lines()
    assert [(line.entry.round_no, line.entry.outcome, line.fault) for line in lines] == [
        (1, "committed", None),
        (2, "committed", None),
    ]
    assert len({line.signer for line in lines}) == 2
    assert [entry.round_no for entry in outbox.entries()] == [1, 2]
