"""An operator's whole story, command by command: two federations at once, a backup in the midst of rounds, a kill, a
restore, and the end of both tasks; and the folder of an earlier program, served by this one.
"""

import asyncio
import re
import shlex
import signal
import ssl
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import FederationDescriptor, InviteLink
from fedit_protocol.errors import ProblemType
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.testing import STEPS
from fedit_server.clock import utc_now

from ..server.bases import make_base, small_task
from ..server.devices import RefusedError, one_hot
from ..server.test_dashboard_browser import CHROMIUM, DRIVER, browser, shows, signed_in, text_of, until
from ..server.test_serving import SIZE
from .federation import UNIT, expected_adapter
from .programs import environment, run_json, run_program, write_task
from .replicas import PatientDevice, free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OLDER: Final = Path(__file__).with_name("home_of_schema_0006.tar.gz")
"""What `up` of the program of schema 0006 left when it was killed: a committed round, and one that waits for uploads.

Its keys are of no other use.
"""
DEVICES: Final = 3
EXACT: Final[dict[str, object]] = {"value_range": 127 / 128, "rows_per_weight": 10}
"""One ring step is 1/128."""
START_S: Final = 60.0


@dataclass
class Office:
    """An operator's desk: a folder to work in, a server that runs in a terminal, and what was typed there."""

    folder: Path
    home: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    async def typed(self, line: str, *, status: int = 0) -> str:
        """Type `fedit-server LINE`; returns what it said to both streams."""
        words = [*shlex.split(line), "--home", str(self.home)]
        done = await asyncio.to_thread(run_program, "fedit_server", *words)
        assert "Traceback" not in done.stderr
        assert done.returncode == status, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    async def asked(self, line: str) -> Any:
        """Type a command with `--json`; returns its data."""
        envelope = await asyncio.to_thread(run_json, "fedit_server", *shlex.split(line), "--home", str(self.home))
        assert envelope["ok"], envelope
        return envelope["data"]

    async def begin(self, line: str) -> str:
        """Start `fedit-server LINE` and wait until it serves; returns what it said."""
        said = self.folder / f"{self.home.name}.out"
        self.process = process = self._started(line, said)
        given_up = time.monotonic() + START_S
        while "Ctrl-C stops" not in said.read_text("utf-8"):
            assert process.poll() is None, said.read_text("utf-8")
            assert time.monotonic() < given_up, said.read_text("utf-8")
            await asyncio.sleep(0.05)
        return said.read_text("utf-8")

    def _started(self, line: str, said: Path) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "fedit_server", *shlex.split(line), "--home", str(self.home)]
        with said.open("wb") as out:
            return subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def end(self, number: signal.Signals) -> int:
        """End the server; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(30)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Connect devices, which trust the private authority that the invite pins."""
        context = ssl.create_default_context(cadata=(self.home / "keys" / "ca.pem").read_text("utf-8"))
        async with aiohttp.ClientSession(
            f"https://127.0.0.1:{self.port}/", connector=aiohttp.TCPConnector(ssl=context, force_close=True)
        ) as http:
            yield http

    def descriptor(self) -> FederationDescriptor:
        return decode(FederationDescriptor, (self.home / "descriptor.cbor").read_bytes())


@dataclass
class Federation:
    """A task and its devices."""

    task: str
    devices: list[PatientDevice]

    @classmethod
    async def joined(cls, office: Office, http: aiohttp.ClientSession, task: str, said: str) -> "Federation":
        """Let devices join with the link that was printed."""
        code = InviteLink.parse(link_in(said)).code
        devices = [PatientDevice(http, office.descriptor(), utc_now) for _ in range(DEVICES)]
        for device in devices:
            await device.enroll(code, label=f"{task} desk")
        return cls(task, devices)

    async def gather(self) -> None:
        """Wait for the next round's offer and take it."""
        offers = await asyncio.gather(*(device.offer(self.task) for device in self.devices))
        for device, offer in zip(self.devices, offers, strict=True):
            device.accept(offer)

    async def steps(self, *names: str) -> None:
        for name in names:
            await asyncio.gather(*(device.step(name, update(place)) for place, device in enumerate(self.devices)))

    async def commits(self, office: Office, version: int) -> None:
        """Everybody hears of the commit, and the new version is the one before plus the mean of the updates."""
        results = await asyncio.gather(*(device.result() for device in self.devices))
        assert {result.outcome for result in results} == {RoundOutcome.COMMITTED}
        assert {result.adapter_version for result in results} == {version}
        before, after = [await adapter(office, self.task, number) for number in (version - 1, version)]
        steps = {place: place + 1 for place in range(DEVICES)}
        assert (after == expected_adapter(before, steps, dict.fromkeys(range(DEVICES), 1))).all()


def update(place: int) -> Vector:
    """Return what a device sends: at a place of its own, in whole ring steps, so that the sum is exact."""
    return one_hot(SIZE, place, (place + 1) * UNIT)


