"""The soak's own rules: its draws repeat, its memory rule sees growth and only growth, its ledger sees a wrong sum."""

import itertools
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fedit_protocol.adapter import AdapterLayout, Vector
from fedit_protocol.ids import RoundId
from fedit_server.adapters.tensors import to_safetensors
from fedit_server.tasks.base_model import read_folder

from ..integration.federation import expected_adapter
from ..integration.witness import steps_of, weight_of_device
from .ledger import Ledger
from .plan import SoakPlan, soak_tasks
from .watch import Sample, last_over_second, within_longest_life

LASTS_S = 400
SURVIVORS = [0, 3, 4]


def test_the_draws_of_a_seed_repeat_and_those_of_another_are_others() -> None:
    plan, again, other = SoakPlan(seed="a"), SoakPlan(seed="a"), SoakPlan(seed="b")
    first = list(itertools.islice(plan.cuts(), 50))
    assert first == list(itertools.islice(again.cuts(), 50)) != list(itertools.islice(other.cuts(), 50))
    lengths = list(itertools.islice(plan.lives(), 50))
    assert lengths == list(itertools.islice(again.lives(), 50)) != list(itertools.islice(other.lives(), 50))
    assert plan.manners(3).random() == again.manners(3).random() != plan.manners(4).random()


@pytest.mark.parametrize("minutes", [1, 3, 5, 60])
def test_the_middle_third_of_a_run_is_one_life(minutes: float) -> None:
    plan, moments, third = SoakPlan(minutes), [0.0], 20 * minutes
    for life_s in plan.lives():
        if (moment := plan.kill_at(moments[-1], life_s)) is None:
            break
        moments.append(moment)
    assert len(moments) > 2
    assert not [at_s for at_s in moments if third < at_s < 2 * third]
    assert moments == sorted(moments)


def lives(rss_mb: Callable[[int, int], float]) -> list[Sample]:
    """Return a sample a second of lives of 50 s; memory depends on the moment and on the age."""
    return [Sample(at // 50, at, at % 50, rss_mb(at, at % 50), 1, 1) for at in range(LASTS_S)]


def test_memory_that_only_young_processes_lack_is_no_growth() -> None:
    assert last_over_second(lives(lambda _, age: 100 + age), LASTS_S) == 1


def test_memory_that_each_later_process_has_more_of_is_growth() -> None:
    found = last_over_second(lives(lambda at, age: 100 + age + at / 10), LASTS_S)
    assert found is not None
    assert found > 1.1


def test_memory_that_piles_up_within_a_life_is_growth_within_it() -> None:
    length, growth = within_longest_life([Sample(0, at, at, 100 + at, 1, 1) for at in range(LASTS_S)])
    assert length == LASTS_S - 1
    assert growth is not None
    assert growth == pytest.approx(450 / 250, rel=0.01)


def test_without_a_server_there_is_nothing_to_compare() -> None:
    assert last_over_second([], LASTS_S) is None
    assert within_longest_life([]) == (0.0, None)


@pytest.fixture
def layout(tmp_path: Path) -> AdapterLayout:
    """The layout of the soak's tasks."""
    (task, _) = soak_tasks(tmp_path, 12)
    return AdapterLayout.of_lora(
        read_folder(tmp_path / "base").linear_shapes, task.adapter.target_modules, task.adapter.rank
    )


def check(folder: Path, layout: AdapterLayout, after: Vector, receipted: set[int], told: list[int]) -> list[str]:
    """Return the faults of a folder with one committed version, whose round the devices saw."""
    home = folder / "server"
    for version, adapter in enumerate([np.zeros(layout.size, np.float32), after]):
        place = home / "adapters" / "few" / str(version)
        place.mkdir(parents=True)
        (place / "adapter_model.safetensors").write_bytes(to_safetensors(layout, adapter))
    with closing(sqlite3.connect(home / "fedit.db")) as database:
        database.execute("CREATE TABLE rounds (round_id, task_id, round_no, state, result)")
        database.execute("CREATE TABLE adapters (task_id, version, digest, parent_digest, round_no)")
        database.execute("INSERT INTO rounds VALUES ('r', 'few', 1, 'committed', NULL)")
        database.execute("INSERT INTO adapters VALUES ('few', 1, 'b', 'a', 1)")
        database.commit()
    ledger = Ledger(receipted={RoundId("r"): receipted}, _survivors={RoundId("r"): told})
    ledger.check(home, layout, soak_tasks(folder, 12)[:1])
    return ledger.faults


def committed(layout: AdapterLayout, devices: list[int]) -> Vector:
    """Return the adapter after a round of these devices."""
    steps = {device: steps_of(device, 0) for device in devices}
    weights = {device: weight_of_device(device) for device in devices}
    return expected_adapter(np.zeros(layout.size, np.float32), steps, weights)


def test_the_ledger_takes_an_exact_sum(tmp_path: Path, layout: AdapterLayout) -> None:
    assert check(tmp_path, layout, committed(layout, SURVIVORS), {0, 4}, SURVIVORS) == []


def test_the_ledger_sees_a_device_that_was_left_out_counted_twice_or_lost(
    tmp_path: Path, layout: AdapterLayout
) -> None:
    fewer = committed(layout, SURVIVORS[:2])
    (missing,) = check(tmp_path / "a", layout, fewer, set(), SURVIVORS)
    assert "another sum" in missing
    twice = check(tmp_path / "b", layout, committed(layout, SURVIVORS), set(), [*SURVIVORS, 4])
    assert any("twice" in fault for fault in twice)
    (lost,) = check(tmp_path / "c", layout, committed(layout, SURVIVORS), {0, 7}, SURVIVORS)
    assert "lost the uploads of [7]" in lost
