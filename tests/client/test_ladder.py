"""What is given up, and in which order, when memory is short: from documents and plans alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from fedit_client.hardware.device import DevicePlan, Kind
from fedit_client.hardware.estimate import estimated
from fedit_client.hardware.history import MachineHistory, Run, recipe_of
from fedit_client.hardware.ladder import fitted, lower
from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.errors import DeviceError
from fedit_protocol.task import Quantization, Task, TaskDocument

from .test_device import document


def a_plan(kind: Kind = "cpu", free: int = 0) -> DevicePlan:
    """A plan on a device with so many bytes free."""
    device = "cpu" if kind == "cpu" else "cuda:0"
    return DevicePlan(device, 1, Quantization.NF4, "bfloat16", "a test", 0, free, kind=kind, total_bytes=8 * 10**9)


def steps(task: TaskDocument, plan: DevicePlan) -> list[DevicePlan]:
    """Every rung below a plan, in order."""
    found = []
    while (rung := lower(task, plan)) is not None:
        plan = rung.plan
        found.append(plan)
    return found


def test_the_ladder_on_a_gpu_in_its_order() -> None:
    rungs = steps(document(cutoff=1024, least=512), estimated(document(), a_plan("cuda")))
    first = {
        "micro": next(n for n, rung in enumerate(rungs) if rung.micro_batch_size == 1),
        "checkpointing": next(n for n, rung in enumerate(rungs) if rung.checkpointing),
        "chunk": next(n for n, rung in enumerate(rungs) if rung.loss_chunk),
        "optimizer": next(n for n, rung in enumerate(rungs) if rung.optimizer),
        "tokens": next(n for n, rung in enumerate(rungs) if rung.max_tokens),
    }
    assert list(first.values()) == sorted(first.values())
    assert rungs[-1].max_tokens == 512


def test_every_rung_takes_less_memory_than_the_one_above() -> None:
    for kind in ("cpu", "cuda"):
        task = document(cutoff=1024, least=256)
        start = estimated(task, a_plan(kind))
        sizes = [start.estimated_bytes, *(rung.estimated_bytes for rung in steps(task, start))]
        assert sizes == sorted(set(sizes), reverse=True)


def test_a_cpu_has_no_paged_optimizer_and_a_task_without_a_range_keeps_its_tokens() -> None:
    rungs = steps(document(cutoff=1024), a_plan())
    assert not any(rung.optimizer or rung.max_tokens for rung in rungs)


def test_the_effective_batch_is_never_touched() -> None:
    task = document(least=64)
    assert task.task.training.batch_size == 4
    assert {rung.rows_at_once(task) for rung in steps(task, a_plan("cuda"))} <= {1, 2, 4}


def test_one_step_is_one_line() -> None:
    rung = lower(document(), a_plan())
    assert rung is not None
    assert "\n" not in rung.text
    assert "instead of 4" in rung.text


def test_a_plan_starts_on_the_highest_rung_that_fits() -> None:
    task = document(cutoff=2048)
    roomy, told = fitted(task, a_plan(free=10**11))
    assert (told, recipe_of(roomy)) == ((), (0, False, 0, "", 0))
    second = steps(task, roomy)[1]
    tight, told = fitted(task, a_plan(free=second.estimated_bytes + 1))
    assert recipe_of(tight) == recipe_of(second)
    assert len(told) == 2


def test_a_task_that_lists_ranks_lets_a_small_device_train_a_lower_one() -> None:
    made = document(cutoff=1024)
    adapter = {"rank": 16, "ranks": (4, 8, 16)}
    task = Task.model_validate(made.task.model_dump() | {"adapter": adapter, "method": {"name": "nested"}})
    several = made.model_copy(
        update={"task": task, "layout": AdapterLayout(tensors=(TensorSpec(name="a", shape=(10**8,)),))}
    )
    last = steps(several, estimated(several, a_plan(free=10**11)))[-1]
    chosen, told = fitted(several, a_plan(free=last.estimated_bytes - 1))
    assert chosen.rank == 8
    assert "rank 8 instead of 16" in told[-1]
    assert chosen.estimated_bytes == last.estimated_bytes - 16 * 10**8 // 2
    assert fitted(several, a_plan(free=last.estimated_bytes))[0].rank == 0


def test_below_the_last_rung_is_a_message_with_figures() -> None:
    with pytest.raises(DeviceError) as refused:
        fitted(document(cutoff=2048), a_plan(free=10**8))
    assert refused.value.code == "H003"
    assert "out of memory even at micro-batch 1: 2,048 tokens need" in str(refused.value)
    assert "free are 0.1 GB of 8.0 GB (7.9 GB used by others)" in str(refused.value)


def test_a_rung_is_remembered_until_far_more_memory_is_free(tmp_path: Path) -> None:
    task, path = document(cutoff=1024), tmp_path / "machine.json"
    taken = replace(a_plan(free=2 * 10**9), micro_batch_size=1, checkpointing=True)
    MachineHistory(path).note_rung(task, taken)
    again = MachineHistory(path)
    assert recipe_of(again.lowered(task, a_plan(free=2 * 10**9))) == recipe_of(taken)
    assert recipe_of(again.lowered(task, a_plan(free=3 * 10**9))) == recipe_of(a_plan())
    assert recipe_of(again.lowered(document("int8", cutoff=1024), a_plan(free=10**9))) != recipe_of(a_plan())
    assert recipe_of(again.lowered(document(cutoff=512), a_plan(free=10**9))) == recipe_of(a_plan())


def test_a_run_is_remembered_and_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    task, path = document(), tmp_path / "machine.json"
    run = Run(100.0, 12.5, 10**9, 10**9, recipe_of(a_plan()))
    MachineHistory(path).note_run(task, a_plan(), run)
    assert MachineHistory(path).run_of(task, a_plan()) == run
    path.write_text("{")
    assert MachineHistory(path).run_of(task, a_plan()) is None
