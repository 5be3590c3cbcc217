"""A task as a file in the page's editor, and what the server says of it before anything is published."""

import tomllib
from typing import Final

from fedit_protocol.errors import ConfigError, FeditError
from fedit_protocol.task import Task
from fedit_server.admin.operations import Admin
from fedit_server.admin.tasks import TaskDesk
from fedit_server.dashboard.views.model import Fact, View
from fedit_server.dashboard.views.task import task_facts
from fedit_server.tasks.editing import task_toml
from fedit_server.tasks.files import check_task

MOST_CHARACTERS: Final = 256 * 1024
_WHERE: Final = "the editor"

_FIRST: Final = """\
# A task is data, never code: which model is trained, how, and by how many devices.
# Every setting and its default: fedit-server task schema
id = "clinic-notes"
title = "Clinic notes"
operator = "Who runs this, in words"

[base]
model = "Qwen/Qwen3-4B-Instruct-2507"

[adapter]
rank = 16
target_modules = ["q_proj", "k_proj", "v_proj", "o_proj"]

[training]
local_steps = 20
batch_size = 8
micro_batch_size = 2

[round]
rounds = 50
cohort_min = 12
cohort_size = 24
"""


class Problem(View):
    """Why a file is no task, or cannot be published."""

    code: str
    message: str
    where: str
    fix: str


class ChangeLine(View):
    """One setting that would change; devices' owners are asked about it."""

    name: str
    old: str
    new: str


class Verdict(View):
    """What the server says of a file."""

    problem: Problem | None
    label: str
    """`ID@VERSION` that publishing would make."""
    changes: tuple[ChangeLine, ...]
    facts: tuple[Fact, ...]
    asks: bool
    """Whether owners of devices are asked again; nobody is about a new task or a draft."""


class EditorPage(View):
    """The editor with a file in it."""

    task: str
    """The task that is edited; empty for a new one."""
    title: str
    toml: str
    verdict: Verdict | None


async def editor_page(admin: Admin, name: str) -> EditorPage:
    """Return the editor with a task's file, or the beginning of a new one; raises ConfigError U025."""
    if not name:
        return EditorPage(task="", title="New task", toml=_FIRST, verdict=None)
    row = await admin.task(name)
    return EditorPage(task=row.task_id, title=row.document.task.title, toml=task_toml(row), verdict=None)


def read_task(text: str) -> Task:
    """Return the task that a file describes; raises ConfigError: C010 too long, C011 no TOML, C013, C020, C021."""
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"a task file has at most {MOST_CHARACTERS} characters", code="C010", where=_WHERE, fix="leave some out"
        )
    try:
        values = tomllib.loads(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"this is not valid TOML: {error}", code="C011", where=_WHERE, fix="correct that line; strings need quotes"
        ) from error
    return check_task(values, _WHERE)


async def verdict(admin: Admin, name: str, text: str) -> Verdict:
    """Check a file as far as publishing would, and say what it changes; nothing is written."""
    try:
        task = read_task(text)
        if not name:
            return Verdict(problem=None, label=task.label, changes=(), facts=task_facts(task), asks=False)
        plan = await TaskDesk(admin).plan_edit(name, task)
    except FeditError as error:
        return refused(error)
    changes = tuple(ChangeLine(name=one.name, old=one.old, new=one.new) for one in plan.changes)
    return Verdict(
        problem=None, label=plan.task.label, changes=changes, facts=task_facts(plan.task), asks=not plan.draft
    )


def refused(error: FeditError) -> Verdict:
    """Return an error as a verdict."""
    problem = Problem(
        code=f"FEDIT-{error.code}", message=str(error), where=error.where or "", fix=error.fix or error.again or ""
    )
    return Verdict(problem=problem, label="", changes=(), facts=(), asks=False)
