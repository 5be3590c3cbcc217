"""`fedit-client policy`: the owner's limits, which no server can loosen, shown and changed in words."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from fedit_client.config import ClientConfig, edit_settings, file_limits
from fedit_client.consent.terms import summarise
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership
from fedit_client.settings.strictness import EMPTY_IS_ANY, is_looser_limit
from fedit_protocol.errors import ConfigError, FeditError
from fedit_protocol.limits import Limits
from fedit_protocol.task import Mode

TRUSTED_MEANS: Final = (
    "In trusted mode the server reads the update of this device by itself, not only the sum of many (level T0).",
    "A single update can reveal rows that it was trained on. Networks, proxies and disks on the way cannot read it.",
    "Allow this only if you would hand your rows to whoever runs the server. Each task still asks for your consent.",
)

_ENVIRONMENT: Final = "FEDIT_LIMITS__"
_FILE_NAME: Final = "client.toml"
_WIDEST: Final = 36


@dataclass(frozen=True)
class Limit:
    """One limit: its value now, where that comes from, what it would be by default, what it means."""

    name: str
    value: Any
    default: Any
    source: str
    meaning: str

    @property
    def is_default(self) -> bool:
        """Whether it has its default value, wherever that stands."""
        return bool(self.value == self.default)

    def words(self) -> tuple[str, str]:
        """Value and default, as a table shows them."""
        return words(self.name, self.value), words(self.name, self.default)

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"name": self.name, "value": _plain(self.value), "default": _plain(self.default),
                "source": self.source, "meaning": self.meaning}  # fmt: skip


@dataclass(frozen=True)
class Policy:
    """All limits, and whether the joined task keeps to them: `task` is its name, `refusal` the error if it does not."""

    file: str
    limits: tuple[Limit, ...]
    task: str | None = None
    refusal: FeditError | None = None

    def as_data(self) -> dict[str, Any]:
        """The answer of `policy show --json`."""
        joined = None
        if self.task is not None:
            said = {"reason": str(self.refusal), "fix": self.refusal.fix} if self.refusal else {}
            joined = {"task": self.task, "fits": self.refusal is None, **said}
        return {"file": self.file, "limits": [limit.as_data() for limit in self.limits], "joined": joined}

    def lines(self) -> list[str]:
        """The same as a table in words."""
        rows = [("  limit", "value", "default", "meaning")] + [
            (f"{' ' if limit.is_default else '*'} {limit.name}", *limit.words(), limit.meaning) for limit in self.limits
        ]
        wide = [max(len(row[column]) for row in rows) for column in range(3)]
        table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*wide, 0], strict=True)) for row in rows]
        elsewhere = [limit.name for limit in self.limits if limit.source not in {"default", _FILE_NAME}]
        return [
            f"policy in {self.file}; no server can loosen any of it; * differs from the default",
            "",
            *table,
            "",
            *([f"from the environment, above the file: {', '.join(elsewhere)}"] if elsewhere else []),
            *self._verdict(),
        ]

    def _verdict(self) -> list[str]:
        if self.task is None:
            return ["no federation is joined, so there is no task to hold against this"]
        if self.refusal is None:
            return [f"the joined task {self.task} keeps to it"]
        return [
            f"the joined task {self.task} does not keep to it: {self.refusal}",
            f"  fix: {self.refusal.fix or 'none'}",
        ]


def policy_of(config: ClientConfig) -> Policy:
    """Return the policy in force, held against the joined task; raises ConfigError C002, StorageError."""
    paths = config.paths
    stated = file_limits(paths)
    limits = tuple(
        Limit(name, getattr(config.limits, name), _default(field), _source(name, stated), field.description or "")
        for name, field in Limits.model_fields.items()
    )
    membership = load_membership(paths.membership_file)
    if membership is None:
        return Policy(str(paths.settings_file), limits)
    refusal = None
    try:
        summarise(membership.task_document, membership.federation.descriptor, config.limits)
    except FeditError as error:
        refusal = error
    return Policy(str(paths.settings_file), limits, membership.consent, refusal)


def differing(config: ClientConfig) -> dict[str, Any]:
    """Return the limits that have another value than by default."""
    fields = Limits.model_fields.items()
    return {name: value for name, field in fields if (value := getattr(config.limits, name)) != _default(field)}


@dataclass(frozen=True)
class Change:
    """A limit before and after; not written yet."""

    name: str
    before: Any
    after: Any

    @property
    def needs_a_yes(self) -> bool:
        """Whether it lets servers see single updates, which nobody should allow by a slip of the hand."""
        return self.name == "modes" and Mode.TRUSTED in self.after and Mode.TRUSTED not in self.before

    def lines(self) -> list[str]:
        """What changes, and in which direction, in words."""
        before, after = words(self.name, self.before), words(self.name, self.after)
        if self.before == self.after:
            return [f"{self.name} is {after}, as before"]
        loose = ["this is looser than before: tasks that were refused may now be offered"] * self.is_looser
        return [f"{self.name} is now {after}, it was {before}", *loose]

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {
            "limit": self.name,
            "value": _plain(self.after),
            "before": _plain(self.before),
            "looser": self.is_looser,
        }

    @property
    def is_looser(self) -> bool:
        """Whether some task that was refused may pass now."""
        return is_looser_limit(self.name, self.before, self.after)


def wished(config: ClientConfig, name: str, text: str) -> Change:
    """Return what setting a limit would change; raises ConfigError C001 for a name or a value that cannot be."""
    field = _field(name)
    key = name.removeprefix("limits.")
    many = isinstance(_default(field), tuple)
    value: Any = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip())) if many else text
    if many and not value and _default(field):  # an empty list means any only where the default says so
        raise ConfigError(
            f"{key} cannot be empty: no task would be left ({field.description})",
            code="C001",
            where="command line",
            fix=f"fedit-client policy set {key} {_text(_default(field))}",
        )
    try:
        after = getattr(Limits.model_validate(config.limits.model_dump() | {key: value}), key)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ConfigError(
            f"{key} cannot be {text!r}: {first['msg'].lower().removeprefix('value error, ')} ({field.description})",
            code="C001",
            where="command line",
            fix=f"fedit-client policy set {key} {_text(_default(field)) or 'VALUE'}",
        ) from error
    return Change(key, getattr(config.limits, key), after)


def unset(config: ClientConfig, name: str) -> Change:
    """Return what going back to the default would change; raises ConfigError C001 for a name that is none."""
    field = _field(name)
    key = name.removeprefix("limits.")
    return Change(key, getattr(config.limits, key), _default(field))


def write(paths: Paths, change: Change, *, remove: bool = False) -> None:
    """Write one limit into client.toml, or take it out; everything else in the file stays. Raises ConfigError."""
    value = None if remove else _plain(change.after)
    edit_settings(paths, {f"limits.{change.name}": value})


def overruled(change: Change) -> str | None:
    """Return the variable of the environment that hides what the file says, if there is one."""
    return _variable(change.name)


def words(name: str, value: Any) -> str:
    """A limit's value for people, cut where a table would burst."""
    text = _text(value) or ("any" if name in EMPTY_IS_ANY else "none")
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _field(name: str) -> FieldInfo:
    key = name.removeprefix("limits.")
    found = Limits.model_fields.get(key)
    if found is None:
        near = get_close_matches(key, Limits.model_fields, n=1)
        raise ConfigError(f"there is no limit {key!r}" + (f"; is it {near[0]}?" if near else ""), code="C001",
                          where="command line", fix="fedit-client policy show")  # fmt: skip
    return found


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=True)


def _text(value: Any) -> str:
    """A value as `policy set` takes it."""
    return ",".join(value) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    return [str(part) for part in value] if isinstance(value, tuple) else value


def _source(name: str, stated: dict[str, Any]) -> str:
    return _variable(name) or (_FILE_NAME if name in stated else "default")


def _variable(name: str) -> str | None:
    wanted = (_ENVIRONMENT + name).upper()
    return next((variable for variable in os.environ if variable.upper() == wanted), None)
