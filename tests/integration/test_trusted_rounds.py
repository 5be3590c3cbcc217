"""Trusted rounds over real HTTPS: the exact mean, dropouts, kills of the server, refusals, a key that is gone after."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client import ClientConfig
from fedit_client.events import Event, EventKind
from fedit_client.running.standing import standing
from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.encoding import decode
from fedit_protocol.errors import ConfigError, TaskRefusedError
from fedit_protocol.messages import Offer
from fedit_protocol.signing import Kind, read_envelope
from fedit_protocol.task import Task
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.commands.words import round_cells, status_lines
from fedit_server.tasks.base_model import read_folder

from ..server.bases import make_base
from .federation import (
    UNIT,
    Federation,
    StepTrainer,
    TamperedClient,
    Wire,
    all_take_part,
    device,
    exact_task,
    expected_adapter,
    federation,
    take_part,
)
from .programs import ServerProcess, run_json, run_program, write_task

TRUSTING: dict[str, Any] = {"limits": {"modes": ["masked", "trusted"]}}
LONG = {"gather_s": 1.0, "join_s": 60.0, "shares_s": 60.0, "upload_s": 60.0, "unmask_s": 60.0}
"""No deadline may pass while the server is down: what is tested is that nobody is lost."""


def trusted(base: Path, members: int, **policy: object) -> Task:
    return exact_task(base, members, mode="trusted", **policy)


def trainers(count: int) -> list[StepTrainer]:
    return [StepTrainer(examples=20 + 10 * number, place=number, steps=5 + number) for number in range(count)]


def expected(start: Vector, survivors: Iterable[StepTrainer]) -> Vector:
    kept = list(survivors)
    steps = {trainer.place: trainer.steps for trainer in kept}
    return expected_adapter(start, steps, {trainer.place: trainer.examples // 10 for trainer in kept})


def key_files(server: Path) -> list[Path]:
    return list((server / "round-keys").iterdir()) if (server / "round-keys").exists() else []


def files_with(folder: Path, secret: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def clients_of(fed: Federation, wires: list[Wire], trained: list[StepTrainer]) -> list[TamperedClient]:
    return [
        fed.client(f"device-{number}", trainer, wire, **TRUSTING)
        for number, (trainer, wire) in enumerate(zip(trained, wires, strict=True))
    ]


async def test_a_round_commits_the_exact_mean_and_leaves_no_key_and_no_update(tmp_path: Path) -> None:
    seen: list[bytes] = []
    in_clear: list[Path] = []
    trained = trainers(3)
    # What each would send without a seal: its one number, then zeros.
    plain = [np.float32(trainer.steps * UNIT).tobytes() + bytes(64) for trainer in trained]

    def look_at_the_server(verb: str) -> None:
        if verb == "uploads":
            seen.extend(path.read_bytes() for path in key_files(tmp_path / "server"))
        if verb in ("uploads", "result"):
            in_clear.extend(path for update in plain for path in files_with(tmp_path / "server", update))

    async with federation(tmp_path, trusted(make_base(tmp_path / "base"), 3), allow_trusted=True) as fed:
        wires = [Wire(before=look_at_the_server) for _ in range(3)]
        everything = await all_take_part(clients_of(fed, wires, trained), max_rounds=1)
        start, end = await fed.adapter(0), await fed.adapter(1)
        parts = fed.server.parts
        (row,) = await parts.store.rounds.rounds()
        assert key_files(tmp_path / "server") == []
    assert np.array_equal(end, expected(start, trained))
    assert row.figures is not None
    assert (row.figures.survivors, row.figures.weight, row.mode) == (3, 2 + 3 + 4, "trusted")
    (secret,) = set(seen)
    assert len(secret) == 32
    assert files_with(tmp_path / "server", secret) == []  # no database page, log or spool file either
    offer = decode(Offer, read_envelope(row.offer, Kind.OFFER).body)
    assert offer.sealed is not None
    assert offer.sums == ()
    assert in_clear == []
    for wire, trainer, update in zip(wires, trained, plain, strict=True):
        uploads = [sent for sent in wire.sent if b"/uploads/1 " in sent]
        assert len(uploads) == 1
        assert len(uploads[0]) > end.nbytes
        assert update in np.where(np.arange(len(end)) == trainer.place, trainer.steps * UNIT, 0).astype("<f4").tobytes()
        assert update not in b"".join(wire.sent)
        assert b"/join" not in b"".join(wire.sent)
    texts = [event.text for event in everything[0]]
    assert any("sealed to the server, which will open it" in text for text in texts)


async def test_one_device_alone_makes_a_round(tmp_path: Path) -> None:
    task = trusted(make_base(tmp_path / "base"), 1, cohort_min=1, cohort_size=1)
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        trained = trainers(1)
        await all_take_part(clients_of(fed, [Wire()], trained), max_rounds=1)
        assert np.array_equal(await fed.adapter(1), expected(await fed.adapter(0), trained))


@pytest.mark.parametrize("moment", ["accept", "uploads", "during upload"])
async def test_who_vanishes_is_left_out(moment: str, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base", layers=12)  # an upload of several pieces
    task = trusted(base, 4, cohort_min=3)
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        trained = trainers(4)
        wires = [Wire(), Wire(), Wire(), Wire(vanish_before=moment)]
        await all_take_part(clients_of(fed, wires, trained), max_rounds=1)
        assert np.array_equal(await fed.adapter(1), expected(await fed.adapter(0), trained[:3]))


@pytest.mark.parametrize("moment", ["accept", "uploads", "result"])
async def test_a_killed_server_goes_on_with_the_same_round(moment: str, tmp_path: Path) -> None:
    """The kill comes right before the first device's request of that name; the others are anywhere near it."""
    task = trusted(make_base(tmp_path / "base"), 3, deadlines=LONG)
    trained = trainers(3)
    server = ServerProcess(tmp_path / "server", write_task(task, tmp_path), words=("--allow-trusted",))
    with server:
        restarts: list[asyncio.Task[ServerProcess]] = []

        def crash(verb: str) -> None:
            if verb == moment and not restarts:
                server.kill()
                restarts.append(asyncio.create_task(asyncio.to_thread(server.start)))

        wires = [Wire(before=crash), Wire(), Wire()]
        clients = [
            device(str(server.ready["invite"]), tmp_path / f"device-{number}", trainer, wire, **TRUSTING)
            for number, (trainer, wire) in enumerate(zip(trained, wires, strict=True))
        ]
        await asyncio.gather(*(take_part(client, 1) for client in clients))
        assert len(restarts) == 1
        await restarts[0]
        rounds = await asyncio.to_thread(run_json, "fedit_server", "round", "list", "--home", str(server.home))
        found = [(row["no"], row["state"], row["mode"]) for row in rounds["data"]["rounds"]]
        assert found == [(1, "committed", "trusted")]
        assert server.stop() == 0
    assert key_files(server.home) == []
    layout = AdapterLayout.of_lora(
        read_folder(tmp_path / "base").linear_shapes, task.adapter.target_modules, task.adapter.rank
    )
    start, end = (
        from_safetensors(layout, (server.home / "adapters" / "exact" / name / "adapter_model.safetensors").read_bytes())
        for name in "01"
    )
    assert np.array_equal(end, expected(start, trained))


