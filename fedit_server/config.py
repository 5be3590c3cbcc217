"""The settings of the server: read once from their sources (`settings`), checked, then frozen."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import platformdirs
import tomlkit
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator

from fedit_protocol.errors import ConfigError
from fedit_server.access.proxies import networks
from fedit_server.home.files import write_atomically
from fedit_server.settings import Sources, is_secret, unknown_setting

CONFIG_FILE: Final = "server.toml"
DEFAULT_PORT: Final = 8443
HTTPS_PORT: Final = 443
UNIX: Final = "unix:"


class ServerConfig(BaseModel):
    """Every setting of a server. The data folder itself is chosen by --home or FEDIT_HOME."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="the data folder: keys, database, blobs, adapters")
    listen: str = Field(
        f"0.0.0.0:{DEFAULT_PORT}",
        description="address and port to listen on, port 0 picks a free one; or unix:PATH, for a proxy on this machine"
        " that ends TLS",
    )
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
    most_devices: int = Field(
        1_000_000, ge=1, le=10_000_000, description="devices that may be enrolled at once; further ones are refused"
    )
    most_webhooks: int = Field(20, ge=1, le=200, description="webhooks that may be there at once")
    most_tasks: int = Field(100, ge=1, le=1000, description="tasks that may be there at once, archived ones aside")
    most_invites: int = Field(200, ge=1, le=10_000, description="invites that may be active at once")
    blobs: str = Field(
        "",
        pattern=r"^(s3://[^/@?#\s]+(/[^@?#\s]*)?)?$",
        description="where adapters are kept: s3://BUCKET/PREFIX of an S3-compatible store; empty: a folder in the data"
        " folder",
    )
    blobs_credentials_file: Path | None = Field(
        None,
        description="file in the form of AWS tools with the keys, region and endpoint_url of that store; left out: the"
        " AWS_* environment",
    )
    copy_uploads: bool = Field(
        False,
        description="also keep whole uploads of open rounds in the S3-compatible store, so that another replica can go"
        " on with a round",
    )
    adapter_grid: int = Field(
        0,
        ge=0,
        le=24,
        description="round each new adapter to multiples of 2^-N, 16 for instance, so that its changes are small to"
        " fetch; 0: not",
    )
    blobs_public: bool = Field(
        False,
        description="hand adapters to everybody who knows their digest, so that any cache may keep them; else enrolled"
        " devices only",
    )
    address_per_minute: int = Field(
        3000,
        ge=1,
        description="check-ins and joins that one address may send a minute, and at once: more where many devices share"
        " one",
    )
    most_connections: int = Field(
        20_000, ge=10, le=1_000_000, description="connections that may be open at once; a further one is closed at once"
    )
    most_connections_per_address: int = Field(
        2000,
        ge=1,
        le=1_000_000,
        description="of these from one address, or one IPv6 /64; trusted proxies and this machine are not counted",
    )
    long_poll_s: float = Field(25.0, gt=0, le=60, description="longest time that a question waits for its answer")

    database: str = Field(
        "",
        repr=False,
        description="postgresql://USER@HOST:PORT/NAME; empty: SQLite in the data folder",
        json_schema_extra={"secret": True},
    )
    database_password: str = Field(
        "",
        repr=False,
        description="the database's password; otherwise the URL, PGPASSWORD or PGPASSFILE says it",
        json_schema_extra={"secret": True},
    )

    replica_address: str = Field(
        "",
        description="HOST:PORT where other servers on the same PostgreSQL database reach this one; empty: it is alone",
    )
    replica_key: str = Field(
        "",
        repr=False,
        description="what the federation's keys are sealed with in the database for new replicas: `fedit-server replica"
        " key` makes one",
        json_schema_extra={"secret": True},
    )
    lease_s: float = Field(
        10.0, ge=5, le=120, description="how long a replica may be silent before another one goes on with its tasks"
    )
    cert: Path | None = Field(
        None, description="certificate from elsewhere: a PEM file, leaf first; empty: the private authority's own"
    )
    key: Path | None = Field(None, description="the key of `cert`: a PEM file without a passphrase")
    tls_authority: str = Field(
        "",
        description="what devices trust, fixed at the first start, for they pin it: private (made here), public (their"
        " systems' roots), or a PEM file; empty: private, with `cert` or a Unix socket the root in `cert`, else public",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (),
        description="addresses or networks whose X-Forwarded-For and X-Request-Id are believed, such as 10.0.0.0/8;"
        " over a Unix socket they always are",
    )
    drain_s: float = Field(
        0.0,
        ge=0,
        le=15,
        description="how long after SIGTERM the server goes on answering with /readyz at 503, before it closes its"
        " port; as long as a load balancer needs to notice",
    )
    min_free_mb: int = Field(
        256, ge=0, description="below so much free space (10^6 bytes) /readyz says that this server is not ready"
    )

    _origin: dict[str, str] = PrivateAttr(default_factory=dict)
    _file: Path | None = PrivateAttr(None)

    @field_validator("listen")
    @classmethod
    def _address_is_complete(cls, value: str) -> str:
        if value.startswith(UNIX):
            if not value.removeprefix(UNIX):
                raise ValueError("unix: names no path")
        else:
            split_address(value)
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies_are_networks(cls, value: Any) -> Any:
        parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
        networks(parts)
        return [part for part in parts if part]

    @property
    def unix_path(self) -> Path | None:
        """The Unix socket to listen on; None for an address."""
        return Path(self.listen.removeprefix(UNIX)).absolute() if self.listen.startswith(UNIX) else None

    @property
    def host(self) -> str:
        """The host part of `listen`, without brackets; empty for a Unix socket."""
        return "" if self.unix_path else split_address(self.listen)[0]

    @property
    def port(self) -> int:
        """The port part of `listen`; 0 asks the system for a free one. A proxy before a Unix socket has HTTPS's own."""
        return HTTPS_PORT if self.unix_path else split_address(self.listen)[1]

    @property
    def file(self) -> Path:
        """The settings file: server.toml in the data folder, or the one of --config."""
        return self._file or self.home / CONFIG_FILE

    @property
    def origin(self) -> Mapping[str, str]:
        """Where each setting that is not a default comes from."""
        return self._origin

    @classmethod
    def load(
        cls, flags: Mapping[str, Any], environment: Mapping[str, str] | None = None, file: Path | None = None
    ) -> Self:
        """Merge the sources; flags at None count as not given, `file` stands for server.toml.

        Raises ConfigError C001 naming setting and source, C002 for an unreadable file.
        """
        environment = os.environ if environment is None else environment
        home = Path(flags.get("home") or environment.get("FEDIT_HOME") or platformdirs.user_data_path("fedit-server"))
        if file is not None and not file.exists():
            raise ConfigError("the settings file does not exist", code="C002", where=str(file),
                              fix="fedit-server --config FILE …, with the right path")  # fmt: skip
        named = "command line" if flags.get("home") else "FEDIT_HOME" if environment.get("FEDIT_HOME") else "default"
        sources = Sources.read(cls, flags, environment, file or home / CONFIG_FILE)
        found = cls._validated({**sources.values, "home": home.expanduser().absolute()}, sources.origin)
        found._origin, found._file = {**sources.origin, "home": named}, file  # noqa: SLF001 - one of this class
        return found

    @classmethod
    def _validated(cls, values: Mapping[str, Any], origin: Mapping[str, str]) -> Self:
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            setting = str(first["loc"][0])
            source = origin.get(setting, "default")
            if first["type"] == "extra_forbidden":
                raise unknown_setting(setting, source, cls) from error
            reason = first["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"{setting}: {reason[:1].lower()}{reason[1:]}", where=source, fix=_right_value(setting)
            ) from error

    def save(self) -> None:
        """Write what differs from the defaults to server.toml, so that `serve` finds it; comments there are kept."""
        path = self.file
        text = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        before = text.as_string()
        # Port 0 means «any port, this once»; the next start should not inherit it.
        once = {"home", "listen"} if self.port == 0 else {"home"}
        once |= {name for name, info in type(self).model_fields.items() if is_secret(info)}
        for name, value in self.model_dump(exclude=once, exclude_defaults=True).items():
            plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            if text.get(name) != plain:
                text[name] = plain
        if text.as_string() != before:
            write_atomically(path, text.as_string().encode())


def write_setting(home: Path, name: str, value: str) -> None:
    """Put one setting into server.toml; comments there are kept."""
    path = home / CONFIG_FILE
    text = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
    text[name] = value
    write_atomically(path, text.as_string().encode())


def _right_value(setting: str) -> str:
    """Return what a wrong setting should have been."""
    field = ServerConfig.model_fields.get(setting)
    if field is None:
        return "fedit-server config show"
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
