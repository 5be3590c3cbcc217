"""What a check-in says of a device, and what its owner is told about it."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client.config import ClientConfig
from fedit_client.consent.terms import summarise
from fedit_client.data import records_from
from fedit_client.hardware.fit import rows_of
from fedit_client.hardware.history import MachineHistory, Run, recipe_of
from fedit_client.rounds.declaring import declaration, round_seconds, steps_in_time
from fedit_client.rounds.engagement import LocalWork
from fedit_client.rounds.preparation import unplanned
from fedit_client.testing import FakeTrainer
from fedit_protocol.declaration import Declaration
from fedit_protocol.limits import Limits
from fedit_protocol.task import Task, TaskDocument
from fedit_protocol.testing import MemoryFederation, small_task

from .test_session import World

ROWS = [{"instruction": str(n), "response": "yes", "category": "poetry" if n < 19 else "closed_qa"} for n in range(20)]


def document(rule: str, **selection: object) -> TaskDocument:
    plain = small_task(3)
    fields = plain.task.model_dump()
    fields["round"]["selection"] = rule
    fields["selection"] = {"domains": ("closed_qa", "poetry", "summaries"), **selection}
    return plain.model_copy(update={"task": Task.model_validate(fields)})


def work(seconds: float | None = None) -> LocalWork:
    records = tuple(records_from(ROWS).records)
    return LocalWork(Path("base"), records, unplanned(small_task()), b"split", FakeTrainer(), round_s=lambda _: seconds)


def test_a_device_says_which_domains_it_has_more_than_a_little_of() -> None:
    task = document("stratified").task
    assert declaration(task, work()) == Declaration(domains=("poetry",))
    assert declaration(task, work(100.0)) == Declaration(domains=("poetry",), round_s=128)
    rare = document("stratified", shares=(0.08, 0.9, 0.02)).task
    assert declaration(rare, work()) == Declaration(domains=("closed_qa", "poetry"))


def test_a_task_that_draws_by_time_hears_of_time_alone() -> None:
    assert declaration(document("resource_aware").task, work(100.0)) == Declaration(domains=(), round_s=128)
    assert declaration(document("resource_aware").task, work(1e9)) == Declaration(domains=(), round_s=2**20)
    assert declaration(document("resource_aware").task, work()) is None


@pytest.mark.parametrize("rule", ["uniform", "first_come", "self"])
def test_other_tasks_hear_nothing(rule: str) -> None:
    assert declaration(document(rule, join_share=1.0, join_least=1.0).task, work(100.0)) is None


def test_an_owner_may_keep_it_all_back(tmp_path: Path) -> None:
    silent = ClientConfig(home=tmp_path, privacy={"declare": False})
    assert round_seconds(silent, document("stratified"), work().plan) is None
    assert declaration(document("stratified").task, replace(work(), round_s=None)) is None


def test_the_time_is_that_of_the_last_round_here(tmp_path: Path) -> None:
    config, asked = ClientConfig(home=tmp_path), document("resource_aware")
    config.paths.machine_file.parent.mkdir(parents=True, exist_ok=True)
    known = round_seconds(config, asked, work().plan)
    assert known is not None
    assert known(work().records) is None
    run = Run(100.0, 12.5, 0, 0, recipe_of(work().plan))
    MachineHistory(config.paths.machine_file).note_run(asked, work().plan, run)
    training = asked.task.training
    rows = training.local_steps * training.batch_size
    tokens = 4 / 4 + 16  # one digit or two of a question, three letters of an answer, and the template
    assert known(work().records) == pytest.approx(rows * tokens / 100.0 + 12.5, rel=0.05)


def test_the_owner_reads_what_is_declared_and_what_is_counted() -> None:
    federation = MemoryFederation(3, "memory")
    shown = summarise(document("stratified"), federation.descriptor, Limits())
    (declared,) = [line for line in shown.leaves_in_clear if "check-in" in line]
    (counted,) = [line for line in shown.leaves_masked if "counts over the cohort" in line]
    assert "closed_qa, poetry, summaries" in declared
    assert "privacy.declare=false" in declared
    assert "closed_qa, poetry, summaries" in counted
    plain = summarise(small_task(), federation.descriptor, Limits())
    assert not [line for line in (*plain.leaves_in_clear, *plain.leaves_masked) if "categories" in line]


async def test_a_session_s_check_in_carries_it(tmp_path: Path) -> None:
    world = World(tmp_path, document("stratified"))
    for device in world.devices:
        object.__setattr__(device.engagement.work, "round_s", lambda _: 3.0)
    assert await world.run(max_rounds=1) == [1, 1, 1]
    assert {message.declared for message in world.server.check_ins} == {Declaration(domains=(), round_s=4)}


def test_a_slow_device_plans_the_steps_that_fit_and_only_where_they_are_counted(tmp_path: Path) -> None:
    """Its last round here made a token a second; 80 % of the time for training and upload is planned with."""
    config, plan, records = ClientConfig(home=tmp_path), work().plan, work().records
    fields = small_task(3).task.model_dump()
    fields["training"] |= {"local_steps": 20, "batch_size": 4, "micro_batch_size": 4}
    fields["round"]["deadlines"]["upload_s"] = 500.0

    def fitting(speed: float, *, fednova: bool) -> int:
        task = Task.model_validate(fields | {"optimizer": {"fednova": fednova}})
        made = small_task(3).model_copy(update={"task": task})
        history = MachineHistory(config.paths.machine_file)
        history.note_run(made, plan, Run(speed, 40.0, 0, 0, recipe_of(plan)))
        return steps_in_time(config, made, plan)(records)

    slow = fitting(1.0, fednova=True)
    rows = rows_of(records)
    assert rows is not None
    assert slow == int((0.8 * 500 - 40) / (4 * rows.mean_tokens))
    assert 1 < slow < 20
    assert fitting(0.001, fednova=True) == 1
    assert fitting(1000.0, fednova=True) == 0, "all of them fit"
    assert fitting(1.0, fednova=False) == 0, "nobody would count them"


def test_a_plan_with_fewer_steps_changes_nothing_but_the_steps() -> None:
    steps = {"local_steps": 20}
    fixed, plan = small_task(3).task, replace(work().plan, most_steps=5)
    fixed = Task.model_validate(fixed.model_dump() | {"training": steps})
    assert plan.applied(fixed).training == fixed.training.model_copy(update={"local_steps": 5})
    assert replace(plan, most_steps=50).applied(fixed) == fixed
    free = Task.model_validate(fixed.model_dump() | {"training": {"local_steps": 0, "max_steps": 9}})
    assert plan.applied(free).training.steps_of(1000) == 5
