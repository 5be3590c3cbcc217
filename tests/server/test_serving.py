"""The server as a program: real HTTPS, real processes, signals, kill -9, and every way in which it refuses to start."""

import asyncio
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectorCertificateError, ClientSession, ClientTimeout, TCPConnector

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor, InviteLink
from fedit_protocol.errors import FeditError
from fedit_protocol.messages import RoundOutcome, WaitReason
from fedit_protocol.task import Task
from fedit_protocol.testing import STEPS
from fedit_server.access.address import advertised
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.admin.tasks import TaskDesk
from fedit_server.cli import run
from fedit_server.clock import utc_now
from fedit_server.commands.arguments import lift_global_options
from fedit_server.commands.words import status_lines
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.running.serving import Plan, Serving, serving, wait_for_signal
from fedit_server.tasks.lifecycle import Verb

from .bases import small_task
from .devices import Device, one_hot

SIZE = 2 * (8 + 8) + 2 * (8 + 4)


def plan(home: Path, *tasks: Task, listen: str = "127.0.0.1:0") -> Plan:
    return Plan(ServerConfig(home=home, listen=listen, long_poll_s=5.0), tasks)


@asynccontextmanager
async def session(url: str, tls_ca: str) -> AsyncIterator[ClientSession]:
    """An HTTPS session that trusts the federation's private authority and nothing else."""
    context = ssl.create_default_context(cadata=tls_ca)
    async with ClientSession(url, connector=TCPConnector(ssl=context), timeout=ClientTimeout(total=30)) as http:
        yield http


def federation_of(home: Path) -> FederationDescriptor:
    return decode(FederationDescriptor, Home(home).descriptor.read_bytes())


async def enrolled(server: Serving, http: ClientSession, count: int) -> list[Device]:
    from fedit_server.commands.starting import _invite

    code = (await _invite(server)).link.code
    devices = [Device(http, server.parts.identity.descriptor, utc_now) for _ in range(count)]
    for device in devices:
        await device.enroll(code)
    return devices


async def test_a_round_over_https_with_the_pinned_authority(tmp_path: Path, base: Path) -> None:
    async with (
        serving(plan(tmp_path / "home", small_task(base))) as server,
        session(server.url, federation_of(tmp_path / "home").tls_ca) as http,
    ):
        async with http.get("/v1/federation") as reply:
            assert digest_of(await reply.read()) == server.parts.identity.pin
        devices = await enrolled(server, http, 3)
        await asyncio.gather(*(device.take_part(one_hot(SIZE, i)) for i, device in enumerate(devices)))
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        partial, content = await devices[0].ask("GET", "/v1/blobs/" + (await newest(server)), Range="bytes=8-15")
        assert (partial.status, len(content)) == (206, 8)


async def newest(server: Serving) -> str:
    return (await server.parts.store.tasks.newest_adapter(small_task(Path()).id)).digest


async def test_a_client_without_the_authority_does_not_connect(tmp_path: Path, base: Path) -> None:
    async with serving(plan(tmp_path, small_task(base))) as server, ClientSession(server.url) as http:
        with pytest.raises(ClientConnectorCertificateError):
            await http.get("/v1/federation")


async def test_stopping_ends_long_polls_at_once(tmp_path: Path, base: Path) -> None:
    async with serving(plan(tmp_path, small_task(base))) as server:
        tls_ca = server.parts.identity.descriptor.tls_ca
        http_context = session(server.url, tls_ca)
        http = await http_context.__aenter__()
        (device,) = await enrolled(server, http, 1)
        waiting = asyncio.create_task(device.check_in())
        while not server.parts.coordinator._runners[small_task(base).id].lobby.free(utc_now()):  # noqa: ASYNC110  the server's own state
            await asyncio.sleep(0.005)
    reply = await waiting
    await http_context.__aexit__(None, None, None)
    assert (reply.offer, reply.reason) == (None, WaitReason.GATHERING)


async def test_tasks_of_the_command_line_stand_in_the_audit_log(tmp_path: Path, base: Path) -> None:
    changed = small_task(base, top={"version": 2, "title": "Better notes"})
    for task in (small_task(base), small_task(base), changed):
        async with serving(plan(tmp_path, task)) as server:
            lines = await server.parts.store.audit.newest(9)
    assert [(line.content.who, line.content.action) for line in lines[::-1]] == [
        ("local command", "task.create"),
        ("local command", "task.edit"),
    ], "a start that changes nothing says nothing"


async def test_two_servers_on_one_folder(tmp_path: Path, base: Path) -> None:
    async with serving(plan(tmp_path, small_task(base))):
        assert await refusal(plan(tmp_path)) == "S002"


async def test_a_taken_port(tmp_path: Path, base: Path) -> None:
    async with serving(plan(tmp_path / "one", small_task(base))) as server:
        listen = f"127.0.0.1:{server.port}"
        assert await refusal(plan(tmp_path / "two", small_task(base), listen=listen)) == "C017"
        assert not (tmp_path / "two").exists()
        async with serving(plan(tmp_path / "two", small_task(base))):
            pass
        assert await refusal(plan(tmp_path / "two", listen=listen)) == "C017"


