"""What the coordinator and its runners work with, put together once."""

from dataclasses import dataclass
from pathlib import Path

from fedit_protocol.ids import TaskId
from fedit_server.home.folder import Identity
from fedit_server.rounds.driver import Desk
from fedit_server.storage import BlobStore
from fedit_server.storage.store import Store


@dataclass(frozen=True)
class Services:
    """The store, the blobs, who signs, and what every round needs."""

    store: Store
    blobs: BlobStore
    identity: Identity
    desk: Desk
    adapters: Path
    """The folder of PEFT folders, for people."""
    long_poll_s: float = 25.0
    adapter_grid: int = 0
    """New adapters are rounded to multiples of 2^-N before anything is said of them; 0: not."""


def adapter_folder(adapters: Path, task_id: TaskId, version: int) -> Path:
    """Return the PEFT folder of one adapter version."""
    return adapters / task_id / str(version)
