"""When the last backup was made, for `status`, metrics and the dashboard: a small file in the data folder."""

import json
from dataclasses import asdict, dataclass

from fedit_server.home.files import write_atomically
from fedit_server.home.folder import Home


@dataclass(frozen=True)
class LastBackup:
    """The newest backup that `backup create` has finished."""

    created_at: int
    """Seconds since 1970: of the moment that the backup shows."""
    file: str
    size: int


def note_backup(home: Home, backup: LastBackup) -> None:
    """Remember it."""
    write_atomically(home.last_backup, json.dumps(asdict(backup)).encode())


def last_backup(home: Home) -> LastBackup | None:
    """Return it, None before the first one and where the note cannot be read."""
    try:
        return LastBackup(**json.loads(home.last_backup.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