async def test_status_says_how_many_devices_a_round_of_every_cohort_needs(tmp_path: Path, base: Path) -> None:
    task = small_task(base)
    rules = task.round.model_copy(update={"cohorts": 2, "min_cohorts": 2})
    async with serving(plan(tmp_path, task.model_copy(update={"round": rules}))) as server:
        async with session(server.url, federation_of(tmp_path).tls_ca) as http:
            await enrolled(server, http, 1)
        async with Admin.open(server.config) as admin:
            status = (await overview(admin)).model_dump(mode="json")
            needed = 2 * task.round.cohort_min
            assert (status["tasks"][0]["devices_needed"], status["clients"]["enrolled"]) == (needed, 1)
            few = f"a round opens when {needed} devices are free at once; 1 is enrolled, {needed - 1} too few"
            assert f"  waits    {few}: fedit-server invite" in status_lines(status)
            await TaskDesk(admin).change(None, Verb.PAUSE)
            assert "waits" not in "\n".join(status_lines((await overview(admin)).model_dump(mode="json")))


async def test_no_task(tmp_path: Path) -> None:
    assert await refusal(plan(tmp_path)) == "C031"


async def test_serving_before_setting_up(tmp_path: Path) -> None:
    assert await refusal(Plan(ServerConfig(home=tmp_path), create=False)) == "C030"


async def refusal(wrong: Plan) -> str:
    """Return the code with which a plan is refused."""
    with pytest.raises(FeditError) as refused:
        async with serving(wrong):
            pass
    return refused.value.code


async def test_a_home_that_is_a_file_is_told_to_be_named_anew(tmp_path: Path, base: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(FeditError) as refused:
        async with serving(plan(tmp_path / "home", small_task(base))):
            pass
    assert (refused.value.code, "--home DIR" in (refused.value.fix or "")) == ("S001", True)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_does_not_cut_the_clean_end(second: signal.Signals) -> None:
    waiting = asyncio.create_task(wait_for_signal())
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGINT)
    assert await waiting is signal.SIGINT
    assert signal.getsignal(second) not in (signal.default_int_handler, signal.SIG_DFL)  # else it ends this test run
    signal.raise_signal(second)
    await asyncio.sleep(0)


def test_what_invites_name(tmp_path: Path) -> None:
    def named(**settings: Any) -> tuple[str, int]:
        return advertised(ServerConfig(home=tmp_path, **settings), 8443)

    assert named(listen="127.0.0.1:0") == ("127.0.0.1", 8443)
    assert named(listen="0.0.0.0:0", advertise="fl.example.org") == ("fl.example.org", 8443)
    assert named(listen="0.0.0.0:0", advertise="fl.example.org:443") == ("fl.example.org", 443)
    assert named(listen="0.0.0.0:0")[0] not in ("", "0.0.0.0")


class Program:
    """`fedit-server` as a process of its own."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capsys = capsys
        self._started: list[asyncio.subprocess.Process] = []
        self._environment = {**os.environ, "NO_COLOR": "1", "PYTHONDEVMODE": "0"}

    async def start(self, *words: str) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        """Start `up --json` or the like; returns once it listens."""
        process = await self._spawn("--json", *words)
        self._started.append(process)
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError((await process.stderr.read()).decode())
        return process, json.loads(line)

    async def end(self) -> None:
        """Kill what a failed test left running."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command that ends by itself; in this process, because starting one takes a second."""
        self._capsys.readouterr()
        code = await asyncio.to_thread(run, lift_global_options([*words, "--home", str(self.home)]))
        said = self._capsys.readouterr()
        return code, said.out, said.err

    async def data(self, *words: str) -> dict[str, Any]:
        """Return the data of a command's JSON answer."""
        status, out, err = await self.run("--json", *words)
        assert status == 0, err
        answer = json.loads(out)
        assert (answer["schema"], answer["ok"], answer["error"]) == ("fedit/1", True, None)
        found: dict[str, Any] = answer["data"]
        return found

    async def _spawn(self, *words: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "fedit_server", *words, "--home", str(self.home)]
        return await asyncio.create_subprocess_exec(*command, env=self._environment, stdout=pipe, stderr=pipe)


@pytest.fixture
async def program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Program]:
    """The command on a data folder of its own."""
    program = Program(tmp_path / "home", capsys)
    yield program
    await program.end()


async def stop(process: asyncio.subprocess.Process, number: int) -> tuple[int, str]:
    """Send a signal and return exit status and what was logged."""
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, err.decode()


def task_file(folder: Path, base: Path) -> Path:
    path = folder / "task.toml"
    path.write_text(
        f'id = "notes"\ntitle = "Notes"\n[base]\nmodel = "{base}"\n'
        '[adapter]\nrank = 2\ntarget_modules = ["q_proj", "v_proj"]\n'
        "[encoding]\nvalue_range = 1.0\nclip_norm = 100.0\n[round]\nrounds = 2\n"
    )
    return path


