"""A real PostgreSQL server for tests, started from its own binaries; every test gets a database of its own.

It refuses to run as root, so there it runs as another user. It listens on a socket in a folder of its own, on no port.
"""

import asyncio
import getpass
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from fedit_server.config import write_setting
from fedit_server.storage.database import upgrade_database
from fedit_server.storage.place import Place

_NAME: Final = "fedit"
_TEMPLATE: Final = "fedit_template"
_START_S: Final = 30.0


@dataclass
class Cluster:
    """One running server."""

    folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        """Return the URL of a database, as an operator would write it."""
        return f"postgresql://{_NAME}@/{database}?host={self.folder}"

    def place(self, database: str) -> Place:
        """Return a database as a place."""
        return Place.parse(self.url(database))

    def sql(self, command: str, database: str = "postgres") -> str:
        """Run a command as the owner of everything; returns what it says."""
        words = ["psql", "-h", str(self.folder), "-U", _NAME, "-d", database, "-v", "ON_ERROR_STOP=1", "-Atqc", command]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()

    def create(self, template: str = "template0") -> str:
        """Make a database, empty or a copy, and return its name."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def make_template(self) -> None:
        """Make the database with today's tables that others are copied from."""
        self.sql(f"CREATE DATABASE {_TEMPLATE}")
        asyncio.run(upgrade_database(self.place(_TEMPLATE)))


@contextmanager
def cluster(*settings: str) -> Iterator[Cluster]:
    """Run a server while the block runs; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("asyncpg", reason="the extra postgres is not installed")
    missing = [name for name in ("initdb", "postgres", "psql") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"PostgreSQL is not installed: no {', '.join(missing)} on the path")
    with tempfile.TemporaryDirectory(prefix="fedit-pg-") as name:
        folder = Path(name)
        user = _somebody(folder)
        data = folder / "data"
        words = ["initdb", "-D", str(data), "-U", _NAME, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(words, check=True, capture_output=True, **user)
        options = [
            "listen_addresses=",
            f"unix_socket_directories={folder}",
            "max_connections=200",
            "shared_buffers=32MB",
        ]
        # The tests cut processes, never the power: what a crash of the machine needs is only paid for in production.
        options += ["fsync=off", "full_page_writes=off", *settings]
        with (folder / "log").open("wb") as log:
            words = ["postgres", "-D", str(data), *itertools.chain.from_iterable(("-c", option) for option in options)]
            process = subprocess.Popen(words, stdout=log, stderr=log, **user)
        try:
            found = Cluster(folder)
            _wait(found, process)
            yield found
        finally:
            process.send_signal(signal.SIGINT)  # its «fast» end: it waits for no connection
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _somebody(folder: Path) -> dict[str, Any]:
    """Return who runs it: the present user, or for root another one, who gets the folder."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    folder.chmod(0o755)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": (), "cwd": folder}


def _wait(found: Cluster, process: "subprocess.Popen[Any]") -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            found.sql("SELECT 1")
        except subprocess.CalledProcessError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"PostgreSQL as {getpass.getuser()} does not start: {(found.folder / 'log').read_text()}")


@dataclass
class Databases:
    """Which databases a test's servers stand on: SQLite files where they ask for them, or PostgreSQL instead."""

    postgres: Cluster | None = None
    _made: dict[Path, Place] = field(default_factory=dict)

    def place(self, file: Path) -> Place:
        """Return the database in the place of a SQLite file; the same one for the same file."""
        if self.postgres is None:
            return Place.file(file)
        if file not in self._made:
            name = self.postgres.create(_TEMPLATE)
            self._made[file] = self.postgres.place(name)
            if file.parent.is_dir():  # the commands that a test runs on this data folder find it too
                write_setting(file.parent, "database", self.postgres.url(name))
        return self._made[file]

    def drop(self) -> None:
        """Remove what the test made."""
        for place in self._made.values():
            assert self.postgres is not None
            self.postgres.sql(f"DROP DATABASE {place.url.database} WITH (FORCE)")
        self._made.clear()


CHOSEN: Final = Databases()
"""Those of the running test; the fixture `database` sets them."""
