"""What every command is given, and the options that several commands take."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedit_client.console import Console
from fedit_client.data.records import Shape
from fedit_protocol.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

    from fedit_client.client import Client
    from fedit_client.config import ClientConfig
    from fedit_client.data import OnError, Source
    from fedit_client.settings.project_file import Loaded


@dataclass(frozen=True)
class Globals:
    """What the options before the command have said."""

    console: Console
    home: Path | None
    settings_file: Path | None = None
    """The file of `--config`."""

    def config(self, **flags: Any) -> "ClientConfig":
        """Merge flags, environment and files; flags that were not given are left out."""
        return self.loaded(**flags).config

    def loaded(self, **flags: Any) -> "Loaded":
        """Like `config`, with the file beside the work; a file that merely lies there is announced, once."""
        from fedit_client.settings.project_file import load_settings

        stated = {name: value for name, value in flags.items() if value not in (None, {})}
        found = load_settings(self.home, stated, self.settings_file, Path.cwd())
        for notice in found.notices:
            self.console.notice(notice)
        return found

    def flags(self) -> dict[str, Any]:
        """The settings that the options before the command state."""
        return {"home": self.home} if self.home else {}


Device = Literal["auto", "cpu", "cuda", "rocm", "xpu", "mps"]
Server = Annotated[str | None, typer.Option(help="Invite link or https:// address; - reads it from stdin.")]
DeviceOption = Annotated[Device | None, typer.Option(help="Where to train; auto takes a GPU if there is one.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for training; default: what is free.")]
Model = Annotated[str | None, typer.Option(help="Where the base lies, if not where the task says: folder or hub id.")]
OnErrorOption = Annotated[Literal["stop", "skip"], typer.Option(help="What to do with rows that cannot be used.")]
Maps = Annotated[
    list[str] | None, typer.Option("--map", metavar="A=B", help="Our column A is the file's column B; may be repeated.")
]
AsShape = Annotated[Shape | None, typer.Option("--as", help="Read the rows as this shape; text trains on all of it.")]
_MAP = "--map prompt=question --map response=answer"
MaxRounds = Annotated[int | None, typer.Option(min=1, help="Stop after this many committed rounds.")]


def client_of(config: "ClientConfig", pin: str | None = None, code: str | None = None) -> "Client":
    """Return the client of this home, for the address that the options name."""
    from fedit_client.client import Client

    return Client.open(config=config, pin=pin, code=code)


def from_stdin(server: str | None) -> str | None:
    """Return the address, read from stdin where it is `-`."""
    return sys.stdin.readline().strip() if server == "-" else server


def device_flags(device: Device | None, threads: int | None) -> dict[str, Any]:
    """Return the `[device]` settings that were given as flags."""
    return {name: value for name, value in (("prefer", device), ("threads", threads)) if value is not None}


def sources_of(
    places: Iterable[str], maps: list[str] | None, shape: Shape | None, on_error: "OnError" = "stop"
) -> "tuple[Source, ...]":
    """Return the named sources with what `--map` and `--as` say; raises ConfigError U001 for a map that is none."""
    from fedit_client.data import Source

    columns: dict[str, str] = {}
    for text in maps or ():
        ours, equals, theirs = text.partition("=")
        if not (equals and ours.strip() and theirs.strip()):
            raise ConfigError(f"{text!r} is not A=B", code="U001", fix=f"fedit-client data add FILE {_MAP}",
                              again=_MAP)  # fmt: skip
        columns[ours.strip()] = theirs.strip()
    return tuple(Source(place, columns, shape, on_error) for place in places)


def moment(text: str | None, example: str, again: str | None = None) -> "datetime | None":
    """Return when a time ends that was typed as 2h or 18:30; raises ConfigError U011, `example` is its fix."""
    from datetime import UTC, datetime

    from fedit_client.manners.duration import moment_after

    try:
        return None if text is None else moment_after(text, datetime.now(UTC))
    except ValueError as error:
        raise ConfigError(str(error), code="U011", where="command line", fix=example, again=again) from error
