"""Completion scripts for shells, from the library that reads the command line: it asks the program what may follow."""

import importlib
import os
from typing import Any, Final

from fedit_server.console import PROGRAM

VARIABLE: Final = "_FEDIT_SERVER_COMPLETE"
HOW: Final = {
    "bash": f'in ~/.bashrc: eval "$({PROGRAM} completion bash)"',
    "zsh": f'in ~/.zshrc, after compinit: eval "$({PROGRAM} completion zsh)"',
    "fish": f"{PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
    "powershell": f"{PROGRAM} completion powershell | Out-String | Invoke-Expression, in $PROFILE",
}
_SHELL_NAMES: Final = {"powershell": "pwsh"}


def answer_shells() -> None:
    """Let the library answer a shell that asks, if one does: then a command line is completed instead of run."""
    if VARIABLE in os.environ:
        _library().completion_init()


def completion_script(shell: str) -> str:
    """Return the script of `bash`, `zsh`, `fish` or `powershell`."""
    return str(
        _library().get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=_SHELL_NAMES.get(shell, shell))
    )


def _library() -> Any:
    return importlib.import_module("typer.completion")