async def test_an_owner_who_did_not_allow_it_is_never_asked_to_agree_and_sends_nothing(tmp_path: Path) -> None:
    async with federation(tmp_path, trusted(make_base(tmp_path / "base"), 3), allow_trusted=True) as fed:
        client = fed.client("device", StepTrainer())
        async with client:
            with pytest.raises(TaskRefusedError) as refused:
                await client.fetch_offer()
        assert refused.value.code == "K011"
        assert "sees every update" in str(refused.value)
        assert (refused.value.fix or "").startswith("fedit-client policy set modes masked,trusted")
        assert await fed.server.parts.store.members.clients() == []


async def test_an_owner_who_allows_it_reads_what_it_means_and_status_repeats_it(tmp_path: Path) -> None:
    task = trusted(make_base(tmp_path / "base"), 1, cohort_min=1, cohort_size=1)
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        client = fed.client("device-0", trainers(1)[0], **TRUSTING)
        async with client:
            summary = (await client.fetch_offer()).summary
        await all_take_part([client], max_rounds=1)
        parts = fed.server.parts
        (row,) = await parts.store.rounds.rounds()
        async with Admin.open(fed.server.config) as admin:
            status = status_lines((await overview(admin)).model_dump(mode="json"))
    assert "  mode     trusted: weaker, this server sees every update of every device" in status
    text = "\n".join(summary.lines())
    assert "Level T0, weaker" in text
    assert "readable by the server" in text
    assert "masked:" not in text
    assert "row count and losses in readable form" not in text
    assert (summary.hidden_among, summary.leaves_masked) == (0, ())
    told = standing(ClientConfig.model_validate({"home": tmp_path / "device-0"}))
    assert "trusted: weaker, the server sees each update of this device (level T0)" in told.lines()[0]
    assert round_cells(row.as_data())[2] == "trusted"


