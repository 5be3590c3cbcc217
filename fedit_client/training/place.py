"""The folder of this client's checkpoints: a folder inside for each run of training, gone when that ends. No torch."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedit_client.home.durable import make_private, translating


def sweep(folder: Path) -> None:
    """Delete what a client that died has left: its round is lost. Only for who holds the client's lock."""
    with translating(folder):
        if folder.exists():
            shutil.rmtree(folder)


@contextmanager
def kept_for_one_run(folder: Path) -> Iterator[Path]:
    """Yield the path of a checkpoint in a private folder of its own, which is deleted with the block."""
    own = make_private(make_private(folder) / secrets.token_hex(8))
    try:
        yield own / "run.safetensors"
    finally:
        with translating(own):
            shutil.rmtree(own, ignore_errors=True)
