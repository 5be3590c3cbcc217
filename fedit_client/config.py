"""The owner's settings, read once, then frozen: flags > FEDIT_* environment (`__` nests) > a file beside the work
(`--config FILE`, `./fedit.toml`: see `project_file`) > client.toml > defaults."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from fedit_client.home.durable import translating, write_atomic
from fedit_client.home.key_ring import KeyStore
from fedit_client.home.paths import Paths
from fedit_client.manners.settings import PoliteSettings
from fedit_protocol.errors import ConfigError
from fedit_protocol.limits import Limits

_PREFIX: Final = "FEDIT_"


class DeviceSettings(BaseModel):
    """`[device]`: what of this machine may be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefer: Literal["auto", "cpu", "cuda", "rocm", "xpu", "mps"] = Field(
        "auto", description="auto takes a GPU if there is one"
    )
    threads: int | None = Field(None, ge=1, le=1024, description="CPU threads for training; empty means what is free")
    processes: int = Field(
        1, ge=1, le=16, description="processes that share each step's rows: one for each GPU of the same kind"
    )
    max_tokens: int | None = Field(
        None, ge=16, description="cut rows at this many tokens, as far as the task allows; empty means the task's own"
    )
    base_class: Literal["auto", "nf4", "bf16", "int8", "fp32"] = Field(
        "auto", description="how the base is held, out of the task's classes; auto takes the first that runs here"
    )
    python: Path | None = Field(
        None, description="interpreter that trains, if not this one or the one that `setup` has made"
    )


class NetworkSettings(BaseModel):
    """`[network]`: the way to the server, and how long a lost one is waited for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_wait_s: float = Field(60.0, gt=0, le=3600, description="longest pause between two attempts to reach the server")
    enroll_wait_s: float = Field(
        600.0, ge=0, le=86400, description="how long `join` waits for an enrolment authority that lives apart"
    )
    no_proxy: str = Field(
        "", description="servers that are reached without this machine's proxy, by comma; NO_PROXY counts as well"
    )


class IdentitySettings(BaseModel):
    """`[identity]`: where the key of this device is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: KeyStore = Field(
        KeyStore.AUTO,
        description="where a new key is kept: auto takes the system's keyring where one works, else a private file",
    )


class PrivacySettings(BaseModel):
    """`[privacy]`: what is kept on this machine of what left it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    outbox: bool = Field(
        True,
        description="keep a readable copy of every upload on this disk; false: only its digest, in the history",
    )
    outbox_max_mb: int = Field(
        512,
        ge=1,
        le=10**6,
        description="most MB (10^6 bytes) that the outbox takes; the oldest uploads go first",
    )
    declare: bool = Field(
        True,
        description="tell a task that draws rounds by it which of its categories this device has, and about how long"
        " a round takes here; the consent text says so; false: such a task draws this device as one that said nothing",
    )


class ClientConfig(BaseSettings):
    """All settings of this device. A task or a server can never loosen them."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    home: Path | None = Field(None, description="one portable folder for everything, instead of the platform's places")
    server: str | None = Field(
        None,
        description="invite link or address, to keep it out of the process list",
        json_schema_extra={"secret": True},
    )
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
    identity: IdentitySettings = Field(
        default_factory=IdentitySettings, description="where the key of this device is kept"
    )
    privacy: PrivacySettings = Field(
        default_factory=PrivacySettings, description="what is kept on this machine of what left it"
    )
    limits: Limits = Field(default_factory=Limits, description="what no task may exceed (fedit_protocol.limits)")
    _again: "Callable[[], ClientConfig] | None" = PrivateAttr(None)

    def read_again_by(self, read: "Callable[[], ClientConfig]") -> Self:
        """Remember how the same sources are merged once more, and return this."""
        self._again = read
        return self

    def read_again(self) -> "ClientConfig":
        """Return the settings as the same sources state them now; this one where nobody said how."""
        return self if self._again is None else self._again()

    @property
    def paths(self) -> Paths:
        """Where this client's files lie."""
        return Paths.find(self.home)


def load_config(
    home: Path | None = None, flags: dict[str, Any] | None = None, more: "SettingsFile | None" = None
) -> ClientConfig:
    """Merge all sources, `more` between the environment and client.toml; nothing is looked for in the current folder.

    Raises ConfigError C001 (a value) or C002 (the file), naming the setting and its source.
    """
    given = dict(flags or {})
    if home is not None:
        given["home"] = home
    user = SettingsFile.read(config_paths(home, given).settings_file)
    try:
        merged = _with_files(*([more] if more else []), user)(**given)
    except ValidationError as error:
        raise _value_error(error, given, more, user) from error
    return merged.read_again_by(lambda: load_config(home, flags, more))


