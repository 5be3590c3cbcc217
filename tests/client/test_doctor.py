"""`doctor`: each thing that stands in the way is found, said with what helps, and repaired where that is safe."""

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.doctor import Level
from fedit_client.doctor.files import check_environment, check_homes, check_leftovers
from fedit_client.doctor.network import check_network
from fedit_client.doctor.service import check_service
from fedit_client.home.lock import held_alone
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import Membership, load_membership
from fedit_client.network.proxies import proxy_for
from fedit_client.service.systems import Said, Systemd

from .conftest import HttpsFederation
from .test_cli_join import Joining, joining

__all__ = ["joining"]


@pytest.fixture
async def joined(joining: Joining, monkeypatch: pytest.MonkeyPatch) -> Joining:
    """A home that has joined, its server still there."""
    done = await joining.run("--no-run", "--accept", "test-task@1")
    assert done.status == 0, done.err
    monkeypatch.delenv("FEDIT_SERVER")
    return joining


async def examined(joining: Joining, *words: str) -> tuple[int, dict[str, Any]]:
    """Run doctor with --json; return its status, and the findings by check, the worst of each."""
    status = await asyncio.to_thread(invoke, ["doctor", *words, "--json"])
    answer = json.loads(joining.capsys.readouterr().out)
    assert (answer["error"] is None) == (status == 0)
    found: dict[str, Any] = {}
    for finding in answer["data"]["findings"]:
        found.setdefault(finding["check"], finding)
    return status, found | {"repaired": answer["data"]["repaired"]}


async def test_a_sound_home_has_nothing_in_the_way(joined: Joining) -> None:
    status, found = await examined(joined, "--network")
    assert status == 0, found
    assert {"server": "ok", "clock": "ok", "identity": "ok", "data": "ok", "base": "ok", "folders": "ok"}.items() <= {
        check: finding["level"] for check, finding in found.items() if check != "repaired"
    }.items()
    before = len(joined.https.asked)
    await examined(joined)
    assert len(joined.https.asked) == before, "without --network nothing is asked"


async def test_the_worst_comes_first_and_gives_the_exit_status(joined: Joining) -> None:
    (joined.home / "identity.key").chmod(0o644)
    joined.rows.unlink()
    assert await asyncio.to_thread(invoke, ["doctor"]) == 12
    lines = joined.capsys.readouterr().out.splitlines()
    assert lines[0].startswith("error    identity   other users of this machine can read the identity key (FEDIT-S012)")
    assert any(line.startswith("error    data") and "FEDIT-D001" in line for line in lines)
    assert lines[-1].startswith("2 in the way")
    status, found = await examined(joined, "--fix")
    assert (status, found["identity"]["level"]) == (9, "ok"), "what could be repaired is; the rows are still missing"
    assert found["repaired"] == [f"{joined.home / 'identity.key'}: readable by its owner only"]


async def test_leftovers_are_found_and_removed_once_they_are_old(joined: Joining) -> None:
    old, young = joined.home / ".membership.json.77.new", joined.home / ".client.toml.78.new"
    for path in (old, young):
        path.write_text("half")
    os.utime(old, (time.time() - 3600,) * 2)
    (joined.home / "now.json").write_text("{}")
    checkpoint = joined.home / "checkpoints" / "ab12"
    checkpoint.mkdir(parents=True)
    (checkpoint / "run.safetensors").write_text("half")
    os.utime(checkpoint, (time.time() - 3600,) * 2)
    with held_alone(joined.home / "client.lock"):
        assert "leftovers" not in (await examined(joined, "--fix"))[1], "a running client needs its files"
    _, found = await examined(joined)
    assert found["leftovers"]["what"].startswith("3 files of crashes")
    _, found = await examined(joined, "--fix")
    assert "leftovers" not in found
    assert (old.exists(), young.exists(), (joined.home / "now.json").exists()) == (False, True, False)
    assert not checkpoint.exists()


async def test_a_lost_key_and_a_damaged_journal_are_told(joined: Joining) -> None:
    (joined.home / "identity.key").unlink()
    membership = member(joined)
    folder = joined.home / "journal" / membership.federation.descriptor.federation_id / membership.task_document.task.id
    folder.mkdir(parents=True)
    (folder / "rounds.jsonl").write_text("{}\nnot a line\n{}\n")
    status, found = await examined(joined)
    assert (status, found["identity"]["code"], found["journal"]["code"]) == (12, "S013", "S014")


async def test_settings_that_cannot_be_read_do_not_stop_the_rest(joined: Joining) -> None:
    (joined.home / "client.toml").write_text("[device]\nthreads = 'many'\n")
    status, found = await examined(joined)
    assert (status, found["settings"]["code"], found["identity"]["level"]) == (3, "C001", "ok")


