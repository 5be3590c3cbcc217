"""Whether this server can do its work now: what `/readyz`, `fedit-server health` and `doctor` look at."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fedit_protocol.errors import FeditError, StorageError
from fedit_server.storage.migrations import is_current
from fedit_server.storage.store import Store

_PATIENCE_S: Final = 4.0
"""A load balancer waits about so long for an answer."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `said` holds no path and no address."""

    name: str
    ok: bool
    said: str

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return {"name": self.name, "ok": self.ok, "said": self.said}


@dataclass(frozen=True)
class Surroundings:
    """What a server stands on beside its store: a disk, a certificate, backups. Each may be absent."""

    folder: Path | None = None
    least_free_bytes: int = 0
    certificate_end: Callable[[], datetime | None] = field(default=lambda: None)
    last_backup: Callable[[], float | None] = field(default=lambda: None)
    """When the last backup was made, in seconds since 1970."""

    def free_bytes(self) -> int | None:
        """Return the free space under the data folder."""
        return None if self.folder is None else shutil.disk_usage(self.folder).free


@dataclass(frozen=True)
class Readiness:
    """The answer, check by check."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether requests should be sent here."""
        return all(check.ok for check in self.checks)


async def readiness(
    store: Store, look_at_blobs: Callable[[], Awaitable[None]], around: Surroundings, now: datetime, *, draining: bool
) -> Readiness:
    """Look at everything once; raises nothing: what fails is a check that is not ok."""
    checks = (
        Check("serving", not draining, "is stopping" if draining else "takes requests"),
        await _tried("database", lambda: _look_at_database(store)),
        await _tried("blobs", look_at_blobs),
        _disk(around),
        _certificate(around, now),
    )
    return Readiness(checks)


async def _look_at_database(store: Store) -> None:
    async with store.database.reading() as connection:
        if not await connection.run_sync(is_current):
            raise StorageError(
                "the database is of another version than this program", code="S003", fix="fedit-server serve"
            )


async def _tried(name: str, look: Callable[[], Awaitable[object]], patience_s: float = _PATIENCE_S) -> Check:
    try:
        async with asyncio.timeout(patience_s):
            await look()
    except TimeoutError:
        return Check(name, ok=False, said=f"does not answer within {patience_s:g} s")
    except (FeditError, OSError) as error:
        code = error.code if isinstance(error, FeditError) else "S001"
        return Check(name, ok=False, said=f"fails (FEDIT-{code}); the log says more")
    return Check(name, ok=True, said="answers")


def _disk(around: Surroundings) -> Check:
    try:
        free = around.free_bytes()
    except OSError:
        return Check("disk", ok=False, said="the data folder cannot be looked at")
    if free is None:
        return Check("disk", ok=True, said="not looked at")
    return Check("disk", ok=free >= around.least_free_bytes, said=f"{free // 10**6} MB free")


def _certificate(around: Surroundings, now: datetime) -> Check:
    end = around.certificate_end()
    if end is None:
        return Check("certificate", ok=True, said="none: a proxy has it")
    left = end - now
    said = f"ends in {left.days} days" if left > timedelta(0) else "has ended"
    return Check("certificate", ok=left > timedelta(0), said=said)
