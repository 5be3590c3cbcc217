"""The served certificate: given or private, checked before it is shown, changed while the server runs."""

import asyncio
import os
import signal
import ssl
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import ClientSession, TCPConnector, UnixConnector
from cryptography import x509

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import FeditError
from fedit_protocol.messages import CheckIn, CheckInReply
from fedit_protocol.signing import Kind
from fedit_protocol.testing import ManualClock
from fedit_protocol.version import PROTOCOL_VERSION
from fedit_server.admin.overview import overview
from fedit_server.clock import unix_seconds, utc_now
from fedit_server.commands.words import status_lines
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.certificate import GivenFiles, PrivateLeaf, ServedCertificate, covers, describe, names_of
from fedit_server.keys.tls import TlsFiles
from fedit_server.running.listening import authority_pem, check_tls_settings
from fedit_server.running.serving import Plan, Serving, serving

from .bases import small_task
from .conftest import start
from .test_serving import enrolled

pytestmark = pytest.mark.sqlite


def write(folder: Path, ca: trustme.CA, *names: str, with_root: bool = False) -> tuple[Path, Path]:
    """Write a chain and its key, and return the files."""
    made = ca.issue_cert(*names)
    chain, key = folder / "cert.pem", folder / "key.pem"
    parts = [blob.bytes() for blob in made.cert_chain_pems] + ([ca.cert_pem.bytes()] if with_root else [])
    chain.write_bytes(b"".join(parts))
    key.write_bytes(made.private_key_pem.bytes())
    return chain, key


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def now() -> ManualClock:
    """Trustme's certificates are valid around the real year 2000 to 2038, and so is this clock."""
    return ManualClock()


def refusal(files: GivenFiles, clock: ManualClock) -> str:
    with pytest.raises(FeditError) as refused:
        files.load(clock())
    return refused.value.code


def test_given_files_are_checked_before_they_are_served(tmp_path: Path, ca: trustme.CA, clock: ManualClock) -> None:
    chain, key = write(tmp_path, ca, "fl.example.org", "192.0.2.7")
    good = GivenFiles(chain, key, ("192.0.2.7",), "")
    assert names_of(good.load(clock()).leaf) == ("fl.example.org", "192.0.2.7")
    assert refusal(GivenFiles(chain, key, ("other.example.org",), ""), clock) == "C133"
    assert refusal(GivenFiles(chain, key, ("fl.example.org",), trustme.CA().cert_pem.bytes().decode()), clock) == "C134"
    assert GivenFiles(chain, key, ("fl.example.org",), ca.cert_pem.bytes().decode()).load(clock())
    key.write_bytes(ca.issue_cert("fl.example.org").private_key_pem.bytes())
    assert refusal(good, clock) == "C131"
    key.write_text("no key")
    assert refusal(good, clock) == "C130"
    chain.write_text("no certificate")
    assert refusal(good, clock) == "C130"
    chain.unlink()
    assert refusal(good, clock) == "S001"


def test_a_certificate_that_has_ended_is_refused(tmp_path: Path, ca: trustme.CA, clock: ManualClock) -> None:
    made = ca.issue_cert("localhost", not_after=clock() - timedelta(days=1), not_before=clock() - timedelta(days=9))
    (tmp_path / "cert.pem").write_bytes(made.cert_chain_pems[0].bytes())
    (tmp_path / "key.pem").write_bytes(made.private_key_pem.bytes())
    assert refusal(GivenFiles(tmp_path / "cert.pem", tmp_path / "key.pem", (), ""), clock) == "C132"


def test_a_star_stands_for_one_label(ca: trustme.CA) -> None:
    leaf = x509.load_pem_x509_certificate(ca.issue_cert("*.example.org").cert_chain_pems[0].bytes())
    assert [covers(leaf, name) for name in ("FL.example.org", "example.org", "a.b.example.org")] == [True, False, False]


def test_a_replacement_that_does_not_fit_leaves_the_old_one(tmp_path: Path, ca: trustme.CA, clock: ManualClock) -> None:
    chain, key = write(tmp_path, ca, "localhost")
    served = ServedCertificate(GivenFiles(chain, key, (), ""), clock)
    before = served.loaded.leaf
    assert not served.reload_if_changed()
    kept = key.read_bytes()
    chain, _ = write(tmp_path, ca, "localhost")
    key.write_bytes(kept)
    with pytest.raises(FeditError):
        served.reload()
    assert served.loaded.leaf == before
    write(tmp_path, ca, "localhost")
    assert served.reload_if_changed()
    assert served.loaded.leaf != before
    assert not served.reload()


def test_the_private_leaf_renews_itself(tmp_path: Path, clock: ManualClock) -> None:
    tls = TlsFiles(tmp_path)
    tls.create_authority(clock())
    served = ServedCertificate(PrivateLeaf(tls, lambda: ["localhost"]), clock)
    assert describe(served.loaded.leaf, clock())["days_left"] == 90
    assert not served.reload()
    clock.advance(seconds=70 * 86400)
    assert served.reload()
    assert served.end() > clock() + timedelta(days=80)


