"""The settings of the server: flag > FEDIT_SERVER_* environment > server.toml > default, read once, then frozen."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import platformdirs
import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fedit_protocol.errors import ConfigError
from fedit_server.home.files import write_atomically

CONFIG_FILE: Final = "server.toml"
DEFAULT_PORT: Final = 8443
_PREFIX: Final = "FEDIT_SERVER_"


class ServerConfig(BaseModel):
    """Every setting of a server. The data folder itself is chosen by --home or FEDIT_HOME."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="the data folder: keys, database, blobs, adapters")
    listen: str = Field(f"0.0.0.0:{DEFAULT_PORT}", description="address and port to listen on; port 0 picks a free one")
    advertise: str = Field("", description="host or host:port that invites name; empty: the listen or LAN address")
    name: str = Field(
        "", max_length=200, description="the federation's name, shown to people; fixed at the first start"
    )
    allow_trusted: bool = Field(
        False,
        description="take tasks in trusted mode, in which this server sees every update; fixed at the first start, for"
        " devices pin it",
    )
    invite_uses: int = Field(40, ge=1, le=100_000, description="devices that one invite admits, unless told otherwise")
    invite_days: float = Field(7.0, gt=0, le=3650, description="days that an invite is valid, unless told otherwise")
    most_tokens: int = Field(100, ge=1, le=10_000, description="tokens of the admin API that may be active at once")
    most_invites: int = Field(200, ge=1, le=10_000, description="invites that may be active at once")
    long_poll_s: float = Field(25.0, gt=0, le=60, description="longest time that a question waits for its answer")

    @field_validator("listen")
    @classmethod
    def _address_is_complete(cls, value: str) -> str:
        split_address(value)
        return value

    @property
    def host(self) -> str:
        """The host part of `listen`, without brackets."""
        return split_address(self.listen)[0]

    @property
    def port(self) -> int:
        """The port part of `listen`; 0 asks the system for a free one."""
        return split_address(self.listen)[1]

    @classmethod
    def load(cls, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Self:
        """Merge the sources; flags at None count as not given. Raises ConfigError C001 naming setting and source."""
        environment = os.environ if environment is None else environment
        given = {name: value for name, value in flags.items() if value is not None}
        home = Path(given.get("home") or environment.get("FEDIT_HOME") or platformdirs.user_data_path("fedit-server"))
        merged: dict[str, Any] = {}
        origin: dict[str, str] = {}
        sources = (
            (str(home / CONFIG_FILE), _from_file(home / CONFIG_FILE)),
            ("environment", _from_environment(environment)),
            ("command line", given),
        )
        for source, values in sources:
            merged |= values
            origin |= dict.fromkeys(values, source)
        merged["home"] = home.expanduser().absolute()
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            setting = str(first["loc"][0])
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"{setting}: {reason[:1].lower()}{reason[1:]}",
                where=origin.get(setting, "default"),
                fix=_right_value(setting),
            ) from error

    def save(self) -> None:
        """Write what differs from the defaults to server.toml, so that `serve` finds it; comments there are kept."""
        path = self.home / CONFIG_FILE
        text = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        before = text.as_string()
        # Port 0 means «any port, this once»; the next start should not inherit it.
        once = {"home", "listen"} if self.port == 0 else {"home"}
        for name, value in self.model_dump(exclude=once, exclude_defaults=True).items():
            if text.get(name) != value:
                text[name] = value
        if text.as_string() != before:
            write_atomically(path, text.as_string().encode())


def _right_value(setting: str) -> str:
    """Return what a wrong setting should have been."""
    field = ServerConfig.model_fields.get(setting)
    if field is None:
        return f"remove it; there are {', '.join(name for name in ServerConfig.model_fields if name != 'home')}"
    if setting == "listen":
        return f"write HOST:PORT with a port up to 65535: --listen {field.default}"
    example = "" if field.default in ("", None) else f", such as {field.default}"
    return f"{setting} is {field.description}{example}"


def split_address(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Split `host:port` or `[::1]:port`; raises ValueError if the port is missing and there is no default."""
    host, colon, port = text.rpartition(":")
    if not colon or (default_port is not None and text.endswith("]")):
        if default_port is None:
            raise ValueError(f"{text!r} is not HOST:PORT")
        return text.strip("[]"), default_port
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"the settings file cannot be read: {error}", where=str(path), fix=f"correct or remove it: {path}"
        ) from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    names = {_PREFIX + name.upper(): name for name in ServerConfig.model_fields if name != "home"}
    return {names[key]: value for key, value in environment.items() if key in names}
