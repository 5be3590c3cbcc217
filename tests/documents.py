"""What the documents say, computed from the code: `python -m tests.documents` rewrites the generated parts."""

import types
import typing
from enum import Enum
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedit_protocol.task import Task

from .command_reference import command_reference
from .message_reference import message_reference

ROOT = Path(__file__).resolve().parent.parent
TASK_REFERENCE = ROOT / "protocol" / "TASK.md"
MESSAGE_REFERENCE = ROOT / "protocol" / "MESSAGES.md"

SETTINGS_REFERENCE = ROOT / "fedit_client" / "SETTINGS.md"
SERVER_SETTINGS_REFERENCE = ROOT / "fedit_server" / "SETTINGS.md"
COMMAND_REFERENCES = {name: ROOT / name.replace("-", "_") / "COMMANDS.md" for name in ("fedit-client", "fedit-server")}

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


_SETTINGS_HEAD = """# Settings of `fedit-client`

`fedit-client set KEY=VALUE` changes `client.toml` and says the new rule back; `fedit-client config show --origin` says
where each value comes from: flag, `FEDIT_` environment (`__` nests), `--config FILE` or `./fedit.toml`, `client.toml`,
default. The limits have a command of their own, `fedit-client policy`. This page is made from the code
(`python -m tests.documents`), and a test compares them.
"""


def settings_reference() -> str:
    """Return SETTINGS.md: one table per section of client.toml."""
    from fedit_client.config import ClientConfig

    return "\n".join([_SETTINGS_HEAD, *_tables(ClientConfig, "")]).rstrip() + "\n"


_SERVER_SETTINGS_HEAD = """# Settings of `fedit-server`

`fedit-server config show --origin` says where each value comes from: flag, `FEDIT_SERVER_` environment (lists with
commas), `--config FILE` or `server.toml` in the data folder, default. `fedit-server config edit` opens the file and
refuses what cannot be. Unknown names are refused with the nearest one. This page is made from the code (`python -m
tests.documents`), and a test compares them.
"""


def server_settings_reference() -> str:
    """Return SETTINGS.md of the server: the settings file's one table."""
    from fedit_server.config import ServerConfig
    from fedit_server.settings import is_secret

    rows = [
        _row(name, field).removesuffix(" |")
        + (f"; `{name}_file` names a file that holds it |" if is_secret(field) else " |")
        for name, field in ServerConfig.model_fields.items()
        if name != "home"
    ]
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([_SERVER_SETTINGS_HEAD, *head, *rows]) + "\n"


def references() -> dict[Path, str]:
    """Return every page that is made from the code, with its text."""
    from fedit_client.cli import app as client
    from fedit_server.cli import app as server

    commands = {"fedit-client": client, "fedit-server": server}
    return {
        TASK_REFERENCE: task_reference(),
        MESSAGE_REFERENCE: message_reference(),
        SETTINGS_REFERENCE: settings_reference(),
        SERVER_SETTINGS_REFERENCE: server_settings_reference(),
        **{COMMAND_REFERENCES[name]: command_reference(name, app) for name, app in commands.items()},
    }


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
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = "required" if field.is_required() else "empty" if value is None else f"`{_plain(value)}`"
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
        item = typing.get_args(annotation)[0]
        tables = isinstance(item, type) and issubclass(item, BaseModel)
        return "list of tables" if tables else "list of texts"
    if typing.get_origin(annotation) is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        first, *rest = typing.get_args(annotation)
        return _type(first) if rest == [types.NoneType] else "text"
    names = {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}
    return names.get(getattr(annotation, "__name__", ""), "text")


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{part}"' for part in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    for page, text in references().items():
        page.write_text(text, encoding="utf-8")
