"""Where the database is: a SQLite file, or a PostgreSQL server by URL. Its password is never shown."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from fedit_protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedit_server.config import ServerConfig

_POSTGRES = ("postgresql", "postgres", "postgresql+asyncpg")


@dataclass(frozen=True)
class Place:
    """One database."""

    url: URL = field(repr=False)

    @classmethod
    def file(cls, path: Path) -> Self:
        """Return a SQLite file."""
        return cls(URL.create("sqlite+aiosqlite", database=str(path)))

    @classmethod
    def parse(cls, text: str, password: str | None = None) -> Self:
        """Read `postgresql://USER@HOST[:PORT]/NAME` or `sqlite:///FILE`; a `password` takes the place of the URL's.

        Raises ConfigError C090.
        """
        try:
            url = make_url(text)
        except ArgumentError:
            url = None
        if url is not None and url.drivername == "sqlite" and url.database:
            return cls.file(Path(url.database).absolute())
        if url is None or url.drivername not in _POSTGRES or not url.database:
            raise ConfigError(
                "the database is no URL of a PostgreSQL server or of a SQLite file",
                code="C090",
                where="database",
                fix="write it as postgresql://USER@HOST:5432/NAME, or leave it empty for SQLite in the data folder",
            )
        url = url.set(drivername="postgresql+asyncpg")
        return cls(url.set(password=password) if password is not None else url)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for PostgreSQL."""
        return Path(self.url.database or "") if self.url.drivername.startswith("sqlite") else None

    @property
    def shown(self) -> str:
        """What messages say of it: the file, or where the server is; never user, password or options."""
        if self.path is not None:
            return str(self.path)
        host = self.url.host or self.url.normalized_query.get("host", ("localhost",))[0]
        return f"postgresql://{host}{f':{self.url.port}' if self.url.port else ''}/{self.url.database}"


def place_of(config: "ServerConfig", default: Path) -> Place:
    """Return the database that the settings name, else the SQLite file `default`. Raises ConfigError C090."""
    if not config.database:
        return Place.file(default)
    return Place.parse(config.database, config.database_password or None)
