"""The parts of the demo that need no torch: rows, task file, pace, report, and children that never stay behind."""

import asyncio
import json
import sys
import textwrap
import tomllib
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from fedit_client.data import read_records
from fedit_client.demo import federation as demo
from fedit_client.demo.plan import Pace, bundled_rows, demo_task, fitting_pace, split_rows, task_text
from fedit_client.demo.processes import started
from fedit_client.demo.report import DemoReport
from fedit_client.demo.rows import CLIENTS
from fedit_client.evaluation import CategoryLosses
from fedit_client.task_groups import task_group
from fedit_protocol.errors import DataError, FeditError
from fedit_protocol.limits import Limits, check_task
from fedit_protocol.task import Task
from fedit_protocol.testing import small_task


def rows(count: int, categories: int) -> str:
    lines = [{"prompt": f"{n}?", "completion": f"{n}!", "category": f"c{n % categories}"} for n in range(count)]
    if categories == 1:
        lines = [{"prompt": row["prompt"], "completion": row["completion"]} for row in lines]
    return "\n".join(json.dumps(line) for line in lines)


@pytest.mark.parametrize("categories", [1, 2, 3, 8])
def test_every_row_has_exactly_one_place(tmp_path: Path, categories: int) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(rows(240, categories))
    split = split_rows(source, tmp_path / "split")
    prompts = [record.messages[0].content for path in split.shards.values() for record in read_records(path).records]
    prompts += [record.messages[0].content for record in split.held_out]
    assert sorted(prompts) == sorted(f"{number}?" for number in range(240))
    assert set(split.shards) == set(CLIENTS)
    assert len(split.held_out) == 24


def test_categories_are_skewed(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(rows(300, 3))
    split = split_rows(source, tmp_path / "split")
    for number, path in enumerate(split.shards.values()):
        counts = {name: len(group) for name, group in read_records(path).by_category().items()}
        assert max(counts, key=lambda name: counts[name]) == f"c{number}"
        assert len(counts) == 3


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(rows(11, 1))
    with pytest.raises(DataError) as told:
        split_rows(source, tmp_path)
    assert told.value.code == "D021"


def test_the_bundled_task_is_one_that_default_limits_accept() -> None:
    task = Task.model_validate(tomllib.loads(task_text(demo_task(), "some/model", Pace(2, 3))))
    assert (task.round.rounds, task.training.local_steps, task.base.model) == (2, 3, "some/model")
    spec = task.base.model_copy(update={"digest": "sha256:" + "0" * 64})
    document = small_task(3).model_copy(update={"task": task.model_copy(update={"base": spec})})
    weakest = check_task(document, Limits())
    assert weakest is not None
    assert weakest.members == 3


def test_the_bundled_rows_can_be_read() -> None:
    with ExitStack() as stack:
        bundled = bundled_rows(stack)
        assert all(len(read_records(path).records) >= 50 for path in bundled.shards.values())
        assert {record.category for record in bundled.held_out} > {""} or len(bundled.held_out) >= 30


@pytest.mark.parametrize(
    ("step_s", "load_s", "cores", "pace"),
    [
        (2.0, 8.0, 2, Pace(3, 4)),  # as measured on two free cores
        (10.0, 10.0, 2, Pace(3, 2)),
        (60.0, 30.0, 2, Pace(2, 2)),  # never less: the comparison needs two rounds
        (0.1, 3.0, 16, Pace(3, 4)),
    ],
)
def test_a_slow_machine_gets_shorter_rounds(step_s: float, load_s: float, cores: int, pace: Pace) -> None:
    assert fitting_pace(Pace(3, 4), step_s, load_s, cores) == pace


def losses(mean: float) -> CategoryLosses:
    return CategoryLosses({"a": mean - 0.1, "b": mean + 0.1}, {"a": 10, "b": 10})


@pytest.mark.parametrize(("together", "best"), [(1.0, True), (2.0, False)])
def test_the_report_says_who_is_best(together: float, best: bool) -> None:
    report = DemoReport({"base": losses(3.0), "client_a": losses(1.5), "federation": losses(together)}, 3, 4, False)
    assert report.together_is_best is best
    assert f"{together:.3f} together" in report.verdict()
    assert report.as_data()["losses"]["client_a"]["mean"] == pytest.approx(1.5)


CHILD = """
import json, subprocess, sys, time
sleep, none = [sys.executable, "-c", "import time; time.sleep(600)"], subprocess.DEVNULL
grandchild = subprocess.Popen(sleep, stdin=none, stdout=none, stderr=none, start_new_session=True)
print(json.dumps({"pid": grandchild.pid}), flush=True)
time.sleep(600)
"""


async def test_a_child_takes_its_own_children_along(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(CHILD)
    async with started("stubborn", "stubborn", [], {"PYTHONPATH": str(tmp_path)}) as child:
        line = await anext(child.lines())
        assert psutil.pid_exists(line["pid"])
    async with asyncio.timeout(10):
        while _runs(line["pid"]):  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends the children of a killed demo")
async def test_no_child_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import time; print('{}', flush=True); time.sleep(600)")
    code = textwrap.dedent(f"""
        import asyncio, sys
        sys.path[:0] = {sys.path!r}
        from fedit_client.demo.processes import started
        async def main():
            async with started("endless", "endless", [], {{"PYTHONPATH": {str(tmp_path)!r}}}) as child:
                await anext(child.lines())
                print(child._process.pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert _runs(pid)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while _runs(pid):  # noqa: ASYNC110 - another process has no event to wait for
            await asyncio.sleep(0.01)


async def test_a_server_that_is_never_ready_is_told_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_READY_S", 0.01)
    with pytest.raises(FeditError, match="not ready within") as told:
        async with demo._server(tmp_path, tmp_path, ""):
            pass
    assert told.value.code == "X002"


async def test_the_first_cause_of_several_tasks_is_what_a_person_sees() -> None:
    async def fail() -> None:
        raise FeditError("no such model", code="X002")

    async def fail_together() -> None:
        async with task_group() as group:
            group.create_task(fail())
            await asyncio.sleep(600)

    with pytest.raises(FeditError, match="no such model") as told:
        await fail_together()
    assert told.value.code == "X002"


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_child_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text("import sys; print('no such model', file=sys.stderr); sys.exit(3)")
    async with started("fedit-server", "failing", [], {"PYTHONPATH": str(tmp_path)}) as child:
        failure = await child.failure()
    assert isinstance(failure, FeditError)
    assert (failure.code, failure.where) == ("X002", "no such model")
    assert "status 3" in str(failure)
