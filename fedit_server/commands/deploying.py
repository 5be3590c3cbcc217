"""The commands that print what runs a server: `systemd`, `containerfile`."""

import shutil
import sys
from pathlib import Path

import typer

from fedit_server.commands.context import CommandContext
from fedit_server.console import PROGRAM


def systemd(context: typer.Context) -> None:
    """Print a unit for systemd: fedit-server systemd > /etc/systemd/system/fedit-server.service."""
    from fedit_server.deploy.systemd import unit

    given: CommandContext = context.obj
    text = unit(_program())
    given.console.answer("systemd", {"unit": text}, text.splitlines())


def containerfile(context: typer.Context) -> None:
    """Print a container file: a user without rights, a read-only root, everything that stays in /data."""
    from importlib.metadata import version

    from fedit_server.deploy.container import container_file

    given: CommandContext = context.obj
    text = container_file(version("fedit"))
    given.console.answer("containerfile", {"containerfile": text}, text.splitlines())


def _program() -> str:
    """Return where this program lies, as a unit has to name it."""
    own = Path(sys.argv[0])
    if own.name == PROGRAM and own.is_absolute():
        return str(own)
    return shutil.which(PROGRAM) or f"/usr/local/bin/{PROGRAM}"
