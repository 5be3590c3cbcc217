"""A fleet beside clients alone and central training: what is trained, on what, and that a killed comparison goes on."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedit_client.data import Record, Source, records_from
from fedit_client.evaluation.figures import Measured, MeasureRequest, RowFigures, WorkerMeasurer
from fedit_client.evaluation.results import ModelResult
from fedit_client.fleet.baselines import FOLDER, MOST_ALONE, Baselines, Model, drawn_clients, parse_baselines
from fedit_client.fleet.launching import Launch
from fedit_client.fleet.member import VirtualClient
from fedit_client.fleet.places import TrainingPlaces
from fedit_client.fleet.report import comparison, write_report
from fedit_client.fleet.series import launch_series
from fedit_client.fleet.settings import FleetSettings
from fedit_client.home.durable import write_atomic
from fedit_client.rounds.preparation import unplanned
from fedit_client.testing import FakeTrainer
from fedit_client.training import OnProgress, TrainingProgress
from fedit_protocol.adapter import first_adapter
from fedit_protocol.errors import DeviceError, FleetError
from fedit_protocol.peft_folder import CARD, CONFIG, WEIGHTS
from fedit_protocol.task import TaskDocument
from fedit_protocol.task_tables import MethodSpec
from fedit_protocol.testing import small_task

ROUNDS = 3


@dataclass
class ByName(WorkerMeasurer):
    """Measures without a model: each name has its loss, on two rows of each category."""

    losses: dict[str, float]
    asked: list[MeasureRequest] = field(default_factory=list)

    async def measure(self, request: MeasureRequest, on_progress: OnProgress) -> Measured:
        self.asked.append(request)
        rows = len(request.records)
        for done in range(10 * rows):
            on_progress(TrainingProgress("evaluate", done + 1, 10 * rows))
        figures = {
            name: RowFigures(np.full(rows, 10 * self.losses.get(name, 2.0)), np.full(rows, 5.0))
            for name in request.adapters
        }
        categories = tuple(record.category for record in request.records)
        return Measured(categories, np.full(rows, 10.0), figures, places=tuple(range(rows)))


def rows(name: str, count: int) -> tuple[Record, ...]:
    lines = [
        {"instruction": f"{name} {number}", "response": "ok", "category": "ab"[number % 2]} for number in range(count)
    ]
    return records_from(lines).records


def people(folder: Path, count: int, each: int = 12) -> list[VirtualClient]:
    return [
        VirtualClient(number, f"client-{number:03d}", rows(f"c{number}", each), folder / str(number), 1.0)
        for number in range(count)
    ]


def made(folder: Path, document: TaskDocument, trainer: FakeTrainer, **settings: object) -> Baselines:
    """A fleet's folder with three committed rounds, and its comparison with these places."""
    newest = folder / "adapters" / document.task.id / str(ROUNDS)
    for name in (WEIGHTS, CONFIG, CARD):
        write_atomic(newest / name, b"x")
    test = "".join(
        f'{{"instruction": "t{number}", "context": "", "response": "ok", "category": "{"ab"[number % 2]}"}}\n'
        for number in range(8)
    )
    write_atomic(folder / "partition" / "test.jsonl", test.encode())
    asked = FleetSettings("local", "rows", 5, **{"seed": 4, "baselines": "local,central", **settings})  # type: ignore[arg-type]
    losses = {"base": 3.0, "federation": 2.2, "central": 2.0}
    places = TrainingPlaces([trainer], folder / "base", unplanned(document))
    return Baselines(document, asked, folder, places, ByName(losses | {f"alone-client-{n:03d}": 2.5 for n in range(5)}))


async def compared(beside: Baselines, clients: list[VirtualClient]) -> list[ModelResult]:
    """Train and measure, as a fleet does when its rounds are over."""
    await beside.train(clients, ROUNDS)
    return await beside.measure(clients)


