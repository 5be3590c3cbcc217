"""`set KEY=VALUE` held against what there is: an unknown key is answered with the nearest, a value with what may be."""

from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from shlex import quote
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from fedit_client.settings.origin import shown
from fedit_client.settings.project_file import leaves
from fedit_protocol.errors import ConfigError

_NUMBERS: Final[dict[Any, str]] = {int: "a whole number", float: "a number"}
_BOUNDS: Final = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
_ALIKE: Final = 0.7


def check_assignments(model: type[BaseModel], values: Mapping[str, Any]) -> None:
    """Raise ConfigError C001 for a name that no setting has, or for a value that it cannot have."""
    fields = dict(leaves(model))
    for key, value in values.items():
        if key not in fields:
            raise _unknown(model, key, value, list(fields))
        if (error := _error_of(model, key, value)) is not None:
            raise _refused(key, value, fields[key], error) from error


def _error_of(model: type[BaseModel], key: str, value: Any) -> ValidationError | None:
    """What is wrong with a value, by the table that the setting lives in: no other setting has a say."""
    *tables, name = key.split(".")
    for table in tables:
        inner = model.model_fields[table].annotation
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            raise RuntimeError(f"{table} is no table")
        model = inner
    if not tables:  # of the whole file: texts, which are never refused
        return None
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return error
    return None


def _unknown(model: type[BaseModel], key: str, value: Any, known: list[str]) -> ConfigError:
    """Name the nearest setting of the same table, else show the table; the value goes along where it fits."""
    table, _, name = key.rpartition(".")
    names = [other.rpartition(".")[2] for other in known if other.rpartition(".")[0] == table]
    near = next((f"{table}.{one}".lstrip(".") for one in get_close_matches(name, names, n=1, cutoff=_ALIKE)), None)
    if near is None:
        words, fix = "", f"fedit-client get {table}" if names and table else "fedit-client config show"
    elif _error_of(model, near, value) is None:
        words, fix = f"; the nearest is {near}", f"fedit-client set {near}={quote(shown(value))}"
    else:
        words, fix = f"; the nearest is {near}", f"fedit-client get {near}"
    return ConfigError(f"there is no setting {key}{words}", code="C001", where="command line", fix=fix)


def _refused(key: str, value: Any, field: FieldInfo, error: ValidationError) -> ConfigError:
    first = error.errors(include_input=False, include_url=False)[0]
    ours = first["msg"].removeprefix("Value error, ") if first["type"] == "value_error" else ""
    may_be = allowed(field)
    why = ours or f"it takes {may_be}"
    return ConfigError(f"{key} cannot be {shown(value)}: {why}", code="C001", where="command line",
                       fix=f"fedit-client set {key}={quote(_example(field))}")  # fmt: skip


def allowed(field: FieldInfo) -> str:
    """Return what a setting may be, in words."""
    kinds = [kind for kind in _kinds(field.annotation) if kind is not NoneType]
    choices = _choices(kinds[0]) if kinds else []
    if choices:
        return " or ".join((", ".join(choices[:-1]), choices[-1])) if len(choices) > 1 else choices[0]
    words = _NUMBERS.get(kinds[0], "a text") if kinds else "a text"
    bounds = ", ".join(f"{say} {limit:,}" for say, limit in _bounds(field))
    return f"{words} of {bounds}" if bounds else words


def _example(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is not None:
        return shown(default)
    bounds = dict(_bounds(field))
    low = bounds.get("at least", bounds.get("above", 0) + 1)
    return f"{low:g}" if any(kind in _NUMBERS for kind in _kinds(field.annotation)) else "VALUE"


def _kinds(annotation: Any) -> tuple[Any, ...]:
    return (annotation,) if get_origin(annotation) in (None, Literal, tuple) else get_args(annotation)


def _choices(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [shown(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return ["true", "false"] if kind is bool else []


def _bounds(field: FieldInfo) -> list[tuple[str, float]]:
    found = {name: getattr(part, name) for part in field.metadata for name, _ in _BOUNDS if hasattr(part, name)}
    return [(say, found[name]) for name, say in _BOUNDS if name in found]
