"""What every command is given, and the options that several commands take."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fedit_client.console import Console

if TYPE_CHECKING:
    from fedit_client.client import Client
    from fedit_client.config import ClientConfig


@dataclass(frozen=True)
class Globals:
    """What the options before the command have said."""

    console: Console
    home: Path | None

    def config(self, **flags: Any) -> "ClientConfig":
        """Merge flags, environment and file; flags that were not given are left out."""
        from fedit_client.config import load_config

        return load_config(self.home, {name: value for name, value in flags.items() if value not in (None, {})})


Device = Literal["auto", "cpu", "cuda"]
Server = Annotated[str | None, typer.Option(help="Invite link or https:// address; - reads it from stdin.")]
DeviceOption = Annotated[Device | None, typer.Option(help="Where to train; auto takes a GPU if there is one.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads for training; default: what is free.")]
Model = Annotated[str | None, typer.Option(help="Where the base lies, if not where the task says: folder or hub id.")]
OnErrorOption = Annotated[Literal["stop", "skip"], typer.Option(help="What to do with rows that cannot be used.")]
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
