"""The demo's rows and task: a small invented world, three offices with two crafts each, and rows that nobody has.

`generate.py` made the files and makes them again, byte for byte (`python -m fedit_client.demo.rows.generate`).
"""

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

CLIENTS: Final = ("client_a", "client_b", "client_c")
"""The three devices of the demo, by the names of their files."""


def client_rows(client: str) -> AbstractContextManager[Path]:
    """Return a context in which one client's JSONL file has a path; raises ValueError for a name not in CLIENTS."""
    if client not in CLIENTS:
        raise ValueError(f"the demo has {', '.join(CLIENTS)}, not {client}")
    return as_file(files(__name__) / f"{client}.jsonl")


def held_out_rows() -> AbstractContextManager[Path]:
    """Return a context in which the JSONL file that no client has has a path."""
    return as_file(files(__name__) / "held_out.jsonl")


def task_file() -> AbstractContextManager[Path]:
    """Return a context in which the demo's task has a path."""
    return as_file(files(__name__) / "task.toml")
