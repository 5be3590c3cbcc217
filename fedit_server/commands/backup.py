"""`fedit-server backup …`: everything in one file, keys under a passphrase; verified; restored into an empty folder."""

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import CommandContext, look_up, need_server_extra, need_this_machine

if TYPE_CHECKING:
    from fedit_server.admin.operations import Admin

backup_app = typer.Typer(no_args_is_help=True)

PASSPHRASE: Final = "FEDIT_BACKUP_PASSPHRASE"  # noqa: S105  the variable's name
_MOST_BYTES: Final = 4096

File = Annotated[Path, typer.Argument(help="The backup.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help=f"File with the passphrase; else {PASSPHRASE}, else asked for.")
]


@backup_app.callback()
def backup() -> None:
    """Backups of the whole server."""


@backup_app.command("create")
def backup_create(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="New file, or a folder for a file named by date and time.")],
    passphrase_file: PassphraseFile = None,
    dump: Annotated[
        Path | None, typer.Option("--dump", help="pg_dump's file, where the database is PostgreSQL.")
    ] = None,
) -> None:
    """Write database, adapters, keys and settings to one file; a running server goes on meanwhile."""
    need_this_machine(context.obj, "backup create", "a backup holds the keys, which never travel over the network")

    async def look(admin: "Admin") -> dict[str, Any]:
        from fedit_server.backup.create import create_backup

        target = out / _name(admin.now_s) if out.is_dir() else out
        manifest = await create_backup(admin, target, passphrase(passphrase_file, confirm=True), dump)
        size = target.stat().st_size
        facts = manifest.model_dump(exclude={"files"})
        return {"file": str(target.absolute()), "bytes": size, **facts, "files": len(manifest.files)}

    def lines(data: dict[str, Any]) -> list[str]:
        told = [f"{data['file']}: {data['files']} files, {data['bytes']:,} bytes; keys and settings are sealed"]
        if data["open_rounds"]:
            told.append(f"rounds that run now: {data['open_rounds']}; a restore closes them for good")
        return [*told, f"check it: fedit-server backup verify {data['file']}"]

    look_up(context, "backup create", look, lines)


@backup_app.command("verify")
def backup_verify(context: typer.Context, file: File, passphrase_file: PassphraseFile = None) -> None:
    """Restore into a scratch folder (TMPDIR), check every digest, journal hash and key, and remove it again."""
    need_server_extra()
    from fedit_server.backup.restore import verify_backup

    given: CommandContext = context.obj
    found = asyncio.run(verify_backup(file, passphrase(passphrase_file)))
    given.console.answer("backup verify", found.as_data(), [f"{file}: can be restored ({_checked(found.checked)})"])


@backup_app.command("restore")
def backup_restore(context: typer.Context, file: File, passphrase_file: PassphraseFile = None) -> None:
    """Restore into the data folder (--home), which is absent or empty; rounds that were open are closed for good."""
    need_server_extra()
    from fedit_server.backup.restore import restore_backup
    from fedit_server.home.folder import Home

    given: CommandContext = context.obj
    home = Home(given.config().home)
    done = asyncio.run(restore_backup(file, home, passphrase(passphrase_file)))
    lines = [f"{home.root}: restored ({_checked(done.checked)})"]
    if done.closed_rounds:
        lines.append(f"rounds that ran then: {done.closed_rounds}, closed for good")
    if done.dump:
        lines.append(
            f"then: pg_restore --clean --if-exists --dbname=URL {home.root / done.dump}; start ONE server first"
        )
    else:
        lines.append(f"with the old server stopped for good: fedit-server serve --home {home.root}")
    given.console.answer("backup restore", {"home": str(home.root), **done.as_data()}, lines)


def passphrase(file: Path | None, *, confirm: bool = False) -> str:
    """Return the passphrase from a file, the environment or a terminal; never from the command line.

    Raises ConfigError C102, U105.
    """
    if file is not None:
        try:
            with file.open("rb") as opened:
                return opened.read(_MOST_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "the passphrase file cannot be read", code="C102", where=str(file), fix=f"ls -l {file}"
            ) from error
    if given := os.environ.get(PASSPHRASE):
        return given
    if not sys.stdin.isatty():
        raise ConfigError(
            "a backup's keys are sealed under a passphrase, and nobody is here to be asked for it",
            code="U105",
            fix=f"--passphrase-file FILE, or set {PASSPHRASE}",
        )
    return str(typer.prompt("Passphrase of the backup", hide_input=True, confirmation_prompt=confirm, err=True))


def _name(now_s: int) -> str:
    from datetime import UTC, datetime

    return f"fedit-{datetime.fromtimestamp(now_s, UTC):%Y%m%dT%H%M%SZ}.backup"


def _checked(checked: Any) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in checked.items() if count) or "keys"