async def adapter(office: Office, task: str, version: int) -> NDArray[np.float32]:
    """Export a version and read what PEFT would."""
    from safetensors.numpy import load_file

    out = office.folder / f"{office.home.name}-{task}-{version}"
    if not out.exists():
        await office.typed(f"adapter export --task {task} --adapter-version {version} --out {out}")
    tensors = load_file(out / "adapter_model.safetensors")
    return np.concatenate([tensors[name].ravel() for name in sorted(tensors)])


def link_in(said: str) -> str:
    (link, *_) = re.findall(r"fedit://\S+#sha256:[0-9a-f]{64}", said)
    return str(link)


async def test_the_operators_story(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    for name in ("notes", "letters"):
        (tmp_path / name).mkdir()
        top: dict[str, object] = {"id": name, "title": name.capitalize(), "operator": "Example Org"}
        rounds: dict[str, object] = {"rounds": 2 if name == "notes" else 9}
        write_task(small_task(base, top=top, round=rounds, encoding=EXACT), tmp_path / name)
    (tmp_path / "words").write_text("correct horse battery staple\n", "utf-8")
    office = Office(tmp_path, tmp_path / "one", free_port())
    try:
        await tell_the_story(office)
    finally:
        office.end(signal.SIGKILL)


async def tell_the_story(office: Office) -> None:
    folder, address = office.folder, f"127.0.0.1:{office.port}"
    said = await office.begin(f"up --task {folder}/notes/task.toml --listen {address}")
    assert "notes@1 is published" in said
    assert "invite.create" in await office.typed("audit tail")
    (login,) = re.findall(r"https://\S+/#login=\S+", said)
    pin = link_in(said).partition("#")[2]
    remote = await take_tokens(office, pin)
    assert "letters@1 is published" in await office.typed(
        f"task create {folder}/letters/task.toml --owner 'ward office'"
    )
    invites = [
        await office.typed("invite create --task notes --uses 3 --qr"),
        await office.typed(f"invite create --task letters --uses 3 --expires 2d {remote['operator']}"),
    ]
    async with office.connected() as http:
        notes = await Federation.joined(office, http, "notes", invites[0])
        letters = await Federation.joined(office, http, "letters", invites[1])
        await first_rounds(office, notes, letters, login)
        await second_rounds(office, notes, letters)
        office.end(signal.SIGKILL)
        await restored(office)
        await next_rounds(office, notes, letters)
    await looked_over(office, remote)
    await ended(office, pin, remote)
    assert office.end(signal.SIGTERM) == 0


async def take_tokens(office: Office, pin: str) -> dict[str, str]:
    """Make tokens for work from elsewhere; returns the options that go with each role."""
    options = {}
    for role in ("operator", "viewer", "auditor"):
        said = await office.typed(f"token create --role {role} --name laptop")
        file = office.folder / f"{role}.token"
        file.write_text(re.findall(r"fedit_\S+", said)[0] + "\n", "utf-8")
        options[role] = f"--server https://127.0.0.1:{office.port}#{pin} --token-file {file}"
    return options


async def first_rounds(office: Office, notes: Federation, letters: Federation, login: str) -> None:
    """Two rounds run at once; the first is watched in a browser from its first device to its commit."""
    driver: Any = await asyncio.to_thread(browser) if CHROMIUM and DRIVER else None
    try:
        if driver is not None:
            await asyncio.to_thread(driver.get, login)
            await asyncio.to_thread(until, driver, signed_in)
            assert all(title in text_of(driver, "main") for title in ("Notes", "Letters"))
            await asyncio.to_thread(driver.get, f"https://127.0.0.1:{office.port}/tasks/notes")
            await shows(driver, "Between rounds")
        await asyncio.gather(notes.gather(), letters.gather())
        rounds = (await office.asked("round list"))["rounds"]
        assert {(row["task"], row["state"]) for row in rounds} == {("notes", "open"), ("letters", "open")}
        if driver is not None:
            await shows(driver, "Round 1", "Joining", "0 of 3")
        await notes.steps("join", "shares", "ack")
        if driver is not None:
            await shows(driver, "Training and upload", "0 of 3")
        await asyncio.gather(notes.steps("upload", "unmask"), letters.steps(*STEPS))
        await notes.commits(office, 1)
        await letters.commits(office, 1)
        if driver is not None:
            await shows(driver, "Between rounds")
            await asyncio.to_thread(driver.get, f"https://127.0.0.1:{office.port}/tasks/notes/rounds/1")
            assert "committed" in await asyncio.to_thread(text_of, driver, "main")
            await asyncio.to_thread(driver.save_screenshot, str(office.folder / "round.png"))
    finally:
        if driver is not None:
            await asyncio.to_thread(driver.quit)


async def second_rounds(office: Office, notes: Federation, letters: Federation) -> None:
    """A backup in the midst of them, made by somebody who sees nothing stop."""
    await office.typed(f"audit export --out {office.folder}/audit.jsonl")
    await asyncio.gather(notes.gather(), letters.gather())
    await notes.steps("join", "shares", "ack")
    await notes.devices[0].step("upload", update(0))
    await letters.steps("join")
    sealed = f"--passphrase-file {office.folder}/words"
    said = await office.typed(f"backup create {office.folder}/one.backup {sealed}")
    assert "rounds that run now: 2; a restore closes them for good" in said
    assert "backup" in await office.typed("status")
    await notes.devices[1].step("upload", update(1))  # nothing stopped


async def restored(office: Office) -> None:
    file, sealed = f"{office.folder}/one.backup", f"--passphrase-file {office.folder}/words"
    assert "can be restored" in await office.typed(f"backup verify {file} {sealed}")
    assert "FEDIT-U104" in await office.typed(f"backup restore {file} {sealed}", status=2)
    office.home = office.folder / "two"
    said = await office.typed(f"backup restore {file} {sealed}")
    assert "rounds that ran then: 2, closed for good" in said
    assert f"fedit-server serve --home {office.home}" in said
    await office.begin("serve")
    rounds = (await office.asked("round list"))["rounds"]
    assert sorted((row["no"], row["state"]) for row in rounds) == [(1, "committed")] * 2 + [(2, "failed")] * 2


async def next_rounds(office: Office, notes: Federation, letters: Federation) -> None:
    """Nobody can go on with a round that the restore has closed; the next ones commit."""
    with pytest.raises(RefusedError) as refused:
        await notes.devices[2].step("upload", update(2))
    assert refused.value.type == ProblemType.ROUND_FAILED
    assert (await letters.devices[0].result()).outcome is RoundOutcome.FAILED
    await asyncio.gather(notes.gather(), letters.gather())
    await asyncio.gather(notes.steps(*STEPS), letters.steps(*STEPS))
    await notes.commits(office, 2)
    await letters.commits(office, 2)


async def looked_over(office: Office, remote: dict[str, str]) -> None:
    """All that an operator asks after a bad day, from here and from elsewhere."""
    origins = await office.typed("config show --origin")
    assert re.search(rf"listen +127.0.0.1:{office.port} +{office.home}/server.toml", origins)
    doctor = await office.asked("doctor")
    assert [found for found in doctor["findings"] if found["level"] == "error"] == []
    assert "0 in the way" in await office.typed("doctor")
    status = await office.typed("status")
    assert re.search(r"notes@1 “Notes”, finished", status)
    assert re.search(r"letters@1 “Letters”, active", status)
    assert "hold together" in await office.typed(f"audit verify --against {office.folder}/audit.jsonl")
    assert "sound" in await office.typed("db check")
    assert "ready" in await office.typed("health")
    assert "letters@1" in await office.typed(f"status {remote['viewer']}")
    assert "letters" in await office.typed(f"round list {remote['viewer']}")
    assert "letters" in await office.typed(f"audit tail {remote['auditor']}")
    refused = await office.typed(f"invite create {remote['viewer']}", status=6)
    assert "viewer" in refused


async def ended(office: Office, pin: str, remote: dict[str, str]) -> None:
    """One task is finished by its last round, the other by its owner; both are put away, and the result handed on."""
    await office.typed("task close letters --reason 'the season is over'")
    for task in ("notes", "letters"):
        await office.typed(f"task archive {task} --reason 'handed on'")
    states = {row["id"]: row["state"] for row in (await office.asked("task list"))["tasks"]}
    assert states == {"notes": "archived", "letters": "archived"}
    assert "the season is over" in await office.typed("task log letters")
    out = office.folder / "final"
    await office.typed(f"adapter export --task notes --out {out}")
    (office.folder / "elsewhere").mkdir()
    home = ("--home", str(office.folder / "elsewhere"))
    verified = await asyncio.to_thread(run_program, "fedit_client", "adapters", "verify", str(out), "--pin", pin, *home)
    assert verified.returncode == 0, verified.stderr
    assert "version 2 of notes" in verified.stdout
    assert "archived" in await office.typed(f"status {remote['viewer']}")


async def test_a_folder_of_an_earlier_program_is_served_by_this_one(tmp_path: Path) -> None:
    with tarfile.open(OLDER) as packed:
        packed.extractall(tmp_path, filter="data")
    office = Office(tmp_path, tmp_path / "home", free_port())
    assert "FEDIT-S003" in await office.typed("status", status=12)
    try:
        said = await office.begin(f"serve --listen 127.0.0.1:{office.port}")
        assert "of version 0006 is kept beside" in said
        assert "round 2" in await office.typed("status")
        assert "sound" in await office.typed("db check")
        assert "the record begins here" in await office.typed("task log notes")
        await office.typed("round abort 2 --reason 'its devices are gone'")
        async with office.connected() as http:
            notes = await Federation.joined(office, http, "notes", await office.typed("invite create --uses 3"))
            await notes.gather()
            await notes.steps(*STEPS)
            await notes.commits(office, 2)
        out = tmp_path / "home-notes-2"
        assert "2 of notes" in await office.typed(f"adapter verify {out}")
        assert "hold together" in await office.typed("audit verify")
        assert office.end(signal.SIGTERM) == 0
    finally:
        office.end(signal.SIGKILL)
