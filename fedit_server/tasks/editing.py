"""A new version of a task: which settings differ, and the file that an operator edits."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import tomlkit

from fedit_protocol.errors import ConfigError
from fedit_protocol.task import Task
from fedit_server.storage.rows import TaskRow
from fedit_server.tasks.start_adapter import carried_on

_NONE: Final = "none"


@dataclass(frozen=True)
class Change:
    """One setting that is no longer as it was; values as the task file writes them."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class EditPlan:
    """What an edit does: the version that it makes, and what each device's owner will be asked again."""

    task: Task
    old_version: int
    changes: tuple[Change, ...]
    draft: bool
    """Whether nobody was told of the task yet, so that nobody is asked."""

    def as_data(self) -> dict[str, Any]:
        """Return the data of `task edit --json`."""
        return {
            "task": self.task.id,
            "version": self.task.version,
            "old_version": self.old_version,
            "draft": self.draft,
            "changes": [asdict(change) for change in self.changes],
        }


def plan_edit(known: TaskRow, wanted: Task) -> EditPlan:
    """Return what changes when the known task becomes the wanted one; its version is raised where the file did not.

    Raises ConfigError C120 for another id, U125 if nothing changes, C015 for a version that is older.
    """
    before = Task.model_validate_json(known.source)
    wanted = carried_on(before, wanted)
    if wanted.id != known.task_id:
        raise ConfigError(
            f"the file describes the task {wanted.id}, not {known.task_id}; the id of a task stays",
            code="C120",
            fix=f"set id = {known.task_id!r} in the file, or: fedit-server task create FILE",
        )
    draft = known.state == "draft"
    version = wanted.version
    if not draft and version == known.version:
        version += 1
    changes = tuple(_changes(before, wanted))
    if not changes:
        raise ConfigError(
            f"nothing changes: the task {known.task_id} is like this already",
            code="U125",
            fix=f"fedit-server task show {known.task_id}",
        )
    if version < known.version:
        raise ConfigError(
            f"the file says version {version}, but version {known.version} is published",
            code="C015",
            where=known.task_id,
            fix=f"set version = {known.version + 1} in the task file, or leave it at {known.version}",
        )
    return EditPlan(wanted.model_copy(update={"version": version}), known.version, changes, draft)


def task_toml(known: TaskRow) -> str:
    """Return a known task as a file: what differs from the defaults, for an editor."""
    task = Task.model_validate_json(known.source)
    values = task.model_dump(mode="json", exclude_defaults=True, exclude={"version"})
    file = tomlkit.document()
    file.add(tomlkit.comment(f" {task.label}. The version is raised by itself; owners are asked about what changes."))
    file.add(tomlkit.comment(" All settings and their defaults: fedit-server task schema"))
    # Plain values first: what stands behind a table's head belongs to that table.
    for name in sorted(values, key=lambda name: isinstance(values[name], dict)):
        file.add(name, tomlkit.item(values[name]))
    return tomlkit.dumps(file)


def _changes(before: Task, after: Task) -> Iterator[Change]:
    old, new = (dict(_flat("", task.model_dump(mode="json", exclude={"version"}))) for task in (before, after))
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name, _NONE) != new.get(name, _NONE):
            yield Change(name, old.get(name, _NONE), new.get(name, _NONE))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _NONE if value in (None, "") else _plain(value)


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or _NONE
    return str(value).lower() if isinstance(value, bool) else str(value)
