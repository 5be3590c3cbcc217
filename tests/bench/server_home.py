"""A server's data folder with thousands of devices in it, written through the Store instead of one by one."""

import asyncio
import hashlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from fedit_protocol.encoding import encode
from fedit_protocol.enrollment import Certificate, federation_context
from fedit_protocol.ids import FederationId, IdentityKey, TaskId, client_id
from fedit_protocol.keylog import LogAction, LogEntry, LogHead, RunningRoot, leaf_hash, revocation_digest
from fedit_protocol.messages import CheckIn
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.version import PROTOCOL_VERSION
from fedit_server.clock import unix_seconds, utc_now
from fedit_server.home.folder import Home, load_identity
from fedit_server.storage.database import Database
from fedit_server.storage.store import Store
from fedit_server.storage.tables import certificates, clients, invites, key_log

from ..integration.programs import ServerProcess, environment, write_task
from ..server.bases import make_base, small_task

_YEAR_S = 365 * 86400
COHORT = 128
HIDDEN, RANK = 1024, 128
PARAMETERS = RANK * (HIDDEN + HIDDEN)
"""262,144 coordinates: one layer of 1,024 × 1,024 at rank 128."""


@dataclass(frozen=True)
class BenchDevice:
    """One enrolled device: its secret key and its certificate as signed."""

    secret: bytes
    certificate: bytes


@dataclass(frozen=True)
class BenchHome:
    """A data folder that `fedit-server serve` can serve, and its devices."""

    folder: Path
    devices: tuple[BenchDevice, ...]
    federation_id: FederationId

    @property
    def authority(self) -> Path:
        """The PEM file of the server's private certificate authority."""
        return self.folder.parent / "authority.pem"

    @property
    def told(self) -> list[tuple[str, str]]:
        """Secret keys and certificates as a load plan takes them."""
        return [(device.secret.hex(), device.certificate.hex()) for device in self.devices]


def make_home(folder: Path, count: int) -> BenchHome:
    """Make a federation with one task for cohorts of 128 at d = 262,144, and enrol `count` devices in it."""
    base = make_base(folder / "base", linear={"self_attn.q_proj": (HIDDEN, HIDDEN)}, hidden_size=HIDDEN)
    sections: dict[str, Any] = {
        "adapter": {"rank": RANK, "target_modules": ["q_proj"]},
        "round": {"rounds": 10_000, "selection": "first_come", "deadlines": {"upload_s": 600.0, "gather_s": 600.0}},
    }
    task = small_task(base, COHORT, **sections)
    first = ServerProcess(folder / "home", write_task(task, folder))
    first.start()
    first.stop()
    home = Home(folder / "home")
    identity = load_identity(home)
    (folder / "authority.pem").write_text(identity.tls.authority_pem())
    return BenchHome(home.root, asyncio.run(_enrol(home, count)), identity.descriptor.federation_id)


async def _enrol(home: Home, count: int) -> tuple[BenchDevice, ...]:
    """Write devices, certificates and log entries as the authority would have, in one transaction."""
    identity, now_s = load_identity(home), unix_seconds(utc_now())
    keys, federation_id = identity.keys.authority, identity.descriptor.federation_id
    if keys is None:
        raise RuntimeError("the authority of this federation lives apart")
    context, root, devices = federation_context(federation_id), RunningRoot(), []
    rows: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = []
    for serial in range(count):
        secret = secrets.token_bytes(32)
        key = IdentityKey(Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw())
        certificate = seal(
            keys.sign,
            Kind.CERTIFICATE,
            context,
            Certificate(
                federation_id=federation_id,
                identity_key=key,
                serial=serial,
                not_before=now_s - 300,
                not_after=now_s + _YEAR_S,
                enrolled_at=now_s,
                log_index=serial,
            ),
        )
        entry = LogEntry(action=LogAction.ENROLL, identity_hash=hashlib.sha256(key).digest(), serial=serial, time=now_s)
        root.add(leaf_hash(entry))
        head = LogHead(
            federation_id=federation_id, size=root.size, root=root.root, revoked=revocation_digest(()), time=now_s
        )
        devices.append(BenchDevice(secret, certificate))
        rows.append((
            {"client_id": client_id(key), "label": "", "device_kind": "cpu", "state": "active", "enrolled_at": now_s,
             "last_seen": now_s - now_s % 3600, "invite_id": "bench"},
            {"serial": serial, "client_id": client_id(key), "envelope": certificate, "not_after": now_s + _YEAR_S},
            {"position": serial, "entry": encode(entry), "leaf": leaf_hash(entry),
             "head": seal(keys.sign, Kind.LOG_HEAD, context, head)},
        ))  # fmt: skip
    async with await Store.open(home.database, migrate=False) as store:
        await _write(store.database, rows, now_s)
    return tuple(devices)


async def _write(database: Database, rows: Sequence[tuple[dict[str, Any], ...]], now_s: int) -> None:
    async with database.writing() as db:
        invite = {"invite_id": "bench", "code_hash": b"", "created_at": now_s, "expires_at": now_s, "max_uses": 1}
        await db.execute(insert(invites).values(**invite, uses=1, needs_approval=False))
        for table, part in zip((clients, certificates, key_log), zip(*rows, strict=True), strict=True):
            await db.execute(insert(table), list(part))


@contextmanager
def served(home: BenchHome, **settings: object) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Run `fedit-server serve` on the folder while the block runs; gives its port and its process."""
    given = {f"FEDIT_SERVER_{name.upper()}": str(value) for name, value in settings.items()}
    words = ["serve", "--home", str(home.folder), "--listen", "127.0.0.1:0", "--json"]
    with (home.folder.parent / "server.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedit_server", *words],
            env={**environment(), **given},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise RuntimeError((home.folder.parent / "server.log").read_text())
        yield int(json.loads(line)["port"]), process
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait(60)


def signed_check_in(device: BenchDevice, federation_id: FederationId, now_s: int) -> bytes:
    """The check-in that a device sends at this second."""
    message = CheckIn(
        version=PROTOCOL_VERSION,
        client_version="0.1.0",
        device_kind="cpu",
        task_id=TaskId("notes"),
        consent_version=1,
        sent_at=now_s,
        certificate=device.certificate,
    )
    return seal(SigningKey(device.secret), Kind.CHECK_IN, federation_context(federation_id), message)
