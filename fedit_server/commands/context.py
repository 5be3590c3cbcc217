"""What every command shares: its options, its settings, and a look into the store."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.console import Console

if TYPE_CHECKING:
    from fedit_server.admin.operations import Admin
    from fedit_server.commands.operations import Operations
    from fedit_server.config import ServerConfig


@dataclass
class CommandContext:
    """The options that every command has, as they were given."""

    console: Console
    home: Path | None
    file: Path | None = None
    """The settings file, if not server.toml in the data folder."""
    server: str | None = None
    """The address of a server elsewhere; None: the store of this machine's data folder."""
    pin: str | None = None
    token_file: Path | None = None
    command: str = ""
    """Its first word, for messages."""

    @property
    def elsewhere(self) -> str | None:
        """The address of the server elsewhere that commands are for, or None."""
        return self.server or os.environ.get("FEDIT_SERVER_URL") or None

    def config(self, **flags: Any) -> "ServerConfig":
        """Merge flags, environment and server.toml; raises ConfigError U118 where a server elsewhere was named.

        Whoever reads the settings of this folder acts on this folder: `keys rotate --server …` must not.
        """
        from fedit_server.config import ServerConfig

        if self.server is not None:
            raise not_elsewhere(f"{self.command} …", "this command needs the data folder")

        return ServerConfig.load({"home": self.home, **flags}, file=self.file)

    @asynccontextmanager
    async def operations(self) -> AsyncIterator["Operations"]:
        """Open what commands ask: a server elsewhere, or the store of this data folder."""
        from fedit_server.admin.operations import Admin
        from fedit_server.commands.operations import LocalOperations
        from fedit_server.commands.remote import Remote, remote_operations

        if self.elsewhere is not None:
            async with remote_operations(Remote.of(self.elsewhere, self.pin, self.token_file)) as operations:
                yield operations
            return
        async with Admin.open(self.config()) as admin:
            yield LocalOperations(admin)


def ask(
    context: typer.Context,
    command: str,
    look: Callable[["Operations"], Awaitable[dict[str, Any]]],
    lines: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """Ask the admin API, beside the store or over HTTPS, and print."""
    need_server_extra()
    given: CommandContext = context.obj

    async def answered() -> dict[str, Any]:
        async with given.operations() as operations:
            return await look(operations)

    data = asyncio.run(answered())
    given.console.answer(command, data, lines(data) if not given.console.json else ())


async def pages(operations: "Operations", path: str, name: str) -> list[dict[str, Any]]:
    """Return every item of a growing list, page by page."""
    found: list[dict[str, Any]] = []
    after = None
    while True:
        page = await operations.ask("GET", path, query={"after": after, "limit": 200})
        found += page[name]
        after = page["next"]
        if after is None:
            return found


async def task_named(operations: "Operations", name: str | None) -> str:
    """Return a task's id: the one named, or the only one; raises ConfigError U025."""
    if name is not None:
        return name
    ids = [task["id"] for task in (await operations.ask("GET", "/tasks"))["tasks"]]
    if len(ids) != 1:
        raise ConfigError(
            f"say which task; there are {', '.join(ids) or 'none'}", code="U025", fix="fedit-server status"
        )
    return str(ids[0])


def look_up(
    context: typer.Context,
    command: str,
    look: Callable[["Admin"], Awaitable[dict[str, Any]]],
    lines: Callable[[dict[str, Any]], Sequence[str]],
) -> None:
    """Open the store, ask, close it, print."""
    need_server_extra()
    from fedit_server.admin.operations import Admin

    given: CommandContext = context.obj
    need_this_machine(given, command)

    async def ask() -> dict[str, Any]:
        async with Admin.open(given.config()) as admin:
            return await look(admin)

    data = asyncio.run(ask())
    given.console.answer(command, data, lines(data) if not given.console.json else ())


def need_this_machine(given: CommandContext, command: str, why: str = "this command needs the data folder") -> None:
    """Raise ConfigError U118 where a command that needs the data folder was meant for a server elsewhere."""
    if given.elsewhere is not None:
        raise not_elsewhere(command, why)


def not_elsewhere(command: str, why: str) -> ConfigError:
    """The error for a command that was meant for a server elsewhere and cannot work there."""
    return ConfigError(
        f"{why}, so it works on the server's own machine only", code="U118", fix=f"there: fedit-server {command}"
    )


def need_server_extra() -> None:
    """Raise ConfigError C040 where the base install has no database stack."""
    missing = [name for name in ("sqlalchemy", "aiosqlite", "alembic") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the server part of FedIT is not installed ({', '.join(missing)} missing)",
            code="C040",
            where=sys.prefix,
            fix='uv tool install "fedit[server]", or: pip install "fedit[server]"',
        )
