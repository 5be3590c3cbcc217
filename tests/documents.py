"""What the documents say, computed from the code: `python -m tests.documents` rewrites the generated parts."""

import types
import typing
from enum import Enum
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedit_protocol.task import Task

from .message_reference import message_reference

ROOT = Path(__file__).resolve().parent.parent
TASK_REFERENCE = ROOT / "protocol" / "TASK.md"
MESSAGE_REFERENCE = ROOT / "protocol" / "MESSAGES.md"

_HEAD = """# The task file

A task is data: TOML, validated before anything happens, unknown keys refused. `fedit-server up --task FILE` publishes
it, `fedit-server task check FILE` only checks it. What people agree to is `ID@VERSION`: raise `version` with every
change. This page is made from the code (`python -m tests.documents`), and a test compares them.

A small file that works:

```toml
id = "clinic-notes"
title = "Clinic notes"

[base]
model = "HuggingFaceTB/SmolLM2-135M-Instruct"
```
"""


def task_reference() -> str:
    """Return TASK.md: one table per section of the task file."""
    return "\n".join([_HEAD, *_tables(Task, "")]).rstrip() + "\n"


def _tables(model: type[BaseModel], path: str) -> list[str]:
    fields = model.model_fields
    sections = {name: section for name, field in fields.items() if (section := _section(field)) is not None}
    lines = [
        f"## `[{path}]`" if path else "## Top level",
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    lines += [_row(name, field) for name, field in fields.items() if name not in sections]
    lines.append("")
    for name, section in sections.items():
        lines += _tables(section, f"{path}.{name}" if path else name)
    return lines


def _row(name: str, field: FieldInfo) -> str:
    default = "required" if field.is_required() else f"`{_plain(field.get_default(call_default_factory=True))}`"
    return f"| `{name}` | {_type(field.annotation)} | {default} | {field.description} |"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    parts = typing.get_args(field.annotation)
    optional = len(parts) == 2 and parts[1] is types.NoneType  # a table that may be left out
    annotation = parts[0] if optional else field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _type(annotation: object) -> str:
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(f"`{member.value}`" for member in annotation)
    if typing.get_origin(annotation) is tuple:
        return "list of texts"
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return "text"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
    return names.get(getattr(annotation, "__name__", ""), "text")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{part}"' for part in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    TASK_REFERENCE.write_text(task_reference(), encoding="utf-8")
    MESSAGE_REFERENCE.write_text(message_reference(), encoding="utf-8")
