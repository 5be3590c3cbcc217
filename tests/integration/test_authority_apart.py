"""A server that can admit nobody, and the authority that does: another folder and process, real HTTPS between them."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client import Client, ClientConfig
from fedit_client.events import EventKind
from fedit_protocol.errors import ConfigError, SecurityError, TransportError
from fedit_protocol.ids import client_id
from fedit_server.authority.admin import audit
from fedit_server.authority.home import AuthorityHome, read_card_file
from fedit_server.authority.link import introduce, parse_server
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.keys.rotation import rotate
from fedit_server.keys.secrets import load_authority_keys
from fedit_server.running.serving import Plan, Serving, serving

from ..server.bases import make_base
from .federation import ROWS, StepTrainer, exact_task, expected_adapter
from .programs import environment, run_json


@dataclass
class AuthorityProcess:
    """`fedit-server authority run` on a folder of its own; can be killed and started again."""

    home: Path
    _process: "subprocess.Popen[str] | None" = None

    def command(self, *words: str) -> dict[str, Any]:
        """Run another of the authority's commands to its end and return its data."""
        answer = run_json("fedit_server", "authority", *words, "--home", str(self.home))
        assert answer["ok"], answer
        data: dict[str, Any] = answer["data"]
        return data

    def start(self, *words: str) -> str:
        """Start, and wait until it answers for its server; return what it says then."""
        line = ["authority", "run", "--home", str(self.home), "--json", *words]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fedit_server", *line],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        said: str = json.loads(self._process.stdout.readline())["text"]
        return said

    def end(self, number: signal.Signals) -> int:
        """Send a signal and return how it ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.send_signal(number)
        status = self._process.wait(30)
        self._process.stdout.close()
        self._process = None
        return status

    def ended(self, within_s: float = 20.0) -> tuple[int, str]:
        """Return the exit status and the error's code of a process that must end by itself, and at once."""
        assert self._process is not None
        told, _ = self._process.communicate(timeout=within_s)
        status, self._process = self._process.returncode, None
        return status, json.loads(told.splitlines()[-1])["error"]["code"]

    def __enter__(self) -> "AuthorityProcess":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)


def base_in(folder: Path) -> Path:
    return folder / "base" if (folder / "base").exists() else make_base(folder / "base", layers=12)


@asynccontextmanager
async def server_with(card: Path, folder: Path, members: int) -> AsyncIterator[Serving]:
    """Serve a task of `members` devices, set up with an authority's card."""
    task = exact_task(base_in(folder), members, rounds=2)
    config = ServerConfig(home=folder / "server", listen="127.0.0.1:0", long_poll_s=2.0)
    async with serving(Plan(config, (task,), card=read_card_file(card))) as server:
        yield server


def device(folder: Path, invite: str, place: int, wait_s: float = 60.0) -> Client:
    """Return a device that waits so long for the authority, and trains one step at its own coordinate."""
    config = ClientConfig.model_validate(
        {"home": folder / f"device-{place}", "network": {"max_wait_s": 0.5, "enroll_wait_s": wait_s}}
    )
    return Client.open(invite, config=config, trainer=StepTrainer(examples=20, place=place, steps=place + 1))


async def join(client: Client, said: list[str]) -> None:
    offer = await client.fetch_offer()
    client.add_records(ROWS)
    await client.join(consent=offer.accept(), say=said.append)


def key_of(client: Client) -> str:
    from fedit_client.membership.identity import load_or_create_identity

    return client_id(load_or_create_identity(client._paths.identity_file).public)


async def test_an_authority_apart_admits_devices_sees_them_through_a_round_and_revokes_one(tmp_path: Path) -> None:
    """It is away at first, killed while a device waits, and never reachable from outside."""
    with AuthorityProcess(tmp_path / "authority") as authority:
        made = await asyncio.to_thread(authority.command, "init", "--federation", "clinics")
        async with server_with(Path(made["card"]), tmp_path, 3) as server:
            assert server.apart is not None
            said = await asyncio.to_thread(authority.start, "--server", server.apart)
            assert said.startswith("answering for https://127.0.0.1")
            link = (await asyncio.to_thread(authority.command, "invite", "create"))["link"]
            authority.end(signal.SIGKILL)
            await refused_while_it_is_away(server, tmp_path, link)
            devices, words = [device(tmp_path, link, place) for place in range(3)], [[], [], []]  # type: list[Client], list[list[str]]
            waiting = [asyncio.create_task(join(one, told)) for one, told in zip(devices, words, strict=True)]
            while not all(words):  # noqa: ASYNC110  the devices' own words
                await asyncio.sleep(0.05)
            assert await server.parts.store.members.clients() == []
            await asyncio.to_thread(authority.start)
            await asyncio.gather(*waiting)
            await play(server, devices, tmp_path)
            await revoked(server, authority, devices)
            assert authority.end(signal.SIGTERM) == 0
        here, there = await audit(tmp_path / "server"), await audit(tmp_path / "authority")
    assert here == there
    assert (here.size, here.devices, here.apart) == (4, 2, True)
    nowhere_in(tmp_path / "server", tmp_path / "authority", link)


async def refused_while_it_is_away(server: Serving, folder: Path, link: str) -> None:
    said: list[str] = []
    with pytest.raises(TransportError) as away:
        await join(device(folder, link, 0, wait_s=0.0), said)
    assert away.value.code == "N012"
    assert any("lives apart" in line for line in said)
    assert (await server.parts.store.admissions.waiting()).count == 1


