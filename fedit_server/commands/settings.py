"""`fedit-server config …`: the settings in force, where each comes from, and an editor that cannot break them."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import CommandContext

_FIRST_LINE: Final = "# Settings of fedit-server; what is not here has its default.\n"

config_app = typer.Typer(no_args_is_help=True)


@config_app.command()
def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Also where each value comes from.")] = False,
) -> None:
    """Show every setting with its value; secrets as ***."""
    from fedit_server.settings import settings_of

    given: CommandContext = context.obj
    config = given.config()
    found = settings_of(config, config.origin)
    wide, broad = max(len(one.key) for one in found), min(max(len(one.text) for one in found), 40) if origin else 0
    lines = [f"{one.key:<{wide}}  {one.text:<{broad}}" + (f"  {one.source}" if origin else "") for one in found]
    given.console.answer("config show", {"settings": [one.as_data() for one in found]}, lines)


@config_app.command()
def schema(context: typer.Context) -> None:
    """Print the JSON Schema of server.toml, for editors that check while one types."""
    from fedit_server.config import ServerConfig

    given: CommandContext = context.obj
    found = ServerConfig.model_json_schema()
    found["properties"].pop("home")
    given.console.answer("config schema", {"schema": found}, json.dumps(found, indent=2).splitlines())


@config_app.command()
def edit(context: typer.Context) -> None:
    """Open server.toml in your editor ($VISUAL, $EDITOR); it is replaced only by settings that can be."""
    given: CommandContext = context.obj
    if given.console.json or sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError(
            "nobody is here to edit", code="U132", fix="fedit-server config show --origin, then write the file itself"
        )
    file = given.file or given.config().file
    changed = edit_file(file, chosen_editor())
    words = f"{file} {'is changed; a server takes it up when it is started again' if changed else 'is as it was'}"
    given.console.answer("config edit", {"changed": changed, "file": str(file)}, [words])


def edit_file(file: Path, editor: str) -> bool:
    """Open a settings file in an editor and say whether it changed; it is replaced whole or not at all.

    Raises ConfigError C001 or C002 for settings that cannot be, naming the draft that keeps what was typed; U133 if the
    editor cannot be started or fails; StorageError.
    """
    from fedit_server.config import ServerConfig
    from fedit_server.home.files import make_private_folder, storing, write_atomically

    draft = file.with_name(f"{file.stem}.draft{file.suffix}")
    make_private_folder(file.parent)
    with storing(draft):
        before = file.read_text("utf-8") if file.exists() else ""
        if not draft.exists():  # one that was refused before is taken up again
            write_atomically(draft, (before or _FIRST_LINE).encode())
    run_editor([*shlex.split(editor), str(draft)])
    with storing(draft):
        after = draft.read_text("utf-8")
    try:
        ServerConfig.load({}, {}, draft)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; {file.name} is as it was",
            code=error.code,
            where=str(draft),
            fix="fedit-server config edit, which goes on with this draft",
        ) from error
    changed = after != before
    if changed:
        write_atomically(file, after.encode())
    draft.unlink()
    return changed


def chosen_editor() -> str:
    """Return the person's editor; raises ConfigError U133 if there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    found = named or next((usual for usual in ("sensible-editor", "nano", "vi") if shutil.which(usual)), "")
    if not found:
        raise ConfigError("there is no editor: neither VISUAL nor EDITOR is set", code="U133",
                          fix="EDITOR=… fedit-server config edit")  # fmt: skip
    return found


def run_editor(command: list[str]) -> None:
    """Let a person edit a file, and wait; raises ConfigError U133."""
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"the editor {command[0]} cannot be started: {reason}", code="U133",
                          fix="EDITOR=… fedit-server config edit") from error  # fmt: skip
    if status:
        raise ConfigError(f"the editor ended with status {status}, so nothing was changed", code="U133",
                          fix="fedit-server config edit")  # fmt: skip
