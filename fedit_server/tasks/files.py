"""From a TOML file, or from two options, to a task that is checked as far as it can be without its base model."""

import re
import tomllib
import unicodedata
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from fedit_protocol.accounting import check_meaning
from fedit_protocol.errors import ConfigError
from fedit_protocol.feasible import check_feasible
from fedit_protocol.ids import TaskId
from fedit_protocol.state_layout import RankTooWideError
from fedit_protocol.task import BaseModelSpec, Task, TaskDocument
from fedit_server.tasks.base_model import BaseModel
from fedit_server.tasks.retention import take_retention

_MAX_FILE_BYTES: Final = 256 * 1024
_CHECK: Final = "fedit-server task check FILE"


def load_task(path: Path) -> Task:
    """Read a task file; raises ConfigError C010 (file), C011 (TOML), C013 (a key, named), C020, C021 (infeasible)."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(
                f"a task file has at most {_MAX_FILE_BYTES} bytes",
                code="C010",
                where=str(path),
                fix="name the task's TOML file; its settings: fedit-server task schema",
            )
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(
            f"the task file cannot be read: {(error.strerror or '').lower()}",
            code="C010",
            where=str(path),
            fix=f"check the path: ls -l {path.parent}",
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"the task file is not valid TOML: {error}",
            code="C011",
            where=str(path),
            fix=f"correct it, then: fedit-server task check {path}",
        ) from error
    take_retention(values, str(path))  # the operator's own; devices never see it
    return check_task(values, str(path), path.parent)


def check_task(values: dict[str, Any], where: str, folder: Path | None = None) -> Task:
    """Validate a task's values; a base that is a folder is taken relative to the task file.

    Raises ConfigError C013, C020, C021.
    """
    try:
        task = Task.model_validate(values)
    except ValidationError as error:
        raise _first_fault(error, where) from error
    base = None if folder is None else folder / task.base.model
    if base is not None and base.is_dir() and not Path(task.base.model).is_absolute():
        task = task.model_copy(update={"base": task.base.model_copy(update={"model": str(base.resolve())})})
    try:
        check_feasible(task)
    except ConfigError as error:
        raise ConfigError(str(error), code=error.code, where=f"{where}, [round]", fix=_CHECK) from error
    return task


def default_task(model: str, name: str | None) -> Task:
    """Return the task of `up --model REPO --name TEXT`: every setting at its default."""
    title = name or model.rstrip("/").rpartition("/")[2]
    base = BaseModelSpec.model_validate({"model": model})
    try:
        return Task(id=slug(title), title=title, base=base)
    except ValidationError as error:
        raise _first_fault(error, "command line") from error


def slug(title: str) -> TaskId:
    """Return a task id made of a title: `Clinic notes` → `clinic-notes`."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return TaskId(re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:63].strip("-") or "task")


def resolve(task: Task, base: BaseModel) -> TaskDocument:
    """Return the document that is published: the base's digest filled in, the adapter laid out.

    Raises ConfigError C014 if a target module fits no linear layer of the base, C025 or C026 if the epsilon of its
    noise cannot be computed here or says nothing, C050 if a rank is too wide for a layer, C023 or C041 if a layer is
    too narrow for the method.
    """
    pinned = task.base.model_copy(update={"digest": base.digest})
    try:
        document = TaskDocument.of(task.model_copy(update={"base": pinned}), base.shapes, base.size)
    except RankTooWideError as error:
        raise ConfigError(
            f"{error}: its bases cannot be orthonormal",
            code="C050",
            where=task.label,
            fix=f"set rank = {error.most} or less in the task file, under [adapter]",
        ) from error
    except ValueError as error:
        present = sorted({path.rpartition(".")[2] for path in base.linear_shapes})
        raise ConfigError(
            f"adapter.target_modules: {error}; it has {', '.join(present) or 'none'}",
            code="C014",
            where=task.label,
            fix="name some of these in the task file, under [adapter]: target_modules",
        ) from error
    check_meaning(document)
    return document


def _first_fault(error: ValidationError, where: str) -> ConfigError:
    """Name the key as the file writes it, say what is wrong with it, and leave the value out."""
    faults = error.errors(include_url=False, include_input=False)
    fault = faults[0]
    key = ".".join(str(part) for part in fault["loc"]) or "the task"
    reason = "this key does not exist" if fault["type"] == "extra_forbidden" else fault["msg"]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    reason = reason.removeprefix("Value error, ")
    return ConfigError(
        f"{key}: {reason[:1].lower()}{reason[1:]}{more}", code="C013", where=where, fix="fedit-server task schema"
    )
