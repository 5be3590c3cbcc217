"""MESSAGES.md, computed from the code: every message that travels, field by field, with its bounds."""

import inspect
import re
import types
import typing
from enum import Enum

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedit_protocol import (
    authority,
    catalogue,
    enrollment,
    evaluation,
    keylog,
    lineage,
    messages,
    metrics,
    signing,
    succession,
    task_record,
)
from fedit_protocol.adapter import AdapterLayout, TensorSpec
from fedit_protocol.encoding import Message
from fedit_protocol.task import TaskDocument

MODULES = (
    signing,
    catalogue,
    enrollment,
    keylog,
    succession,
    messages,
    metrics,
    evaluation,
    authority,
    task_record,
    lineage,
)
"""Where messages are defined, in the order of the page."""

_HEAD = """# The messages

Every message that travels, as canonical CBOR (SPEC, section 2): a map from these names to values of these types. SPEC,
section 7, says who sends which where, and who signs it. *bytes* are CBOR byte strings, *text* is UTF-8, *list* is an
array; `null` where it says so. A field with a default may still not be left out, unless it says so: it is encoded like
any other. The sections of a `Task` are in [TASK.md](TASK.md). This page is made from the code (`python -m
tests.documents`); a test compares them.
"""

_PLAIN = {bytes: "bytes", str: "text", int: "integer", float: "number", bool: "true or false", types.NoneType: "null"}


def message_reference() -> str:
    """Return MESSAGES.md."""
    parts = [_HEAD, *(_section(kind) for kind in travelling())]
    return "\n".join(parts).rstrip() + "\n"


def travelling() -> list[type[BaseModel]]:
    """Return all messages of the protocol, and what a task's document is made of, in the order of the page."""
    found: list[type[BaseModel]] = [
        kind
        for module in MODULES
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message) and kind.__module__ == module.__name__
    ]
    return [*found, TaskDocument, AdapterLayout, TensorSpec]


def _section(kind: type[BaseModel]) -> str:
    said = re.sub(r"\s+", " ", inspect.getdoc(kind) or "")
    hints = typing.get_type_hints(kind, include_extras=True)
    rows = [_row(name, field, hints[name]) for name, field in kind.model_fields.items()]
    return "\n".join([f"## {kind.__name__}", "", said, "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def _row(name: str, field: FieldInfo, hint: object) -> str:
    # The field's metadata holds what stands in the outermost annotation too.
    plain = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    left_out = "; left out while it has its default" if field.exclude_if else ""
    said = f"{field.description or ''}{left_out}"
    return f"| `{name}` | {_type(plain)}{_bounds(field.metadata)} | {said} |".replace("  |", " |")


def _type(hint: object) -> str:
    if isinstance(hint, typing.NewType):
        return _type(hint.__supertype__)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        fields = [item.metadata if isinstance(item, FieldInfo) else [item] for item in inner[1:]]
        return _type(inner[0]) + _bounds([found for group in fields for found in group])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in inner)
    if origin is tuple:
        return "list of " + (_type(inner[0]) if inner[-1] is Ellipsis else " and ".join(map(_type, inner)))
    if origin is typing.Literal:
        return "one of " + ", ".join(f"`{value}`" if value != "" else "empty" for value in inner)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return "one of " + ", ".join(f"`{member.value}`" for member in hint)
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"`{hint.__name__}`"
    return _PLAIN[typing.cast(type, hint)]


def _bounds(metadata: typing.Sequence[object]) -> str:
    """Return the bounds in words."""
    lengths = {type(item): item for item in metadata if isinstance(item, MinLen | MaxLen)}
    least, most = lengths.get(MinLen), lengths.get(MaxLen)
    if isinstance(least, MinLen) and isinstance(most, MaxLen) and least.min_length == most.max_length:
        return f" (length {most.max_length})"
    said = []
    for item in metadata:
        match item:
            case Ge(ge=bound):
                said.append(f"≥ {bound}")
            case Gt(gt=bound):
                said.append(f"> {bound}")
            case Le(le=bound):
                said.append(f"≤ {bound}")
            case Lt(lt=bound):
                said.append(f"< {bound}")
            case MinLen(min_length=bound) if bound:
                said.append(f"length ≥ {bound}")
            case MaxLen(max_length=bound):
                said.append(f"length ≤ {bound}")
            case _:
                pattern = getattr(item, "pattern", None)
                said += [f"like `{pattern}`"] if pattern else []
    return f" ({', '.join(said)})" if said else ""
