"""`fedit-server task new`: a task file to begin with."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from fedit_protocol.errors import ConfigError
from fedit_server.commands.context import CommandContext

_MODEL: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"


class PresetName(StrEnum):
    """The recipes; `fedit_server.tasks.presets` has their values."""

    SMALL = "small"
    SHEPHERD = "shepherd"
    SHEPHERD_EXAMPLE = "shepherd-example"
    PAPER = "paper"


def task_new(
    context: typer.Context,
    preset: Annotated[
        PresetName,
        typer.Option(help="small; or the recipe of Shepherd, of the example in its README, or of the paper."),
    ] = PresetName.SMALL,
    model: Annotated[str, typer.Option(help="Base model: hub id or folder.")] = _MODEL,
    title: Annotated[str | None, typer.Option(help="What people see; default: the preset's name.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to this new file; default: stdout.")] = None,
) -> None:
    """Write a task file to begin with: every value of the recipe stated, to be changed. Says what publishes it."""
    from fedit_server.home.files import storing
    from fedit_server.tasks.files import slug
    from fedit_server.tasks.presets import preset_text

    shown = title or f"FedIT, {preset}"
    text = preset_text(preset, slug(shown), shown, model)
    data = {"preset": str(preset), "file": None if out is None else str(out), "task": text}
    if out is None:
        context.obj.console.answer("task new", data, text.splitlines())
        return
    if out.exists():
        raise ConfigError(f"{out} is there already", code="U135", fix="fedit-server task new --out OTHER.toml")
    then = _next(context.obj, out)
    with storing(out), out.open("x", encoding="utf-8") as file:
        file.write(text)
    context.obj.console.answer("task new", data, [f"{out} is written; look at it, then: {then}"])


def _next(given: CommandContext, out: Path) -> str:
    """The command that publishes the file: the first `up` where this data folder has no server yet."""
    from fedit_server.home.folder import Home

    begun = given.elsewhere is not None or Home(given.config().home).descriptor.exists()
    return f"fedit-server {'task create' if begun else 'up --task'} {shlex.quote(str(out))}"