async def test_each_client_alone_and_all_rows_in_one_place_take_the_steps_of_the_rounds(tmp_path: Path) -> None:
    document, trainer = small_task(5), FakeTrainer()
    beside = made(tmp_path, document, trainer)
    found = await compared(beside, people(tmp_path, 5))
    assert {one.name: one.role for one in found} == {
        "base": "base", "federation": "fed", "central": "central",
        **{f"alone-client-{number:03d}": "local" for number in range(5)},
    }  # fmt: skip
    assert len(trainer.requests) == 6 * ROUNDS
    spec = document.task.training
    central = [request for request in trainer.requests if request.document.task.training.batch_size > spec.batch_size]
    assert [request.version for request in central] == [0, 1, 2]
    assert central[0].document.task.training.batch_size == 5 * spec.batch_size
    alone = next(request for request in trainer.requests if request not in central)
    for request, mine in ((central[0], 60), (alone, 12)):
        now = request.document.task.training
        assert now.steps_of(mine) == spec.steps_of(12)
        assert now.held_out_fraction == 0
    start = first_adapter(document.layout, document.task.adapter.seed)
    for model in ("central", "alone-client-004"):
        folder = tmp_path / FOLDER / model
        trained = document.layout.flatten(load_file(folder / WEIGHTS))
        np.testing.assert_allclose(trained - start, np.full(len(start), 0.01 * ROUNDS), rtol=1e-5)
        assert sorted(path.name for path in folder.iterdir()) == sorted([CONFIG, WEIGHTS])


async def test_what_was_measured_is_not_measured_again_and_more_can_be_asked_for_later(tmp_path: Path) -> None:
    trainer = FakeTrainer()
    beside = made(tmp_path, small_task(5), trainer, baselines="central")
    clients = people(tmp_path, 5)
    first = await compared(beside, clients)
    assert [one.name for one in first] == ["base", "federation", "central"]
    assert await compared(beside, clients) == first
    assert len(trainer.requests) == ROUNDS
    more = replace(beside, settings=replace(beside.settings, baselines="local,central"))
    found = await compared(more, clients)
    assert len(found) == 8
    assert len(trainer.requests) == 6 * ROUNDS  # the central model was there


@dataclass
class Dies(FakeTrainer):
    """Gives up at a call."""

    at: int = 0

    async def train(self, *request: object) -> object:  # type: ignore[override]
        if len(self.requests) == self.at:
            raise DeviceError("gone", code="H004")
        return await super().train(*request)  # type: ignore[arg-type]


async def test_a_comparison_that_was_killed_goes_on_after_the_round_that_it_kept(tmp_path: Path) -> None:
    document, clients = small_task(5), people(tmp_path, 5)
    dying = Dies(at=2)
    with pytest.raises(DeviceError, match="gone"):
        await compared(made(tmp_path, document, dying, baselines="central"), clients)
    going_on = FakeTrainer()
    beside = made(tmp_path, document, going_on, baselines="central")
    await compared(beside, clients)
    assert [request.version for request in going_on.requests] == [2]
    whole = made(tmp_path / "whole", document, FakeTrainer(), baselines="central")
    await compared(whole, clients)
    kept = Path(FOLDER, "central", WEIGHTS)
    assert (tmp_path / kept).read_bytes() == (tmp_path / "whole" / kept).read_bytes()


def test_of_many_clients_ten_are_trained_alone_and_the_seed_draws_them(tmp_path: Path) -> None:
    clients = people(tmp_path, 40, each=1)
    drawn = {seed: [one.number for one in drawn_clients(clients, seed)] for seed in (1, 2)}
    assert [len(numbers) for numbers in drawn.values()] == [MOST_ALONE, MOST_ALONE]
    assert drawn[1] == sorted(drawn[1]) != drawn[2]
    assert drawn[1] == [one.number for one in drawn_clients(clients[::-1], 1)]


def test_a_step_of_the_central_model_never_has_more_rows_than_a_task_may(tmp_path: Path) -> None:
    document = small_task(5)
    training = document.task.training.model_copy(update={"batch_size": 1024, "micro_batch_size": 4})
    large = document.model_copy(update={"task": document.task.model_copy(update={"training": training})})
    central: Model = made(tmp_path, large, FakeTrainer(), baselines="central").models(people(tmp_path, 5))[0]
    assert central.spec.batch_size == 4096


async def test_a_long_measurement_says_that_it_moves_and_not_every_row(tmp_path: Path) -> None:
    said: list[str] = []
    beside = replace(made(tmp_path, small_task(5), FakeTrainer(), baselines="central"), say=said.append)
    await compared(beside, people(tmp_path, 5))
    assert [line for line in said if "measured on" in line] == [
        f"  measured on held-out rows: {done} of 80" for done in (20, 40, 60, 80)
    ]


