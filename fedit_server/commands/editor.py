"""Lets a person edit a text in the editor of their choice."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from fedit_protocol.errors import ConfigError


def edit_text(text: str, name: str) -> str:
    """Open `text` as a file `name` in $VISUAL, $EDITOR or vi; return what was saved. Raises ConfigError U122."""
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="fedit-") as folder:
        file = Path(folder) / name
        file.write_text(text, "utf-8")
        try:
            subprocess.run([*words, str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(
                f"the editor {words[0]} could not be used: {type(error).__name__}",
                code="U122",
                where="VISUAL or EDITOR",
                fix=f"EDITOR=nano fedit-server task edit {Path(name).stem}",
            ) from error
        return file.read_text("utf-8")
