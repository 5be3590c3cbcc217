"""Settings that came with a later minor: tasks without them keep their bytes, tasks with them need that minor."""

from typing import Any

import pytest
from pydantic import ValidationError

from fedit_protocol.round_plan import NEW_SETTINGS, version_of
from fedit_protocol.task import Task
from fedit_protocol.testing import small_task

TABLES: dict[tuple[str, str], dict[str, Any]] = {
    ("adapter", "start"): {"adapter": {"start": f"sha256:{0:064x}"}},
    ("training", "evaluate_every"): {"training": {"evaluate_every": 5}},
    ("training", "proximal"): {"training": {"proximal": 0.1}},
    ("training", "max_steps"): {"training": {"max_steps": 5, "local_steps": 0}, "encoding": {"value_range": 0.1}},
    ("optimizer", "name"): {"optimizer": {"name": "nesterov"}},
    ("selection", "domains"): {"selection": {"domains": ["a", "b"]}, "round": {"selection": "stratified"}},
    ("encoding", "packed"): {"encoding": {"packed": True}},
    ("method", "audit_every"): {"method": {"audit_every": 5}},
    ("method", "diversity"): {"method": {"diversity": True}},
}
"""Tasks with each new setting, and with what it needs beside it."""


def task(tables: dict[str, Any]) -> Task:
    return Task.model_validate({"id": "t", "title": "T", "base": {"model": "m"}, **tables})


def test_every_new_setting_is_tried() -> None:
    assert set(TABLES) == set(NEW_SETTINGS)


@pytest.mark.parametrize(("section", "key"), TABLES)
def test_a_new_setting_needs_its_minor(section: str, key: str) -> None:
    document = small_task()
    assert version_of(document) == (2, 0)
    assert version_of(document.model_copy(update={"task": task(TABLES[section, key])})) == (2, 2)


@pytest.mark.parametrize(("section", "key"), TABLES)
def test_a_setting_at_its_default_is_not_in_the_document(section: str, key: str) -> None:
    assert key not in task({}).model_dump().get(section, {})
    assert key in task(TABLES[section, key]).model_dump()[section]


COUNTS_ALL_STEPS: dict[str, dict[str, Any]] = {
    "scaffold": {"method": {"name": "scaffold", "population": 10}, "round": {"mode": "trusted"}},
    "fedkseed": {"method": {"name": "fedkseed"}},
    "fednova": {"optimizer": {"fednova": True}},
}


@pytest.mark.parametrize("name", COUNTS_ALL_STEPS)
def test_the_best_step_is_refused_where_all_steps_are_counted(name: str) -> None:
    tables = {"encoding": {"value_range": 0.1}, **COUNTS_ALL_STEPS[name]}
    task(tables)
    with pytest.raises(ValidationError, match="evaluate_every cannot take back"):
        task({**tables, "training": {"evaluate_every": 5}})
