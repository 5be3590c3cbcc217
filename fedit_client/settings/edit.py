"""`fedit-client config edit`: the owner's editor on a copy, which becomes client.toml only if it is good."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from fedit_client.config import check_settings_text
from fedit_client.home.durable import PRIVATE_FILE, make_private, translating, write_atomic
from fedit_client.home.paths import Paths
from fedit_protocol.errors import ConfigError

_FIRST_LINES: Final = """# Settings of fedit-client; what is not here has its default.
# All names: fedit-client config show
# [device]
# prefer = "auto"
"""


def edit(paths: Paths, editor: str | None = None) -> bool:
    """Open the settings in an editor and return whether they changed; client.toml is replaced whole or not at all.

    Raises ConfigError C001 or C002 for settings that cannot be, naming the draft that keeps what was typed; C004 if the
    editor cannot be started or fails; StorageError.
    """
    file, draft = paths.settings_file, paths.settings_draft
    words = shlex.split(editor or chosen_editor())
    make_private(file.parent)
    with translating(draft):
        before = file.read_text("utf-8") if file.exists() else ""
        if not draft.exists():  # one that was refused before is taken up again
            write_atomic(draft, (before or _FIRST_LINES).encode(), PRIVATE_FILE)
    _run([*words, str(draft)])
    with translating(draft):
        try:
            after = draft.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError("the draft is not UTF-8", code="C002", where=str(draft),
                              fix="fedit-client config edit") from error  # fmt: skip
    try:
        check_settings_text(after, draft)
    except ConfigError as error:
        raise ConfigError(f"{error}; client.toml is as it was", code=error.code, where=str(draft),
                          fix="fedit-client config edit, which goes on with this draft") from error  # fmt: skip
    changed = after not in (before, _FIRST_LINES)
    if changed:
        write_atomic(file, after.encode())
    draft.unlink()
    return changed


def chosen_editor() -> str:
    """Return the owner's editor; raises ConfigError C004 if there is none."""
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if named:
        return named
    for usual in ("notepad",) if sys.platform == "win32" else ("sensible-editor", "nano", "vi"):
        if shutil.which(usual):
            return usual
    raise ConfigError("there is no editor: neither VISUAL nor EDITOR is set", code="C004",
                      fix="fedit-client set KEY=VALUE")  # fmt: skip


def _run(command: list[str]) -> None:
    try:
        status = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise ConfigError(f"the editor {command[0]} cannot be started: {(error.strerror or '').lower()}", code="C004",
                          fix="fedit-client set KEY=VALUE") from error  # fmt: skip
    if status:
        raise ConfigError(f"the editor {Path(command[0]).name} ended with status {status}, so nothing was changed",
                          code="C004", fix="fedit-client set KEY=VALUE")  # fmt: skip
