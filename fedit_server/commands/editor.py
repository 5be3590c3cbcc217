"""Lets a person edit a text in the editor of their choice."""

import shlex
import tempfile
from pathlib import Path

from fedit_server.commands.settings import chosen_editor, run_editor


def edit_text(text: str, name: str) -> str:
    """Open `text` as a file of this name, and return what was saved. Raises ConfigError U133."""
    with tempfile.TemporaryDirectory(prefix="fedit-") as folder:
        file = Path(folder) / name
        file.write_text(text, "utf-8")
        run_editor([*shlex.split(chosen_editor()), str(file)])
        return file.read_text("utf-8")
