"""The public surface: names, signatures, fields. What a release has promised stays; more may be added.

After a wanted addition: FEDIT_TEST_SNAPSHOTS=1 pytest tests/client/test_public_api.py
"""

import dataclasses
import enum
import inspect
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

import fedit_client
import fedit_client.testing

SNAPSHOT = Path(__file__).parent / "snapshots" / "public_api.txt"
FAKES = ("FakeTrainer", "LoopbackServer", "LoopbackTransport")
# What FedIT fills in and programs may read: their names stay, what kind of number or text they are is theirs to say.
READ_ONLY = ("ClientConfig", "DevicePlan", "Membership")


def lines_of(name: str, value: Any) -> Iterator[str]:
    """One line for each thing that a program can rely on."""
    if not inspect.isclass(value):
        yield f"{name}: {value!r}"
    elif issubclass(value, BaseException):
        yield f"{name}({', '.join(base.__name__ for base in value.__bases__)})"
    elif issubclass(value, enum.Enum):
        yield from (f"{name}.{member.name} = {member.value!r}" for member in value)
    elif issubclass(value, BaseModel):
        yield from (f"{name}.{field}: {_short(info.annotation)}" for field, info in value.model_fields.items())
    else:
        yield from _members(name, value)


def _members(name: str, value: type[Any]) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        yield from (f"{name}.{field.name}: {_short(field.type)}" for field in dataclasses.fields(value) if field.init)
    for owner in reversed(value.__mro__):
        for member, found in vars(owner).items() if owner.__module__.startswith("fedit_") else ():
            if member.startswith("_"):
                continue
            if isinstance(found, property):
                yield f"{name}.{member}: {_short(inspect.signature(found.fget).return_annotation)}"  # type: ignore[arg-type] # it has one
            elif isinstance(found, classmethod | staticmethod):
                yield from _call(f"{name}.{member}", found.__func__)
            elif inspect.isfunction(found):
                yield from _call(f"{name}.{member}", found)


def _call(name: str, function: Any) -> Iterator[str]:
    """A line for each parameter, so that one more of them, with a default, breaks no promise."""
    signature = inspect.signature(function)
    kind = "async " if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function) else ""
    yield f"{name}() is {kind}-> {_short(signature.return_annotation)}"
    for parameter in list(signature.parameters.values())[1:]:
        by_name = "*" if parameter.kind is parameter.KEYWORD_ONLY else ""
        default = "" if parameter.default is parameter.empty else f" = {_default(parameter.default)}"
        yield f"{name}({by_name}{parameter.name}: {_short(parameter.annotation)}{default})"


def _default(value: Any) -> str:
    return repr(value) if value is None or isinstance(value, str | int | float | tuple) else "…"


def _short(annotation: Any) -> str:
    """A type by its last name: in which module it lies is nobody's business."""
    text = annotation.__name__ if inspect.isclass(annotation) and not get_args(annotation) else str(annotation)
    return re.sub(r"(?:\w+\.)+(?=\w)", "", text).replace("'", '"')


def surface() -> list[str]:
    """Every public name of the SDK and of its fakes, sorted."""
    public = {name: getattr(fedit_client, name) for name in fedit_client.__all__}
    public |= {f"testing.{name}": getattr(fedit_client.testing, name) for name in FAKES}
    found = {
        line.partition(":")[0] if name in READ_ONLY else line
        for name, value in public.items()
        for line in (name, *lines_of(name, value))
    }
    return sorted(found)


def test_what_was_promised_is_there() -> None:
    now = surface()
    if os.environ.get("FEDIT_TEST_SNAPSHOTS") == "1":
        SNAPSHOT.write_text("\n".join(now) + "\n", encoding="utf-8")
    promised = set(SNAPSHOT.read_text("utf-8").splitlines())
    assert sorted(promised - set(now)) == []


def test_everything_public_says_what_it_is_for() -> None:
    undocumented = [
        f"{name}.{member}"
        for name in fedit_client.__all__
        if inspect.isclass(value := getattr(fedit_client, name))
        for member, found in vars(value).items()
        if not member.startswith("_") and inspect.isfunction(found) and not found.__doc__
    ]
    assert undocumented == []


def test_no_public_signature_leaves_a_type_open() -> None:
    """mypy checks the rest; here it is only seen that nobody made a public call untyped."""
    for name in ("Client", "SyncClient", "DataSource", "Trainer"):
        for member, found in vars(getattr(fedit_client, name)).items():
            if inspect.isfunction(found) and not member.startswith("_"):
                signature = inspect.signature(found)
                assert signature.return_annotation is not inspect.Signature.empty, f"{name}.{member}"
                assert all(
                    parameter.annotation is not inspect.Parameter.empty
                    for place, parameter in enumerate(signature.parameters.values())
                    if place
                ), f"{name}.{member}"
