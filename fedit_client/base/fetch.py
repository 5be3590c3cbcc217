"""What getting a base onto this machine takes, and whether the disk has room for it. Nothing is fetched here."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedit_protocol.errors import ModelError

_SPARE_DISK: Final = 1.2


@dataclass(frozen=True)
class Fetch:
    """What getting a base onto this machine takes, in bytes; `place` is where it lies already, else None."""

    place: Path | None
    folder: Path
    """Where it will lie."""
    size: int
    """To fetch; 0 if it is here."""
    disk: int
    """That it takes up while it is fetched and put in place."""
    disk_free: int

    @property
    def disk_needed(self) -> int:
        """With a fifth to spare."""
        return round(self.disk * _SPARE_DISK)

    def words(self) -> str:
        """One line."""
        if self.place is not None:
            return f"is here already: {self.place}"
        size = f"{self.size / 1e9:.1f} GB" if self.size >= 10**9 else f"{self.size / 1e6:.0f} MB"
        return f"{size} to fetch into {self.folder}, {self.disk_free / 1e9:.1f} GB are free there"

    def check(self) -> None:
        """Raise ModelError M005 if the disk has too little room."""
        if self.place is None and self.disk_free < self.disk_needed:
            raise ModelError(
                f"the base model needs {self.disk_needed / 1e9:.1f} GB of disk, {self.disk_free / 1e9:.1f} GB are free",
                code="M005",
                where=str(self.folder),
                fix="free some disk space, or: export HF_HUB_CACHE=/larger/disk",
            )


def hub_cache() -> Path:
    """Return where the hub's library keeps models."""
    try:
        from huggingface_hub import constants
    except ImportError:
        return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder lies on, or will lie on."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free
