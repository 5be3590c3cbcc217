"""What HttpTransport makes of a real HTTPS server that is slow, broken, full, or lies."""

import asyncio
import os
import socket
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedit_client.membership.trust import private_tls
from fedit_client.network import transport as module
from fedit_client.network.problems import NotReadyError, problem_error
from fedit_client.network.transport import HttpTransport, OnBytes
from fedit_protocol.change import encode_change
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, StorageError, TransportError

from .conftest import HttpsFederation


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_WAIT_S", 0.001)


@pytest.fixture
async def transport(https: HttpsFederation) -> AsyncIterator[HttpTransport]:
    tls = private_tls(https.federation.descriptor.tls_ca)
    signer = (https.federation.devices[0], https.federation.descriptor.federation_id)
    async with HttpTransport("127.0.0.1", https.port, tls, signer) as opened:
        yield opened


async def test_a_document_comes_back(https: HttpsFederation, transport: HttpTransport) -> None:
    assert await transport.get("/v1/federation") == https.descriptor


async def test_a_server_that_fails_inside_is_asked_again_then_named(
    https: HttpsFederation, transport: HttpTransport
) -> None:
    https.refuse["/v1/tasks"] = ProtocolError(ProblemType.INTERNAL, "boom")
    with pytest.raises(TransportError) as told:
        await transport.get("/v1/tasks")
    assert told.value.code == "N006"
    assert len(https.asked) == 4


async def test_a_full_disk_on_the_server_is_worth_another_try(https: HttpsFederation, transport: HttpTransport) -> None:
    https.refuse["/v1/tasks"] = ProtocolError(ProblemType.STORE_FULL, "no space")
    with pytest.raises(TransportError) as told:
        await transport.get("/v1/tasks")
    assert told.value.code == "N010"


async def test_a_refusal_is_not_repeated_and_keeps_its_problem(
    https: HttpsFederation, transport: HttpTransport
) -> None:
    https.refuse["/v1/tasks"] = ProtocolError(ProblemType.TOO_LATE, "over")
    with pytest.raises(ProtocolError, match="over") as told:
        await transport.get("/v1/tasks")
    assert told.value.problem is ProblemType.TOO_LATE
    assert len(https.asked) == 1


async def test_a_servers_own_fix_is_never_shown(https: HttpsFederation, transport: HttpTransport) -> None:
    https.refuse["/v1/tasks"] = SecurityError(ProblemType.INVITE_EXPIRED, "too old")
    with pytest.raises(SecurityError) as told:
        await transport.get("/v1/tasks")
    assert told.value.code == "T004"
    assert told.value.fix
    assert "rm" not in told.value.fix.split()


async def test_not_ready_says_when_to_ask_again(https: HttpsFederation, transport: HttpTransport) -> None:
    https.refuse["/v1/tasks"] = ProtocolError(ProblemType.NOT_READY, "wait")
    with pytest.raises(NotReadyError) as told:
        await transport.get("/v1/tasks")
    assert told.value.retry_after_s == 0


