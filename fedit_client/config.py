"""The owner's settings: flags > FEDIT_* environment (`__` nests) > client.toml > defaults; read once, then frozen."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from fedit_client.durable import translating, write_atomic
from fedit_client.manners.settings import PoliteSettings
from fedit_client.paths import Paths
from fedit_protocol.errors import ConfigError
from fedit_protocol.limits import Limits


class DeviceSettings(BaseModel):
    """`[device]`: what of this machine may be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefer: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU if there is one")
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads for training; empty means what is free")


class NetworkSettings(BaseModel):
    """`[network]`: how long a lost server is waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_wait_s: float = Field(60.0, gt=0, le=3600, description="longest pause between two attempts to reach the server")
    enroll_wait_s: float = Field(
        600.0, ge=0, le=86400, description="how long `join` waits for an enrolment authority that lives apart"
    )


class ClientConfig(BaseSettings):
    """All settings of this device. A task or a server can never loosen them."""

    model_config = SettingsConfigDict(
        env_prefix="FEDIT_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    home: Path | None = Field(None, description="one portable folder for everything, instead of the platform's places")
    server: str | None = Field(None, description="invite link or address, to keep it out of the process list")
    model: str | None = Field(
        None, description="where the base model lies, if not where the task says: a folder or hub id"
    )
    device: DeviceSettings = Field(default_factory=DeviceSettings, description="what of this machine may be used")
    network: NetworkSettings = Field(
        default_factory=NetworkSettings, description="how long a lost server is waited for"
    )
    polite: PoliteSettings = Field(
        default_factory=PoliteSettings, description="when this device trains, and how much of it"
    )
    limits: Limits = Field(default_factory=Limits, description="what no task may exceed (fedit_protocol.limits)")

    @property
    def paths(self) -> Paths:
        """Where this client's files lie."""
        return Paths.find(self.home)


def load_config(home: Path | None = None, flags: dict[str, Any] | None = None) -> ClientConfig:
    """Merge all sources; raises ConfigError C001 (a value) or C002 (the file), naming the setting and its source."""
    given = dict(flags or {})
    if home is not None:
        given["home"] = home
    try:
        # The environment may name the home, and the home holds the file: so two steps.
        file = ClientConfig(**given).paths.settings_file if home is None else Paths.under(home).settings_file
        return _with_file(file)(**given)
    except ValidationError as error:
        raise _value_error(error) from error


def change_settings(paths: Paths, assignments: list[str]) -> dict[str, str]:
    """Write `KEY=VALUE` settings into client.toml, comments kept; raises ConfigError C001, C002, nothing half done."""
    changes = dict(_assignment(text) for text in assignments)
    edit_settings(paths, {key: _literal(value) for key, value in changes.items()})
    return changes


def edit_settings(paths: Paths, changes: Mapping[str, Any]) -> None:
    """Write settings into client.toml by their dotted names, None to take one out; all other lines stay as they are.

    Raises ConfigError C001, C002, StorageError; the file is replaced whole or not at all.
    """
    document = tomlkit.parse(paths.settings_file.read_text("utf-8") if _file_values(paths.settings_file) else "")
    for key, value in changes.items():
        *tables, name = key.split(".")
        place: Any = document
        for table in tables:
            if not isinstance(place.get(table), dict | Table):
                place[table] = tomlkit.table()
            place = place[table]
        if value is None:
            place.pop(name, None)
        else:
            place[name] = value
    text = tomlkit.dumps(document)
    try:
        ClientConfig(**tomllib.loads(text))
    except ValidationError as error:
        raise _value_error(error) from error
    write_atomic(paths.settings_file, text.encode())


def file_limits(paths: Paths) -> dict[str, Any]:
    """Return the limits that client.toml states; raises ConfigError C002."""
    stated = _file_values(paths.settings_file).get("limits", {})
    return stated if isinstance(stated, dict) else {}


def _with_file(file: Path) -> type[ClientConfig]:
    values = _file_values(file)

    class WithFile(ClientConfig):
        """The settings with one more source, below the environment."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library calls by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=values)

    return WithFile


def _file_values(file: Path) -> dict[str, Any]:
    with translating(file):
        if not file.exists():
            return {}
        content = file.read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file is not TOML: {str(error).lower()}", code="C002", where=str(file),
                          fix=f"correct or remove {file}") from error  # fmt: skip


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip() or key.strip() in {"home", "server"}:
        raise ConfigError(f"{text!r} is not KEY=VALUE", code="C001", fix="fedit-client set device.threads=2")
    if key.strip().startswith("limits."):
        name = key.strip().removeprefix("limits.")
        raise ConfigError(f"{name} is one of your limits, which have a command of their own", code="C001",
                          fix=f"fedit-client policy set {name} {value.strip() or 'VALUE'}")  # fmt: skip
    return key.strip(), value.strip()


def _literal(value: str) -> Any:
    """A value as TOML reads it; anything else is a text."""
    try:
        return tomlkit.value(value)
    except (TOMLKitError, ValueError):
        return value


def _value_error(error: ValidationError) -> ConfigError:
    first = error.errors(include_input=False, include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    return ConfigError(
        f"the setting {name} cannot be used: {first['msg'].lower()}",
        code="C001",
        where=f"client.toml, FEDIT_{name.upper().replace('.', '__')} or a flag",
        fix="fedit-client paths",
    )
