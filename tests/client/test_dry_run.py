"""A dry run trains and builds an upload, and nothing leaves: no upload, no check-in, no enrolment, no identity."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client import Client, ConsentError
from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.console import Console
from fedit_client.conversations.joining import JoinWishes, join
from fedit_client.data import Source
from fedit_client.home.paths import Paths
from fedit_client.records.outbox import Outbox
from fedit_client.rounds.engagement import LocalWork
from fedit_client.rounds.preparation import unplanned
from fedit_client.rounds.rehearsal import rehearse
from fedit_client.testing import FakeTrainer
from fedit_client.training import LocalResult, OnProgress, TrainingRequest
from fedit_protocol.adapter import first_adapter
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import PrivacySpec
from fedit_protocol.testing import small_task, two_sum_task

from .conftest import HttpsFederation
from .test_sdk import ROWS, collect, joined


class WatchfulTrainer(FakeTrainer):
    """Keeps the adapter that each request starts from."""

    started_at: np.ndarray[Any, Any]

    async def train(self, request: TrainingRequest, on_progress: OnProgress) -> LocalResult:
        self.started_at = request.document.layout.flatten(load_file(request.global_adapter))
        return await super().train(request, on_progress)


async def test_before_joining_only_the_task_is_fetched(https: HttpsFederation, tmp_path: Path) -> None:
    trainer = WatchfulTrainer()
    client = Client.open(https.invite, home=tmp_path, trainer=trainer)
    client.add_records(ROWS)
    offer = await client.fetch_offer()
    tried = await client.dry_run(offer)
    assert https.asked == ["GET /v1/federation", "GET /v1/tasks"]
    assert https.bodies == []
    paths = Paths.under(tmp_path)
    assert not paths.identity_file.exists()
    assert client.membership is None
    assert np.array_equal(trainer.started_at, first_adapter(offer.document.layout, 0))
    assert (tried.adapter_version, tried.payload.report()["examples"]) == (0, 120)
    (entry,) = Outbox(paths.outbox, 10**9).entries()
    assert (entry.kind, entry.receiver, entry.sha256, entry.round_no) == ("dry run", "", "", None)
    assert entry.bytes == offer.summary.upload_bytes
    assert list(paths.cache.iterdir()) == []


async def test_of_what_was_joined_it_asks_nobody_and_starts_at_the_newest_adapter(
    https: HttpsFederation, tmp_path: Path
) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client, 1) for client in clients))
    before = len(https.asked)
    trainer = WatchfulTrainer()
    client = Client.open(home=tmp_path / "0", trainer=trainer)
    client.add_records(ROWS)
    tried = await client.dry_run()
    assert len(https.asked) == before
    assert tried.adapter_version == 1
    assert np.array_equal(trainer.started_at, https.loopback.adapter)
    entries = Outbox(Paths.under(tmp_path / "0").outbox, 10**9).entries()
    assert [entry.kind for entry in entries] == ["upload", "dry run"]


def noisy(document: TaskDocument) -> TaskDocument:
    privacy = PrivacySpec(noise_multiplier=1.0, accept_weak=True)
    encoding = document.task.encoding.model_copy(update={"max_weight": 1})
    return document.model_copy(
        update={"task": document.task.model_copy(update={"privacy": privacy, "encoding": encoding})}
    )


DOCUMENTS = {
    "masked": small_task(5, size=80),
    "trusted": small_task(3, size=80, mode="trusted"),
    "two sums": two_sum_task(8),
    "noise": noisy(small_task(5, size=80)),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
async def test_every_kind_of_round_can_be_tried(document: TaskDocument, tmp_path: Path) -> None:

    work = LocalWork(tmp_path, (), unplanned(document), b"split", FakeTrainer())
    config = load_config(tmp_path, {"privacy": {"outbox": False}})
    tried = await rehearse(document, work, config, lambda _: None)
    assert tried.entry is None
    assert not config.paths.outbox.exists()
    assert "nothing was sent" in tried.lines()[0]
    assert sum(values.size for values in tried.payload.tensors.values()) >= document.layout.size


class Answering(Console):
    """A terminal whose owner gives these answers."""

    answers: list[str]
    shown: list[str]

    @property
    def interactive(self) -> bool:
        return True

    def ask(self, question: str, *, flag: str) -> str:
        self.shown.append(f"{question} {flag}")
        return self.answers.pop(0)

    def say(self, text: str = "", style: str = "") -> None:
        self.shown.append(text)


async def test_an_upload_can_be_looked_at_before_the_answer(https: HttpsFederation, tmp_path: Path) -> None:
    console = Answering()
    console.answers, console.shown = ["what?", "p", "n"], []
    client = Client.open(https.invite, home=tmp_path, trainer=FakeTrainer())
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt":"say one","completion":"one"}\n' * 30)
    with pytest.raises(ConsentError) as declined:
        await join(client, console, JoinWishes(data=(Source(str(rows)),)))
    said = "\n".join(console.shown)
    assert declined.value.code == "A002"
    assert "[p] preview an upload   [y] accept   [n] decline: --accept test-task@1" in said
    assert "60,000 integers in 1 tensors" in said
    assert "An invented upload" in said
    assert "POST /v1/enroll" not in https.asked


def test_a_dry_run_needs_to_know_of_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["run", "--dry-run", "--home", str(tmp_path)]) == 4
    assert "FEDIT-J001" in capsys.readouterr().err