@pytest.mark.parametrize(("cutoff", "measured"), [(128, 512), (1024, 1024)])
async def test_rows_are_measured_whole_even_where_training_cuts_them_short(
    cutoff: int, measured: int, tmp_path: Path
) -> None:
    document = small_task(5)
    prompt = document.task.prompt.model_copy(update={"cutoff_tokens": cutoff})
    short = document.model_copy(update={"task": document.task.model_copy(update={"prompt": prompt})})
    beside = made(tmp_path, short, FakeTrainer(), baselines="central")
    await compared(beside, people(tmp_path, 5))
    assert isinstance(beside.measurer, ByName)
    assert [request.prompt.cutoff_tokens for request in beside.measurer.asked] == [measured]


async def test_a_method_that_trains_no_lora_factors_is_refused(tmp_path: Path) -> None:
    plain, factors = small_task(5, size=4), small_task(5, size=8).layout
    task = plain.task.model_copy(update={"method": MethodSpec(name="fed_sb")})
    document = plain.model_copy(update={"task": task, "lora": factors})
    with pytest.raises(FleetError, match="fed_sb") as refused:
        await compared(made(tmp_path, document, FakeTrainer()), people(tmp_path, 5))
    assert refused.value.code == "F016"
    assert "method.name = fedavg" in str(refused.value.fix)


def test_baselines_are_named(tmp_path: Path) -> None:
    assert [str(one) for one in parse_baselines(" central,local,central ")] == ["central", "local"]
    assert parse_baselines("") == ()
    with pytest.raises(FleetError, match="no baseline locl") as refused:
        parse_baselines("local,locl")
    assert refused.value.code == "F015"


LINE = {"outcome": "committed", "held_out_loss": 2.0, "train_loss": 2.0, "adapter_version": 1, "dropped": {},
        "train_s": 1.0, "wall_s": 2.0, "bytes_up": 3, "bytes_down": 4, "round": 1, "clients": 5,
        "survivors": 5}  # fmt: skip


async def test_the_report_says_which_share_of_the_gap_is_recovered(tmp_path: Path) -> None:
    beside = made(tmp_path, small_task(5), FakeTrainer())
    await compared(beside, people(tmp_path, 5))
    summary = write_report(tmp_path, [LINE], beside.settings, {})
    page = (tmp_path / "report.md").read_text()
    assert "federation recovers 60 %" in page  # (2.5 - 2.2) / (2.5 - 2.0)
    assert summary["comparison"]["gap_recovered"][0]["whole"]["change"] == pytest.approx(0.6)


async def test_a_series_pools_its_seeds_and_goes_on_with_the_one_that_was_not_done(tmp_path: Path) -> None:
    runs: list[tuple[int, bool]] = []

    async def one(wanted: Launch) -> dict[str, object]:
        runs.append((wanted.settings.seed, wanted.resume))
        assert wanted.task is not None
        assert wanted.task.read_text() == "a task"  # also for a seed that begins after the resume, which names none
        wanted.folder.mkdir(exist_ok=True)
        wanted.settings.save(wanted.folder)
        if len(runs) == 2:
            raise asyncio.CancelledError
        document = small_task(5)
        beside = made(wanted.folder, document, FakeTrainer(), seed=wanted.settings.seed)
        await compared(beside, people(wanted.folder, 5))
        return write_report(wanted.folder, [LINE], wanted.settings, {})

    settings = FleetSettings("local", "rows", 5, seed=7, seeds=2, baselines="local,central")
    task = tmp_path / "given.toml"
    task.write_text("a task")
    wanted = Launch(settings, tmp_path / "out", Source("rows"), task=task)
    with pytest.raises(asyncio.CancelledError):
        await launch_series(wanted, one)
    with pytest.raises(FleetError, match="not empty"):
        await launch_series(wanted, one)
    summary = await launch_series(replace(wanted, resume=True, task=None), one)
    assert runs == [(7, False), (8, False), (7, True), (8, True)]
    assert summary["seeds"] == [7, 8]
    assert summary["losses"]["local"]["mean"] == pytest.approx(2.5)
    assert summary["gap_recovered"]["change"] == pytest.approx(0.6)
    assert "recovers 60 %" in (tmp_path / "out" / "report.md").read_text()
    assert comparison(tmp_path / "out" / "seed-7") is not None


async def test_a_series_needs_a_server_of_its_own(tmp_path: Path) -> None:
    settings = FleetSettings("https://127.0.0.1:1", "rows", 5, seeds=2)
    with pytest.raises(FleetError) as refused:
        await launch_series(Launch(settings, tmp_path / "out", Source("rows")))
    assert refused.value.code == "F017"
    assert not (tmp_path / "out").exists()