async def test_an_answer_beyond_the_limit_is_refused(transport: HttpTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONTROL_BYTES", 16)
    with pytest.raises(ProtocolError) as told:
        await transport.get("/v1/federation")
    assert told.value.problem is ProblemType.TOO_LARGE


async def test_another_authority_is_an_alarm(https: HttpsFederation) -> None:
    import trustme

    other = private_tls(trustme.CA().cert_pem.bytes().decode())
    async with HttpTransport("127.0.0.1", https.port, other, None) as stranger:
        with pytest.raises(SecurityError) as told:
            await stranger.get("/v1/tasks")
    assert told.value.code == "T002"
    assert https.asked == []


async def test_a_download_appears_only_whole_and_with_its_digest(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    content, target = b"x" * 200_000, tmp_path / "blob"
    digest = digest_of(content)
    https.loopback.blobs[digest] = content
    await transport.download(digest, target, 10**6, lambda _done, _total: None)
    assert target.read_bytes() == content
    https.loopback.blobs[digest_of(b"y")] = b"z"
    with pytest.raises(SecurityError) as told:
        await transport.download(digest_of(b"y"), tmp_path / "other", 10, lambda _done, _total: None)
    assert told.value.code == "T012"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["blob"]


async def test_a_change_is_used_if_it_makes_the_right_bytes_and_else_the_whole_is_fetched(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    known, content = tmp_path / "known", b"new!" * 50_000
    known.write_bytes(b"old!" * 50_000)
    digest = digest_of(content)
    https.loopback.blobs[digest] = content
    right = encode_change(known.read_bytes(), content)
    bomb = right[:29] + zlib.compress(bytes(10**8), 9)
    for change, whole in ((right, False), (encode_change(b"", b"other"), True), (bomb, True), (b"nonsense", True)):
        https.change = change
        seen: list[int] = []

        def note(done: int, _total: int, to: list[int] = seen) -> None:
            to.append(done)

        await transport.download(digest, tmp_path / "blob", 10**6, note, known)
        assert (tmp_path / "blob").read_bytes() == content
        assert (seen[-1] == len(content)) is whole
        (tmp_path / "blob").unlink()


async def test_a_download_goes_on_where_it_stopped(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 1000
    digest = digest_of(content)
    https.loopback.blobs[digest] = content
    transport._part_of(tmp_path / "blob").write_bytes(content[:1000])
    seen: list[int] = []
    await transport.download(digest, tmp_path / "blob", 10**6, lambda done, _total: seen.append(done))
    assert (tmp_path / "blob").read_bytes() == content
    assert seen[0] > 1000


async def test_two_clients_fetch_one_blob_into_one_place(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    """As `adapters pull` does while a round runs; what a dead program has left is not in the way and goes."""
    content, target = bytes(range(256)) * 4000, tmp_path / "blob"
    digest = digest_of(content)
    https.loopback.blobs[digest] = content
    dead = tmp_path / ".blob.1-abcd.part"
    dead.write_bytes(b"of a dead program")
    os.utime(dead, (1, 1))
    quiet: OnBytes = lambda _done, _total: None  # noqa: E731 - two downloads share it
    async with HttpTransport("127.0.0.1", https.port, transport._tls, transport._signer) as other:
        await asyncio.gather(*(each.download(digest, target, 10**7, quiet) for each in (transport, other)))
    assert target.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]


async def test_a_download_that_stalls_is_the_networks_fault_and_goes_on(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STALLED_S", 0.2)
    content, released = bytes(range(256)) * 1000, asyncio.Event()
    https.loopback.blobs[digest_of(content)] = content
    https.stall_blob = released
    await transport.download(digest_of(content), tmp_path / "blob", 10**6, lambda _done, _total: None)
    released.set()
    assert (tmp_path / "blob").read_bytes() == content
    assert len(https.asked) == 2
    assert https.agents == {"fedit"}


async def test_a_disk_that_fails_during_a_download_is_not_the_networks_fault(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    https.loopback.blobs[digest_of(b"x")] = b"x"
    transport._part_of(tmp_path / "blob").mkdir()
    with pytest.raises(StorageError) as told:
        await transport.download(digest_of(b"x"), tmp_path / "blob", 10**6, lambda _done, _total: None)
    assert told.value.code == "S010"
    assert len(https.asked) == 1


async def test_a_blob_beyond_the_limit_is_refused(
    https: HttpsFederation, transport: HttpTransport, tmp_path: Path
) -> None:
    https.loopback.blobs[digest_of(b"long")] = b"long"
    with pytest.raises(ProtocolError) as told:
        await transport.download(digest_of(b"long"), tmp_path / "blob", 3, lambda _done, _total: None)
    assert told.value.problem is ProblemType.TOO_LARGE


def closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_a_closed_port_is_named_with_what_to_do(https: HttpsFederation) -> None:
    port = closed_port()
    async with HttpTransport("127.0.0.1", port, private_tls(https.federation.descriptor.tls_ca), None) as nowhere:
        with pytest.raises(TransportError) as told:
            await nowhere.get("/v1/federation")
    assert told.value.code == "N001"
    assert f"127.0.0.1 port {port}" in str(told.value)
    assert told.value.fix


async def test_an_unknown_host_is_named(https: HttpsFederation) -> None:
    tls = private_tls(https.federation.descriptor.tls_ca)
    async with HttpTransport("no-such-host.invalid", 443, tls, None) as nowhere:
        with pytest.raises(TransportError) as told:
            await nowhere.get("/v1/federation")
    assert told.value.code == "N003"


async def test_something_that_is_not_tls_is_named() -> None:
    async def hello(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        writer.close()
        await writer.wait_closed()

    import trustme

    plain = await asyncio.start_server(hello, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    tls = private_tls(trustme.CA().cert_pem.bytes().decode())
    async with plain, HttpTransport("127.0.0.1", port, tls, None) as mail:
        with pytest.raises(TransportError) as told:
            await mail.get("/v1/federation")
    assert told.value.code in {"N005", "N001"}


def test_a_servers_words_cannot_steer_a_terminal() -> None:
    body = b'{"type": "urn:fedit:error:too-late", "detail": "\\u001b[2Jgone\\u0007", "code": "X999; rm"}'
    error = problem_error(410, body, None, "host:1")
    assert str(error) == "[2Jgone"
    assert error.code == "T010"


def test_an_answer_that_is_no_problem_document_is_told() -> None:
    for status in (408, 429, 502):  # a proxy's, or the HTTP library's
        again = problem_error(status, b"<html>", None, "host:1")
        assert (type(again), again.code) == (TransportError, "N006")
    assert "status 404" in str(problem_error(404, b"<html>", None, "host:1"))
