"""Three servers on one PostgreSQL database and one folder of blobs, behind a load balancer that remembers nobody."""

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor, InviteLink
from fedit_protocol.task import Task
from fedit_server.clock import utc_now
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.sealing import new_replica_key
from fedit_server.storage import BlobStore
from fedit_server.storage.opening import open_blobs

from ..object_store import FakeS3
from ..postgres import Cluster
from ..server.devices import Device, RefusedError
from .programs import environment, write_task

LEASE_S: Final = 5.0
PATIENCE_S: Final = 90.0
_AGAIN: Final = frozenset({425, 429, 500, 502, 503, 504})
_START_S: Final = 60.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class PatientDevice(Device):
    """A device that asks again as long as the server says so, or says nothing, as every client does."""

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """Send until there is an answer that counts."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await super().call(method, path, body, **headers)
            except RefusedError as refused:
                if refused.status not in _AGAIN or time.monotonic() > until:
                    raise
            except (aiohttp.ClientError, TimeoutError, json.JSONDecodeError):  # the last: the page of nginx
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(0.2)


@dataclass
class Server:
    """One replica: a process of its own in a folder of its own."""

    name: str
    folder: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def home(self) -> Path:
        return self.folder / self.name

    def start(self, *words: str) -> None:
        """Start it; `ready` waits until it listens."""
        own = {"FEDIT_SERVER_REPLICA_ADDRESS": f"127.0.0.1:{self.port}"}
        command = [sys.executable, "-m", "fedit_server", *words, "--home", str(self.home)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--json"]
        out, log = (self.folder / f"{self.name}.out").open("wb"), (self.folder / f"{self.name}.log").open("ab")
        with out, log:
            self.process = subprocess.Popen(
                command, env=environment() | self.settings | own, stdin=subprocess.DEVNULL, stdout=out, stderr=log
            )

    async def ready(self) -> dict[str, Any]:
        """Wait until it says where it is."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until and self.process is not None and self.process.poll() is None:
            said = (self.folder / f"{self.name}.out").read_text()
            if said.endswith("\n"):
                found: dict[str, Any] = json.loads(said)
                return found
            await asyncio.sleep(0.05)
        raise AssertionError((self.folder / f"{self.name}.log").read_text())

    @property
    def replica_id(self) -> str:
        return (self.home / "replica-id").read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; after a deadly one wait for the end."""
        assert self.process is not None
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait(30)


@dataclass
class Replicas:
    """What runs, and who may ask it."""

    servers: list[Server]
    postgres: Cluster
    database: str
    balancer: int
    blobs: BlobStore
    descriptor: FederationDescriptor
    code: str
    http: aiohttp.ClientSession
    context: ssl.SSLContext
    devices: list[PatientDevice] = field(default_factory=list)

    async def join(self, count: int) -> list[PatientDevice]:
        """Enrol devices through the load balancer."""
        for _ in range(count):
            device = PatientDevice(self.http, self.descriptor, utc_now)
            await device.enroll(self.code)
            self.devices.append(device)
        return self.devices

    def ask(self, query: str) -> str:
        """Ask the database itself."""
        return self.postgres.sql(query, self.database)

    @property
    def epoch(self) -> int:
        return int(self.ask("SELECT epoch FROM leases"))

    def owner(self) -> Server:
        """Return the replica that owns the only task."""
        name = self.ask("SELECT owner FROM leases WHERE expires_at > extract(epoch FROM clock_timestamp())")
        return next(server for server in self.servers if server.replica_id == name)

    async def owned(self, after: int = 0) -> Server:
        """Wait until somebody owns the task under a later epoch."""
        later = f"SELECT 1 FROM leases WHERE epoch > {after} AND expires_at > extract(epoch FROM clock_timestamp())"
        while not self.ask(later):  # noqa: ASYNC110 - the database's own state
            await asyncio.sleep(0.05)
        return self.owner()


@asynccontextmanager
async def replicas(folder: Path, task: Task, postgres: Cluster, store: FakeS3 | None = None) -> AsyncIterator[Replicas]:
    """Run three replicas behind nginx while the block runs; the second and third start with empty folders.

    Blobs and uploads lie in a shared folder, or in an object store and nowhere else that two of them see.
    """
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    database, balancer = postgres.create(), free_port()
    shared = folder / "shared"
    settings = {
        "FEDIT_SERVER_DATABASE": postgres.url(database),
        "FEDIT_SERVER_REPLICA_KEY": new_replica_key(),
        "FEDIT_SERVER_LEASE_S": str(LEASE_S),
        "FEDIT_SERVER_LONG_POLL_S": "1",
        "FEDIT_SERVER_ADVERTISE": f"127.0.0.1:{balancer}",
    }
    servers = [Server(name, folder, settings) for name in ("one", "two", "three")]
    if store is not None:
        keys = {"FEDIT_SERVER_BLOBS_CREDENTIALS_FILE": str(store.credentials(folder))}
        settings |= {"FEDIT_SERVER_BLOBS": store.make_bucket("replicas"), "FEDIT_SERVER_COPY_UPLOADS": "true"} | keys
    for server in servers if store is None else ():
        for name in ("blobs", "spool"):  # as a shared folder is mounted
            (shared / name).mkdir(parents=True, exist_ok=True)
            server.home.mkdir(exist_ok=True)
            (server.home / name).symlink_to(shared / name)
    blobs = open_blobs(ServerConfig.load({"home": servers[0].home}, settings), Home(servers[0].home))
    try:
        servers[0].start("up", "--task", str(write_task(task, folder)))
        said = await servers[0].ready()
        for server in servers[1:]:
            server.start("serve")
        for server in servers[1:]:
            await server.ready()
        authority = (servers[0].home / "keys" / "ca.pem").read_text()
        descriptor = decode(FederationDescriptor, (servers[0].home / "descriptor.cbor").read_bytes())
        context = ssl.create_default_context(cadata=authority)
        with balanced(folder, balancer, servers):
            async with aiohttp.ClientSession(
                f"https://127.0.0.1:{balancer}/",
                connector=aiohttp.TCPConnector(ssl=context, force_close=True, limit=0),
                timeout=aiohttp.ClientTimeout(total=20),
            ) as http:
                code = InviteLink.parse(said["invite"]).code
                yield Replicas(servers, postgres, database, balancer, blobs, descriptor, code, http, context)
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.process.send_signal(signal.SIGCONT)
                server.process.kill()
                server.process.wait()


@contextmanager
def balanced(folder: Path, port: int, servers: list[Server]) -> Iterator[None]:
    """Run nginx: TLS to devices, TLS to replicas, each request to the next one."""
    keys, place = servers[0].home / "keys", folder / "nginx"
    place.mkdir()
    temporary = "".join(
        f"{name}_temp_path {place / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    upstream = "".join(f"server 127.0.0.1:{server.port} max_fails=0;\n" for server in servers)
    (place / "nginx.conf").write_text(f"""
        daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
        events {{ worker_connections 512; }}
        http {{
          access_log off;
          {temporary}
          upstream replicas {{ {upstream} }}
          server {{
            listen 127.0.0.1:{port} ssl;
            ssl_certificate {keys}/tls.pem;
            ssl_certificate_key {keys}/tls.key.pem;
            client_max_body_size 0;
            location / {{
              proxy_pass https://replicas;
              proxy_ssl_verify on;
              proxy_ssl_trusted_certificate {keys}/ca.pem;
              proxy_ssl_protocols TLSv1.3;
              proxy_ssl_name localhost;
              proxy_http_version 1.1;
              proxy_request_buffering off;
              proxy_buffering off;
              proxy_connect_timeout 2s;
              proxy_read_timeout 6s;
              proxy_next_upstream error timeout non_idempotent;
            }}
          }}
        }}
    """)
    process = subprocess.Popen(["nginx", "-p", place, "-c", place / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)
