"""Domain losses and fair weights over real HTTPS, and methods that keep a part at home, on a tiny Llama."""

import asyncio
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.adapters.personal import personal_line
from fedit_client.config import ClientConfig
from fedit_client.conversations.exporting import ExportWishes, Form, export
from fedit_client.events import EventKind
from fedit_client.records.outbox import outbox_of
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Task

from ..server.bases import make_base
from ..tiny_llama import make_tiny_llama
from .federation import UNIT, Federation, StepTrainer, exact_task, federation
from .test_privacy import files_of, said_by
from .test_training_federation import assert_plain_peft_loads

LOSSES = (7.654321, 1.0, 1.5, 2.0, 2.5)
ROWS = [
    *({"instruction": f"say ok {number}", "response": "ok", "category": "en"} for number in range(10)),
    *({"instruction": f"sag ja {number}", "response": "ja", "category": "de"} for number in range(10)),
]


class Looking(StepTrainer):
    """Finds a loss of its own on domain `en`, and, but for the last device, one of 1.0 on `de`."""

    start: float = 1.0
    measures_start = True

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        counts = {name: sum(row.category == name for row in request.records) for name in ("de", "en")}
        told = {f"rows {name}": float(count) for name, count in counts.items() if count}
        losses = {"loss de": 1.0, "loss en": self.start}
        result.statistics.update(told | {name: loss for name, loss in losses.items() if f"rows {name[5:]}" in told})  # type: ignore[attr-defined]
        result.statistics["start_loss"] = self.start  # type: ignore[index]
        return result


def fair_task(base: Path, rounds: int = 2, **fairness: Any) -> Task:
    plain = exact_task(base, 5, rounds=rounds, cohort_min=5)
    values = plain.model_dump(mode="json") | {"fairness": {"domains": ["de", "en"], **fairness}}
    values["encoding"] |= {"rows_per_weight": 1, "max_weight": 63}
    return Task.model_validate(values)


async def play(fed: Federation, number: int, rows: list[dict[str, Any]], kind: type[Looking] = Looking) -> list[str]:
    trainer = kind(examples=len(rows), place=number, steps=1)
    trainer.start = LOSSES[number]
    async with fed.client(f"device-{number}", trainer) as client:
        client.add_records(rows)
        await client.join(consent=(await client.fetch_offer()).accept())
        return [event.kind async for event in client.run(max_rounds=2)]


async def test_domains_meet_as_sums_and_the_next_rounds_weights_follow_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    task = fair_task(make_base(tmp_path / "base"), rule="afl", step=1.0)
    async with federation(tmp_path, task) as fed:
        german = [ROWS, ROWS, ROWS, ROWS, ROWS[:10]]
        kinds = await asyncio.gather(*(play(fed, number, rows) for number, rows in enumerate(german)))
        first, second = sorted(await fed.server.parts.store.rounds.rounds(), key=lambda row: row.round_no)
        one, two = await fed.adapter(1), await fed.adapter(2)
        places = [(f"message {n}", body) for wire in fed.wires for n, body in enumerate(wire.sent)]
        places += files_of(tmp_path / "server")
    assert all(of_one.count(EventKind.ROUND_COMMITTED) == 2 for of_one in kinds)
    assert first.figures is not None
    report = first.figures.report
    assert report["domains"] == [
        {"domain": "de", "devices": 4, "rows": 40, "loss": 1.0, "unknown": None},
        {"domain": "en", "devices": 5, "rows": 50, "loss": pytest.approx(sum(round(loss, 3) for loss in LOSSES) / 5),
         "unknown": None},
    ]  # fmt: skip
    assert report["spread"]["worst"] == "en"
    assert second.figures is not None
    # By rows the last device would count 10 / 20 of the first; en has the higher loss, so rows of it count more now:
    # lambda is 1/4 for de (its floor) and 3/4 for en, of 40 and 50 rows.
    moved = (two - one)[:5] / UNIT
    assert moved[4] / moved[0] == pytest.approx(round(10 * 1.35) / round(10 * 0.5625 + 10 * 1.35), rel=1e-3)
    needles = (b"7.65432", struct.pack("<d", LOSSES[0]), struct.pack(">d", LOSSES[0]))
    logged = "\n".join(said_by(record) for record in caplog.records).encode()
    found = [name for name, content in [*places, ("log", logged)] for needle in needles if needle in content]
    assert found == []


class Blind(Looking):
    """Has rows of `de` that keep no answer within the cutoff."""

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        result = await super().train(request, on_progress)
        del result.statistics["rows de"], result.statistics["loss de"]
        return result