WRONG = {
    "a certificate without its key": {"cert": "c.pem"},
    "a Unix socket without an address for devices": {"listen": "unix:/run/fedit.sock"},
    "a Unix socket with a certificate": {
        "listen": "unix:/run/fedit.sock", "advertise": "fl.example.org", "cert": "c.pem", "key": "k.pem",
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", WRONG.values(), ids=WRONG)
def test_settings_that_do_not_go_together(settings: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(FeditError) as refused:
        check_tls_settings(ServerConfig.load({"home": tmp_path, **settings}, {}))
    assert refused.value.code == "C135"


def test_what_devices_of_a_new_federation_trust(tmp_path: Path, ca: trustme.CA) -> None:
    def trusted(**settings: object) -> str | None:
        return authority_pem(ServerConfig.load({"home": tmp_path, **settings}, {}))

    root = ca.cert_pem.bytes().decode()
    chain, key = write(tmp_path, ca, "localhost")
    given = {"cert": chain, "key": key}
    assert trusted() is None
    assert trusted(**given) == ""
    assert trusted(**given, tls_authority="private") is None
    write(tmp_path, ca, "localhost", with_root=True)
    assert (trusted(**given) or "").split() == root.split()
    assert trusted(listen="unix:/run/fedit.sock", advertise="fl.example.org") == ""
    (tmp_path / "root.pem").write_text(root)
    assert trusted(tls_authority=str(tmp_path / "root.pem")) == root


async def shown(server: Serving, authority: str) -> bytes:
    """The certificate that a new connection gets, checked like a client does."""
    context = ssl.create_default_context(cadata=authority)
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="127.0.0.1")
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_a_signal_changes_the_certificate_of_new_connections(tmp_path: Path, base: Path, ca: trustme.CA) -> None:
    chain, key = write(tmp_path, ca, "127.0.0.1", with_root=True)
    config = ServerConfig(home=tmp_path / "home", listen="127.0.0.1:0", cert=chain, key=key)
    root = ca.cert_pem.bytes().decode()
    async with serving(Plan(config, [small_task(base)])) as server:
        first = await shown(server, root)
        assert not (tmp_path / "home" / "keys" / "ca.pem").exists()
        write(tmp_path, ca, "127.0.0.1", with_root=True)
        assert await shown(server, root) == first
        os.kill(os.getpid(), signal.SIGHUP)
        while await shown(server, root) == first:  # noqa: ASYNC110  the signal's own way through the loop
            await asyncio.sleep(0.01)
        key.write_text("half a key")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        assert await shown(server, root) != first
    descriptor = decode(FederationDescriptor, Home(tmp_path / "home").descriptor.read_bytes())
    assert x509.load_pem_x509_certificate(descriptor.tls_ca.encode())
    with pytest.raises(FeditError) as refused:
        async with serving(Plan(ServerConfig(home=tmp_path / "home", listen="127.0.0.1:0"))):
            pass
    assert refused.value.code == "C136"


async def test_a_unix_socket_for_a_proxy(tmp_path: Path, base: Path) -> None:
    place = tmp_path / "fedit.sock"
    config = ServerConfig(home=tmp_path / "home", listen=f"unix:{place}", advertise="fl.example.org")
    async with serving(Plan(config, [small_task(base)])) as server:
        assert server.url == "https://fl.example.org:443"
        assert place.stat().st_mode & 0o777 == 0o660
        async with ClientSession(connector=UnixConnector(str(place))) as http, http.get("http://fedit/readyz") as reply:
            assert (reply.status, await reply.text()) == (200, "ok\n")


async def test_draining_says_so_before_the_port_closes(tmp_path: Path, base: Path) -> None:
    """`/readyz` is 503, a long poll ends with Retry-After, and what else is asked is still answered."""
    config = ServerConfig(home=tmp_path, listen="127.0.0.1:0", long_poll_s=60)
    async with serving(Plan(config, [small_task(base)])) as server:
        context = ssl.create_default_context(cadata=server.parts.identity.descriptor.tls_ca)
        async with ClientSession(server.url, connector=TCPConnector(ssl=context)) as http:
            (device,) = await enrolled(server, http, 1)
            message = CheckIn(
                version=PROTOCOL_VERSION, client_version="0.1.0", device_kind="cpu", task_id=small_task(base).id,
                consent_version=1, sent_at=unix_seconds(utc_now()), certificate=device.certificate,
            )  # fmt: skip
            polling = asyncio.create_task(http.post("/v1/checkin", data=device.signed(Kind.CHECK_IN, message)))
            while not server.parts.coordinator.waiting_clients:  # noqa: ASYNC110  the server's own state
                await asyncio.sleep(0.005)
            async with http.get("/readyz") as reply:
                assert reply.status == 200
            await server.drain()
            async with await polling as reply:
                assert (reply.status, reply.headers["Retry-After"]) == (200, "5")
                assert decode(CheckInReply, await reply.read()).offer is None
            async with http.get("/readyz") as reply:
                assert (reply.status, reply.headers["Retry-After"], reply.headers["Connection"]) == (503, "5", "close")
            async with http.get("/livez") as reply:
                assert reply.status == 200


async def test_status_warns_of_a_certificate_that_ends_soon(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path, clock, small_task(base)) as running:
        running.parts.identity.tls.renew_leaf(["localhost"], clock())
        admin = running.parts.admin
        assert "tls " not in "\n".join(status_lines((await overview(admin)).model_dump()))
        clock.advance(seconds=80 * 86400)
        status = (await overview(admin)).model_dump()
        assert status["certificate"]["days_left"] == 10
        assert "tls      the certificate ends " in "\n".join(status_lines(status))