def config_paths(home: Path | None, flags: Mapping[str, Any] | None = None) -> Paths:
    """Return where the files lie, before any setting is read: the home is named by a flag or the environment only."""
    named = home or (flags or {}).get("home") or environment_value("home")
    return Paths.find(Path(named) if named else None)


@dataclass(frozen=True)
class SettingsFile:
    """What a settings file states, unchecked."""

    path: Path
    values: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "SettingsFile":
        """Read a file, which may be missing; raises ConfigError C002, StorageError."""
        return cls(path, _file_values(path))


def environment_variable(key: str) -> str | None:
    """Return the variable that states a dotted setting, as it is written in the environment, or None."""
    wanted = (_PREFIX + key.replace(".", "__")).upper()
    return next((name for name in os.environ if name.upper() == wanted), None)


def environment_value(key: str) -> str | None:
    """Return what the environment says about a dotted setting, or None."""
    variable = environment_variable(key)
    return os.environ.get(variable) or None if variable else None


def assigned(texts: list[str]) -> dict[str, Any]:
    """Return what `KEY=VALUE` texts assign, values as TOML reads them; raises ConfigError C001."""
    return {key: _literal(value) for key, value in map(_assignment, texts)}


def check_settings_text(text: str, path: Path) -> None:
    """Raise ConfigError C001, C002 unless this could be the content of client.toml."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(path, error) from error
    try:
        _with_files(environment=False)(**values)
    except ValidationError as error:
        raise _value_error(error, {}, None, SettingsFile(path, values)) from error


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
    if any(value is not None for value in changes.values()):  # taking a line out must work in a file that is wrong
        check_settings_text(text, paths.settings_file)
    write_atomic(paths.settings_file, text.encode())


def file_limits(paths: Paths) -> dict[str, Any]:
    """Return the limits that client.toml states; raises ConfigError C002."""
    stated = _file_values(paths.settings_file).get("limits", {})
    return stated if isinstance(stated, dict) else {}


def _with_files(*files: SettingsFile, environment: bool = True) -> type[ClientConfig]:
    class WithFiles(ClientConfig):
        """The settings with more sources, below the environment."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library calls by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            below = [InitSettingsSource(settings_cls, init_kwargs=file.values) for file in files]
            return init_settings, *([env_settings] if environment else []), *below

    return WithFiles


def _file_values(file: Path) -> dict[str, Any]:
    with translating(file):
        if not file.exists():
            return {}
        content = file.read_bytes()
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _not_toml(file, error) from error


def _not_toml(file: Path, error: Exception) -> ConfigError:
    ours = file.name == "client.toml"
    return ConfigError(
        f"the settings file is not TOML: {str(error).lower()}",
        code="C002",
        where=str(file),
        fix="fedit-client config edit" if ours else f"correct or remove {file}",
    )


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
        return tomlkit.value(value).unwrap()
    except (TOMLKitError, ValueError):
        return value


def _value_error(
    error: ValidationError, flags: Mapping[str, Any], more: SettingsFile | None, user: SettingsFile
) -> ConfigError:
    first = error.errors(include_input=False, include_url=False)[0]
    parts = [str(part) for part in first["loc"]]
    name, why = ".".join(parts), first["msg"].lower().removeprefix("value error, ")
    where, fix = str(user.path), f"fedit-client config reset {name}"
    if _states(flags, parts):
        where, fix = "command line", "fedit-client config schema"
    elif variable := _variable_about(name):
        where, fix = f"{variable} in the environment", f"unset {variable}"
    elif more is not None and _states(more.values, parts):
        where, fix = str(more.path), f"correct or remove {name} in {more.path}"
    return ConfigError(f"the setting {name} cannot be used: {why}", code="C001", where=where, fix=fix)


def _states(values: Mapping[str, Any], parts: list[str]) -> bool:
    """Whether a source says anything about a setting, or has another thing where its table should be."""
    found: Any = values
    for part in parts:
        if not isinstance(found, Mapping):
            return True
        if part not in found:
            return False
        found = found[part]
    return True


def _variable_about(name: str) -> str | None:
    """The variable of a setting, or of a table above it."""
    while name:
        if variable := environment_variable(name):
            return variable
        name = name.rpartition(".")[0]
    return None