async def test_a_device_without_the_loss_that_others_count_on_leaves_and_the_round_goes_on(tmp_path: Path) -> None:
    async with federation(tmp_path, fair_task(make_base(tmp_path / "base"), rounds=1)) as fed:
        blind = play(fed, 4, ROWS, kind=Blind)
        ended = await asyncio.gather(*(play(fed, number, ROWS) for number in range(4)), blind, return_exceptions=True)
        (row,) = await fed.server.parts.store.rounds.rounds()
    assert isinstance(ended[4], ConfigError)
    assert ended[4].code == "C070"
    assert all(EventKind.ROUND_COMMITTED in kinds for kinds in ended[:4] if not isinstance(kinds, BaseException))
    assert row.figures is not None
    assert {one["domain"]: one["unknown"] for one in row.figures.report["domains"]} == {
        "de": "dropped",
        "en": "dropped",
    }
    assert row.figures.report["spread"] is None


SETTINGS: dict[str, dict[str, Any]] = {
    "fedsa": {"method": {"name": "fedsa"}},
    "ditto": {"method": {"name": "ditto"}},
    "fedalt": {"method": {"name": "fedalt"}, "encoding": {"value_range": 0.2, "value_bits": 12}},
    "afl": {"fairness": {"domains": ["de", "en"], "rule": "afl"}},
    "term": {"fairness": {"rule": "term"}},
    "qffl": {"fairness": {"rule": "qffl"}},
    "packed": {"encoding": {"packed": True, "value_bits": 4, "max_weight": 1}, "compression": {"kind": "fitted"}},
    "sign": {"encoding": {"packed": True, "max_weight": 1}, "compression": {"kind": "sign"}},
    "sparse": {"compression": {"kind": "sparse"}},
}


def exported(config: ClientConfig, wishes: ExportWishes) -> Path:
    return export(config, wishes, lambda _: None).folder


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.xdist_group("training federations")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", SETTINGS)
async def test_a_real_federation_learns_by_each_rule(kind: str, tmp_path: Path) -> None:
    base = make_tiny_llama(tmp_path / "base")
    task = Task.model_validate({
        "id": "tiny", "title": "Tiny", "base": {"model": str(base), "quantization": "fp32"},
        "adapter": {"rank": 4, "dropout": 0.0},
        "training": {"local_steps": 6, "batch_size": 4, "micro_batch_size": 4, "learning_rate": 0.01,
                     "held_out_fraction": 0.2},
        "round": {"rounds": 2, "cohort_min": 4, "cohort_size": 4, "deadlines": {"upload_s": 180.0}},
        **SETTINGS[kind],
    })  # fmt: skip
    async with federation(tmp_path, task) as fed:

        async def take_part(number: int) -> tuple[list[str], int, str | None]:
            async with fed.client(f"device-{number}", trainer=None, device={"prefer": "cpu", "threads": 1}) as client:
                client.add_records(ROWS)
                await client.join(consent=(await client.fetch_offer()).accept())
                kinds = [str(event.kind) async for event in client.run(max_rounds=2)]
                outbox = outbox_of(client.config)
                assert outbox is not None
                document = client.require_membership().task_document
                sent = outbox.payload(outbox.entries()[-1].number).size
                if kind in ("fedsa", "ditto") and number == 0:
                    wishes = ExportWishes(Form.PEFT, tmp_path / "exported", personal=True)
                    assert_plain_peft_loads(base, await asyncio.to_thread(exported, client.config, wishes))
                return kinds, sent, personal_line(client.config.paths.adapters, document)

        found = await asyncio.gather(*(take_part(number) for number in range(4)))
        rows = sorted(await fed.server.parts.store.rounds.rounds(), key=lambda row: row.round_no)
        adapters = [await fed.adapter(version) for version in range(3)]
    assert all(kinds.count(EventKind.ROUND_COMMITTED) == 2 for kinds, _, _ in found)
    reports = [row.figures.report for row in rows if row.figures is not None]
    assert all(np.isfinite(adapter).all() for adapter in adapters)
    assert not np.array_equal(adapters[0], adapters[2])
    assert float(reports[1]["train_loss"]) < float(reports[0]["train_loss"])
    assert all((line is not None) == (kind in ("fedsa", "ditto", "fedalt")) for _, _, line in found)
    if kind == "afl":
        assert [one["devices"] for one in reports[0]["domains"]] == [4, 4]
        assert reports[0]["spread"]["worst"] in ("de", "en")