async def play(server: Serving, devices: list[Client], folder: Path) -> None:
    """One round of all three, whose sum is exact."""
    events: list[list[Any]] = [[], [], []]
    await asyncio.gather(*(one.run_to_end(1, kept.append) for one, kept in zip(devices, events, strict=True)))
    parts = server.parts
    (task,) = await parts.store.tasks.tasks()
    layout = task.document.layout
    from fedit_server.adapters.tensors import from_safetensors

    before, after = (
        from_safetensors(
            layout,
            (folder / "server" / "adapters" / task.task_id / str(version) / "adapter_model.safetensors").read_bytes(),
        )
        for version in (0, 1)
    )
    steps, weights = {place: place + 1 for place in range(3)}, dict.fromkeys(range(3), 2)
    assert np.array_equal(after, expected_adapter(before, steps, weights))


async def revoked(server: Serving, authority: AuthorityProcess, devices: list[Client]) -> None:
    """The authority revokes one; the server, that device and the others learn of it."""
    await asyncio.to_thread(authority.command, "revoke", key_of(devices[0])[:12])
    while await server.parts.store.key_log.size() < 4:  # noqa: ASYNC110  the authority's next question brings it
        await asyncio.sleep(0.05)
    with pytest.raises(SecurityError) as out:
        await devices[0].run_to_end(1)
    assert out.value.code == "T008"
    notices: list[str] = []
    heard = asyncio.Event()

    def listen(event: Any) -> None:
        if event.kind is EventKind.NOTICE:
            notices.append(event.text)
            heard.set()

    staying = asyncio.create_task(devices[1].run_to_end(1, listen))
    await heard.wait()
    staying.cancel()
    await asyncio.gather(staying, return_exceptions=True)
    assert any("2 devices enrolled" in text for text in notices), notices


def nowhere_in(server: Path, authority: Path, link: str) -> None:
    """Row 32: neither the code nor a key of the authority was ever on the server's disk."""
    stored = b"".join(path.read_bytes() for path in server.rglob("*") if path.is_file())
    keys = load_authority_keys(authority / "keys", create=False)
    code = link.partition("/j/")[2].partition("#")[0]
    for secret in (
        code.encode(),
        code.replace("-", "").encode(),
        keys.sign.secret_bytes(),
        keys.seal.private_bytes_raw(),
    ):
        assert secret not in stored


async def test_an_authority_meets_only_the_server_that_it_was_told(tmp_path: Path) -> None:
    """The pin decides, and the descriptor must name this authority's keys: nothing is sent before that."""
    home, other = AuthorityHome(tmp_path / "authority"), AuthorityHome(tmp_path / "other")
    card, stranger = home.create(""), other.create("")
    async with server_with(home.card, tmp_path, 3) as server:
        assert server.apart is not None
        assert (await introduce(card, server.apart)).pin == server.parts.identity.pin
        with pytest.raises(SecurityError, match="shows the identity") as wrong_pin:
            await introduce(card, server.apart[:-4] + "ffff")
        with pytest.raises(SecurityError, match="not set up with this authority's card") as not_ours:
            await introduce(stranger, server.apart)
        linked = home.link(await introduce(card, server.apart))
        named = (server.apart, server.url, server.apart[:-4] + "ffff")
        assert [linked.is_named(*parse_server(text)) for text in named] == [True, True, False]
        with pytest.raises(ConfigError) as no_pin:
            await introduce(card, server.url)
    assert wrong_pin.value.code == not_ours.value.code == "T025"
    assert (no_pin.value.code, server.parts.identity.pin in (no_pin.value.where or "")) == ("U034", True)
    with pytest.raises(TransportError) as nobody:
        await introduce(card, server.apart)
    assert nobody.value.code == "N020"


async def test_the_line_that_names_a_server_outlives_a_change_of_its_key(tmp_path: Path) -> None:
    """As an invite does, and for the same reason: the old key signed for the new one."""
    home = AuthorityHome(tmp_path / "authority")
    card = home.create("")
    async with server_with(home.card, tmp_path, 3) as server:
        old_pin = server.parts.identity.pin
    identity = await rotate(Home(tmp_path / "server"), lost=False)
    async with server_with(home.card, tmp_path, 3) as server:
        met = await introduce(card, f"{server.url}#{old_pin}")
    assert met.pin == identity.pin != old_pin


async def test_an_old_copy_of_an_authority_ends_with_an_alarm(tmp_path: Path) -> None:
    """Its process too: whoever supervises it must see that it has stopped, and why."""
    with AuthorityProcess(tmp_path / "authority") as authority, AuthorityProcess(tmp_path / "copy") as copy:
        made = await asyncio.to_thread(authority.command, "init")
        async with server_with(Path(made["card"]), tmp_path, 3) as server:
            assert server.apart is not None
            await asyncio.to_thread(authority.start, "--server", server.apart)
            link = (await asyncio.to_thread(authority.command, "invite", "create"))["link"]
            shutil.copytree(authority.home, copy.home)
            await join(device(tmp_path, link, 0), [])
            await asyncio.to_thread(copy.start)
            assert await asyncio.to_thread(copy.ended) == (6, "FEDIT-T024")
            assert authority.end(signal.SIGTERM) == 0
