"""Where settings come from: flag > FEDIT_SERVER_* environment > settings file > default; each value knows its source.

A secret may also be named as a file: `NAME_file` in the settings file, FEDIT_SERVER_NAME_FILE in the environment.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fedit_protocol.errors import ConfigError

PREFIX: Final = "FEDIT_SERVER_"
HIDDEN: Final = "***"
_NO_SETTINGS: Final = frozenset({"FEDIT_SERVER_URL"})
"""Of commands that ask a server elsewhere."""
_FILE: Final = "_file"


@dataclass(frozen=True)
class Setting:
    """One setting: its name, its value (`***` for a secret), where that comes from, what it means."""

    key: str
    value: Any
    source: str
    default: Any
    meaning: str

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"key": self.key, "value": _plain(self.value), "source": self.source,
                "default": _plain(self.default), "meaning": self.meaning}  # fmt: skip

    @property
    def text(self) -> str:
        """The value for people."""
        if self.value is None:
            return "–"
        if isinstance(self.value, tuple | list):
            return ", ".join(map(str, self.value)) or "–"
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value) or "–"


@dataclass(frozen=True)
class Sources:
    """What flags, environment and file say, unchecked; `origin` names for each setting who decides."""

    values: dict[str, Any]
    origin: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls, model: type[BaseModel], flags: Mapping[str, Any], environment: Mapping[str, str], file: Path
    ) -> "Sources":
        """Merge all sources; raises ConfigError C001 for a setting that there is not, C002 for an unreadable file."""
        values: dict[str, Any] = {}
        origin: dict[str, str] = {}
        given = {name: value for name, value in flags.items() if value is not None}
        for source, said in (
            (str(file), _checked(model, _from_file(file), str(file))),
            ("environment", _checked(model, _from_environment(environment), "environment")),
            ("command line", given),
        ):
            values |= said
            origin |= dict.fromkeys(said, source)
        return cls(values, origin)


def settings_of(config: BaseModel, origin: Mapping[str, str]) -> tuple[Setting, ...]:
    """Return every setting in the order of the model, secrets hidden."""
    return tuple(
        Setting(
            key=name,
            value=HIDDEN if is_secret(info) and getattr(config, name) else getattr(config, name),
            source=origin.get(name, "default"),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            meaning=info.description or "",
        )
        for name, info in type(config).model_fields.items()
    )


def is_secret(info: FieldInfo) -> bool:
    """Whether a setting's value is never shown: `json_schema_extra={"secret": True}`."""
    return isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("secret") is True


def unknown_setting(name: str, source: str, model: type[BaseModel]) -> ConfigError:
    """Return what to say about a setting that there is not."""
    known = [key for key in model.model_fields if key != "home"]
    near = get_close_matches(name, known, n=1)
    fix = f"write {near[0]}" if near else "fedit-server config show"
    return ConfigError(f"there is no setting {name}", code="C001", where=source, fix=fix)


def _checked(model: type[BaseModel], said: Mapping[str, Any], source: str) -> dict[str, Any]:
    return dict(_known(model, said, source))


def _known(model: type[BaseModel], said: Mapping[str, Any], source: str) -> Iterator[tuple[str, Any]]:
    for name, value in said.items():
        secret = model.model_fields.get(name.removesuffix(_FILE))
        if name in model.model_fields and name != "home":
            yield name, value
        elif name.endswith(_FILE) and secret is not None and is_secret(secret):
            yield name.removesuffix(_FILE), _secret_in(Path(str(value)), source)
        else:
            raise unknown_setting(name, source, model)


def _secret_in(file: Path, source: str) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file of a secret cannot be read", code="C002", where=f"{file}, named by {source}",
                          fix=f"ls -l {file}") from error  # fmt: skip


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return _parse(path.read_text("utf-8"), path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"the settings file cannot be read: {str(error).lower()}", code="C002", where=str(path),
        fix=f"correct or remove it: {path}",
    )  # fmt: skip


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return FEDIT_SERVER_NAME=VALUE as settings; a list is written with commas."""
    return {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environment.items()
        if key.startswith(PREFIX) and key not in _NO_SETTINGS
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)
