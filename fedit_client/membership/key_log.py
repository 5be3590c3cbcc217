"""The newest head of the federation's key log that this device has seen: every later one must continue it (C7).

Kept on disk and written before a round is joined, so that a server cannot show one log today and another tomorrow.
"""

import asyncio
import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fedit_client.home.durable import translating, write_atomic
from fedit_client.network.patience import RoundLostError
from fedit_client.network.transport import Transport
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import (
    Certificate,
    EnrolledView,
    FederationDescriptor,
    check_certificate,
    check_log_head,
    log_leaf,
)
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, StorageError
from fedit_protocol.keylog import LogGrowth, LogHead, LogInclusion, check_consistency, check_inclusion, log_alarm


@dataclass(frozen=True)
class SeenLog:
    """A head as it was received, and how many devices its log holds (None: not asked yet)."""

    head: bytes
    devices: int | None = None

    def save(self, path: Path) -> None:
        """Write the file in one step."""
        said = {"head": base64.b64encode(self.head).decode(), "devices": self.devices}
        write_atomic(path, json.dumps(said).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the file, or return None if there is none; raises StorageError S015 if it is damaged."""
        with translating(path):
            if not path.exists():
                return None
            raw = path.read_bytes()
        try:
            said = json.loads(raw)
            return cls(base64.b64decode(said["head"], validate=True), said["devices"])
        except (ValueError, KeyError, TypeError) as error:
            # Not silently forgotten: whoever can damage this file could otherwise undo what it protects from.
            raise StorageError(
                "the file with the last seen list of devices is damaged",
                code="S015",
                where=str(path),
                fix=f"restore it, or accept the list as it is now: rm {path}; first: fedit-client help S015",
            ) from error


class LogWatch:
    """Follows the key log from head to head. `first` is the head that came with this device's certificate."""

    def __init__(self, path: Path, descriptor: FederationDescriptor, first: bytes) -> None:
        """Take up what was seen before; raises StorageError S015."""
        self._path = path
        self._descriptor = descriptor
        self._seen = SeenLog.load(path) or SeenLog(first)

    @property
    def devices(self) -> int | None:
        """How many devices the newest seen log holds, if it was asked for."""
        return self._seen.devices

    async def follow(self, transport: Transport, offered: bytes) -> EnrolledView:
        """Return what the head of an offer says of the members, once it is shown to continue the last one (C7).

        Raises SecurityError T014 if it does not, RoundLostError if the offer is older than what this device has seen.
        """
        last, head = self._head(self._seen.head), self._head(offered)
        older, newer = sorted((last, head), key=lambda one: one.size)
        growth = await self._growth(transport, older, newer)
        check_consistency(older, newer, growth.path)
        if head.size < last.size:
            # Proven to be an earlier state of the same log, and still not enough: it may lack a revocation.
            raise RoundLostError("it opened on an older list of devices than this device has seen")
        view = EnrolledView(head, frozenset(growth.revoked))
        seen = SeenLog(offered, view.devices)
        await asyncio.to_thread(seen.save, self._path)
        self._seen = seen
        return view

    async def check_own(self, transport: Transport, certificate: bytes, now_s: int) -> EnrolledView:
        """Hold the newest head against the last one, and this device's certificate against it.

        Raises SecurityError T014, or T008 if the certificate is not in the log or was revoked.
        """
        view = await self.follow(transport, await transport.get("/v1/log/head"))
        own = check_certificate(certificate, self._descriptor, now_s)
        proof = decode(LogInclusion, await transport.get(f"/v1/log/inclusion/{own.log_index}/{view.head.size}"))
        check_inclusion(log_leaf(own), own.log_index, proof.path, view.head)
        _check_unrevoked(own, view)
        return view

    def _head(self, envelope: bytes) -> LogHead:
        return check_log_head(envelope, self._descriptor)

    async def _growth(self, transport: Transport, older: LogHead, newer: LogHead) -> LogGrowth:
        path = f"/v1/log/growth/{older.size}/{newer.size}"
        try:
            return decode(LogGrowth, await transport.get(path))
        except SecurityError:
            raise
        except ProtocolError as error:
            raise log_alarm(f"the server cannot show how it grew from {older.size} to {newer.size} entries") from error


def _check_unrevoked(own: Certificate, view: EnrolledView) -> None:
    if own.serial in view.revoked:
        raise SecurityError(
            ProblemType.NOT_ENROLLED,
            "this device was revoked: the federation's log of devices says so",
            code="T008",
            fix="ask the organiser why; joining again needs a new invite",
        )
