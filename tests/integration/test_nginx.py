"""Behind a real nginx that ends TLS and speaks to the server's Unix socket: devices join and take part in a round."""

import asyncio
import getpass
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from fedit_client.membership.trust import PinnedBy, ServerAddress, recognise
from fedit_protocol.messages import RoundOutcome
from fedit_server.clock import utc_now
from fedit_server.commands.starting import _invite
from fedit_server.config import ServerConfig
from fedit_server.running.serving import Plan, serving

from ..server.bases import make_base, small_task
from ..server.devices import Device, one_hot
from ..server.test_serving import SIZE

NGINX = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.3;
        ssl_certificate {folder}/cert.pem;
        ssl_certificate_key {folder}/key.pem;
        client_max_body_size 0;
        location / {{
            proxy_pass http://unix:{socket};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 90s;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Request-Id $request_id;
        }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def nginx(folder: Path, port: int, place: Path) -> AsyncIterator[None]:
    """Run it while the block runs, its workers as this user, for the socket is for its group only."""
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""  # others may not choose, and need not
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, socket=place, user=user))
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
                else:
                    writer.close()
                    break
        yield
    finally:
        process.terminate()
        await process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx (apt: nginx-light)")
async def test_a_round_behind_nginx_over_a_unix_socket(tmp_path: Path) -> None:
    ca, folder, port = trustme.CA(), tmp_path / "nginx", free_port()
    folder.mkdir()
    made = ca.issue_cert("127.0.0.1")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    (folder / "key.pem").write_bytes(made.private_key_pem.bytes())
    (folder / "root.pem").write_bytes(ca.cert_pem.bytes())
    config = ServerConfig(
        home=tmp_path / "home",
        listen=f"unix:{tmp_path / 'fedit.sock'}",
        advertise=f"127.0.0.1:{port}",
        tls_authority=str(folder / "root.pem"),
        long_poll_s=5.0,
    )
    base = make_base(tmp_path / "base")
    async with (
        serving(Plan(config, [small_task(base)])) as server,
        nginx(folder, port, tmp_path / "fedit.sock"),
    ):
        link = (await _invite(server)).link
        federation = await recognise(ServerAddress.parse(str(link)))
        assert federation.pinned_by is PinnedBy.INVITE
        trusted = federation.tls()
        assert isinstance(trusted, ssl.SSLContext)
        url, timeout = f"https://127.0.0.1:{port}", ClientTimeout(total=60)
        async with ClientSession(url, connector=TCPConnector(ssl=trusted), timeout=timeout) as http:
            devices = [Device(http, server.parts.identity.descriptor, utc_now) for _ in range(3)]
            for device in devices:
                await device.enroll(link.code)
            await asyncio.gather(*(device.take_part(one_hot(SIZE, i)) for i, device in enumerate(devices)))
            assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
            async with http.get("/readyz", headers={"X-Forwarded-For": "203.0.113.7"}) as reply:
                assert (reply.status, len(reply.headers["X-Request-Id"])) == (200, 32)
        seen = set(server.parts.turnstile.addresses._buckets)
    assert seen == {"127.0.0.1"}, "the address that nginx saw, not the socket and not what callers wrote"