async def test_a_server_that_was_not_told_to_takes_no_trusted_task(tmp_path: Path) -> None:
    task = trusted(make_base(tmp_path / "base"), 3)
    with pytest.raises(ConfigError) as refused:
        async with federation(tmp_path, task):
            pass
    assert refused.value.code == "C037"
    assert "--allow-trusted" in (refused.value.fix or "")
    home = ("--home", str(tmp_path / "server"))
    assert not (
        tmp_path / "server"
    ).exists()  # devices pin the modes: nothing was made that the advice could not change
    done = await asyncio.to_thread(run_program, "fedit_server", "task", "check", str(write_task(task, tmp_path)), *home)
    assert done.returncode == 3
    assert "C037" in done.stderr
    assert "fedit-server up --allow-trusted --task FILE" in done.stderr
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        assert fed.server.published == ("exact@1",)


async def test_a_federation_made_for_masks_stays_so(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    async with federation(tmp_path, exact_task(base, 3)):
        pass
    file = write_task(trusted(base, 3), tmp_path)
    done = await asyncio.to_thread(
        run_program, "fedit_server", "task", "check", str(file), "--home", str(tmp_path / "server")
    )
    assert "--home NEW_FOLDER" in done.stderr
    for task in (exact_task(base, 3), trusted(base, 3, rounds=2)):
        with pytest.raises(ConfigError) as refused:
            async with federation(tmp_path, task, allow_trusted=True):
                pass
        assert refused.value.code == "C038"


async def test_an_operator_who_changes_the_setting_back_is_told_before_anything_is_served(tmp_path: Path) -> None:
    task = trusted(make_base(tmp_path / "base"), 3)
    async with federation(tmp_path, task, allow_trusted=True):
        pass
    with pytest.raises(ConfigError) as refused:
        async with federation(tmp_path, exact_task(tmp_path / "base", 3).model_copy(update={"id": "other"})):
            pass
    assert refused.value.code == "C037"


async def test_a_gate_stops_a_step_that_is_too_long(tmp_path: Path) -> None:
    known = trusted(make_base(tmp_path / "base"), 1, cohort_min=1, cohort_size=1, max_failures=1)
    task = known.model_copy(update={"gates": known.gates.model_copy(update={"max_norm": UNIT})})
    async with federation(tmp_path, task, allow_trusted=True) as fed:
        client, lost = clients_of(fed, [Wire()], trainers(1))[0], asyncio.Event()

        def hear(event: Event) -> None:
            if event.kind is EventKind.ROUND_LOST:
                lost.set()

        joined = asyncio.create_task(take_part(client, 1, hear))
        await lost.wait()
        joined.cancel()
        await asyncio.gather(joined, return_exceptions=True)
        (row,) = await fed.server.parts.store.rounds.rounds()
    assert "rejected: the step has norm" in row.reason
    assert key_files(tmp_path / "server") == []