@pytest.mark.parametrize(
    ("said", "level"), [("active", Level.OK), ("inactive", Level.WARNING), ("failed", Level.WARNING)]
)
async def test_the_service_is_asked_where_one_is_installed(
    said: str, level: Level, joined: Joining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    asked: list[tuple[str, ...]] = []

    def tool(command: Sequence[str]) -> Said:
        asked.append(tuple(command))
        return Said(0, said)

    manager = Systemd(tool)
    assert [finding.level for finding in check_service(manager, member(joined))] == [Level.NOTE]
    assert asked == []
    manager.file.parent.mkdir(parents=True)
    manager.file.write_text("[Unit]\n")
    assert [finding.level for finding in check_service(manager, member(joined))] == [level]
    assert [finding.level for finding in check_service(manager, None)] == [Level.WARNING]


def test_a_variable_that_is_no_setting_is_told() -> None:
    environment = {
        "FEDIT_DEVICE__THREDS": "2",
        "FEDIT_TOKEN": "t",
        "FEDIT_HOME": "/h",
        "FEDIT_DEVICE__THREADS": "2",
        "FEDIT_LIMITS": "{}",
    }
    found = list(check_environment(environment))
    assert [finding.what.partition(" ")[0] for finding in found] == ["FEDIT_DEVICE__THREDS", "FEDIT_TOKEN"]


def test_a_home_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    found = list(check_homes(Paths.under(tmp_path / "file" / "home")))
    assert [finding.code for finding in found if finding.level is Level.ERROR] == ["S010"] * 4


def test_a_draft_of_settings_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "client.toml.draft").write_text("x")
    assert any("draft" in finding.what for finding in check_leftovers(Paths.under(tmp_path)))


def member(joined: Joining) -> Membership:
    found = load_membership(joined.home / "membership.json")
    assert found is not None
    return found


async def network(joined: Joining, now: datetime | None = None, **changes: object) -> dict[str, Any]:
    membership = member(joined).model_copy(update=changes)
    config = load_config(joined.home)
    found = await check_network(config, membership, now or datetime.now(UTC))
    return {finding.check: finding for finding in found}


@pytest.mark.parametrize(("minutes", "level"), [(0, Level.OK), (2, Level.WARNING), (-10, Level.ERROR)])
async def test_the_clock_is_held_against_the_servers(joined: Joining, minutes: int, level: Level) -> None:
    found = (await network(joined, datetime.now(UTC) + timedelta(minutes=minutes)))["clock"]
    assert found.level is level
    assert ("behind" in found.what) == (minutes < 0)


async def test_another_server_at_this_address_is_told(joined: Joining, https: HttpsFederation) -> None:
    https.descriptor = https.descriptor.replace(b"test", b"evil", 1) if b"test" in https.descriptor else b"\xa0"
    assert (await network(joined))["server"].code in {"T001", "T010"}


async def test_a_server_that_is_gone_is_told(joined: Joining) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = await network(joined, port=port)
    assert (found["server"].code, "server" in found, "clock" in found) == ("N001", True, False)


@pytest.fixture
async def interceptor(https: HttpsFederation) -> AsyncIterator[int]:
    """Something on the way that opens the connection with a certificate of its own, and passes everything on."""
    corp = trustme.CA(organization_name="Corp Inspection CA")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    corp.issue_cert("127.0.0.1").configure_cert(context)
    onward = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    onward.check_hostname, onward.verify_mode = False, ssl.CERT_NONE

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_connection("127.0.0.1", https.port, ssl=onward)
        await asyncio.gather(passed(reader, here), passed(there, writer), return_exceptions=True)

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_who_opens_connections_is_named(joined: Joining, interceptor: int) -> None:
    found = (await network(joined, port=interceptor))["proxy"]
    assert (found.code, found.exit_code) == ("N007", 5)
    assert "Corp Inspection CA" in found.what


@pytest.mark.parametrize(
    ("host", "environment", "proxy"),
    [
        ("fl.example.org", {"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ("fl.example.org", {"https_proxy": "http://proxy:3128", "no_proxy": "example.org"}, None),
        ("fl.example.org", {"all_proxy": "socks5://proxy:1080"}, None),
        ("127.0.0.1", {"https_proxy": "http://proxy:3128"}, None),
        ("localhost", {"https_proxy": "http://proxy:3128"}, None),
        ("fl.example.org", {}, None),
        ("own.example.org", {"https_proxy": "http://proxy:3128"}, None),
    ],
)
def test_a_proxy_of_the_environment_is_used(
    host: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(host, "192.168.1.20,own.example.org") == proxy


@pytest.fixture
async def proxy(https: HttpsFederation, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[bytes]]:
    """A proxy that knows one host, and what it was asked for; everything after that is encrypted for it."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).splitlines()[0])
        there, here = await asyncio.open_connection("127.0.0.1", https.port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(passed(reader, here), passed(there, writer), return_exceptions=True)

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("https_proxy", f"http://anne:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}")
    yield asked
    server.close()


async def test_a_proxy_carries_the_connection_and_is_named(joined: Joining, proxy: list[bytes]) -> None:
    found = await network(joined, host="fl.test", port=8443)
    assert (found["server"].level, found["clock"].level, found["proxy"].level) == (Level.OK, Level.OK, Level.NOTE)
    assert set(proxy) == {b"CONNECT fl.test:8443 HTTP/1.1"}
    assert "secret" not in found["proxy"].what
    assert found["proxy"].what.startswith("requests to fl.test go through http://127.0.0.1:")


async def test_the_owner_takes_a_server_out_of_the_proxy(joined: Joining, proxy: list[bytes]) -> None:
    port = joined.https.port
    fix = (await network(joined, host="fl.test", port=port))["proxy"].fix or ""
    assert fix == "fedit-client set network.no_proxy=fl.test"
    assert await asyncio.to_thread(invoke, ["--home", str(joined.home), *fix.split()[1:]]) == 0
    proxy.clear()
    assert "proxy" not in await network(joined, host="fl.test", port=port)
    assert proxy == []