async def test_a_killed_server_continues_the_round(program: Program, tmp_path: Path, base: Path) -> None:
    task = ("--task", str(task_file(tmp_path, base)))
    process, ready = await program.start("up", "--listen", "127.0.0.1:0", *task)
    link = InviteLink.parse(ready["invite"])
    assert (ready["event"], link.port, link.pin) == ("ready", ready["port"], ready["pin"])
    descriptor = federation_of(program.home)
    async with session(ready["url"], descriptor.tls_ca) as http:
        devices = [Device(http, descriptor, utc_now) for _ in range(3)]
        for device in devices:
            await device.enroll(link.code, label="kitchen")
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        for name in STEPS[:3]:
            await asyncio.gather(*(device.step(name, one_hot(SIZE, 0)) for device in devices))
        await devices[0].step("upload", one_hot(SIZE, 0))
        status = await program.data("status")
        assert status["tasks"][0]["round"]["stage"] == "masked_update"
        assert status["tasks"][0]["round"]["progress"]["uploaded"] == 1
        await stop(process, signal.SIGKILL)
        process, _ = await program.start("serve", "--listen", f"127.0.0.1:{ready['port']}")
        for device in devices[1:]:
            await device.step("upload", one_hot(SIZE, 0))
        for device in devices:
            await device.step("unmask", one_hot(SIZE, 0))
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
    await check_admin_commands(program, tmp_path)
    code, logged = await stop(process, signal.SIGTERM)
    assert code == 0
    events = [json.loads(line) for line in logged.splitlines()]
    assert {"a round goes on after the restart", "the round is committed"} <= {event["event"] for event in events}
    assert "kitchen" not in logged
    assert "127.0.0.1" not in logged


async def check_admin_commands(program: Program, tmp_path: Path) -> None:
    """Every command that looks works beside the running server."""
    status = await program.data("status")
    (task,) = status["tasks"]
    assert (status["server"]["running"], status["clients"]["enrolled"]) == (True, 3)
    assert (task["committed"], task["failed"], task["adapter_version"], task["state"]) == (1, 0, 1, "active")
    assert task["last_report"]["survivors"] == 3
    (row,) = (await program.data("rounds"))["rounds"]
    assert (row["no"], row["state"]) == (1, "committed")
    assert (await program.data("round", "show", "1"))["id"] == row["id"]
    exported = await program.data("adapter", "export", "--out", str(tmp_path / "exported"))
    assert (tmp_path / "exported" / "adapter_config.json").exists()
    assert exported["version"] == 1
    (invite,) = (await program.data("invite", "list"))["invites"]
    assert (await program.data("invite", "revoke", invite["id"])) == {"id": invite["id"]}
    (first, *_) = (await program.data("clients"))["clients"]
    assert (first["label"], first["last_seen"]) == ("kitchen", "recently")
    for words in (["status"], ["round", "list"], ["adapter", "list"], ["task", "show"], ["clients"], ["invite"]):
        code, out, err = await program.run(*words)
        assert (code, err) == (0, "")
        assert out.strip()


async def test_what_the_program_says_when_it_cannot_start(program: Program, tmp_path: Path, base: Path) -> None:
    code, out, err = await program.run("status", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (3, "FEDIT-C030")
    process, ready = await program.start("up", "--host", "127.0.0.1", "--port", "0", "--model", str(base))
    code, out, err = await program.run("up")
    assert code == 12
    assert f"process {process.pid}" in err
    assert err.startswith("fedit-server: error: FEDIT-S002: ")
    assert "\n  fix:   " in err
    assert "Traceback" not in err
    code, _, err = await program.run("task", "check", str(tmp_path / "none.toml"))
    assert (code, "FEDIT-C010" in err) == (3, True)
    assert f"\n  fix:   check the path: ls -l {tmp_path}" in err
    code, _, err = await program.run("round", "show", "seven")
    assert (code, "\n  fix:   fedit-server round show --help" in err) == (2, True)
    code, _, err = await program.run("up", "--listen", "127.0.0.1:99999")
    assert (code, "error, " in err) == (3, False)
    assert "\n  fix:   write HOST:PORT" in err
    code, _, err = await program.run("up", "--model", "a/b", "--authority", str(tmp_path / "none.card"))
    assert ("FEDIT-S001" in err, f"\n  fix:   check the path: ls -l {tmp_path}" in err) == (True, True)
    code, _, err = await program.run("round", "show", "7")
    assert (code, "FEDIT-U025" in err) == (2, True)
    code, _, err = await program.run("nonsense")
    assert (code, "FEDIT-U001" in err) == (2, True)
    assert ready["url"].startswith("https://127.0.0.1:")
    code, _ = await stop(process, signal.SIGINT)
    assert code == 130
