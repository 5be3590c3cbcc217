"""A home of every earlier format opens and goes on where it was; one of a later format is left alone."""

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from fedit_client import Client
from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.consent.agreements import Agreements
from fedit_client.events import EventKind
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import load_identity
from fedit_client.membership.joined import Membership
from fedit_client.migrations.format import FORMAT, format_of
from fedit_client.migrations.steps import STEPS, open_home
from fedit_client.records.history import History
from fedit_client.testing import FakeTrainer, LoopbackServer, LoopbackTransport
from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import StorageError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.messages import RoundOutcome, RoundResult

from .test_session import World

HOMES = Path(__file__).parent / "homes"
FORMATS = sorted(int(path.name.rpartition("-")[2]) for path in HOMES.glob("format-*"))
ROWS = [{"prompt": "say one", "completion": "one"}] * 20


def copied(number: int, target: Path) -> Paths:
    """Return a home of a format, as private as the client had made it; git keeps no such modes."""
    shutil.copytree(HOMES / f"format-{number}", target)
    (target / "identity.key").chmod(0o600)
    return Paths.under(target)


def contents(home: Path) -> dict[Path, bytes]:
    """Return every file of a home but the log and the lock, which any command may touch."""
    files = [path for path in home.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in files if path.parent.name != "log" and path.name != "client.lock"}


class Looped(LoopbackTransport):
    """A transport in memory that is used like the real one."""

    async def __aenter__(self) -> "Looped":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class LoopedClient(Client):
    """The SDK's client on a transport in memory."""

    server: LoopbackServer
    device: IdentityKey

    def _signing_transport(self, membership: Membership) -> Any:
        return Looped(self.server, self.device)


def continued(paths: Paths, tmp_path: Path) -> World:
    """Return the federation of the home after its second round, with the two other devices."""
    membership = Client.open(home=paths.state).require_membership()
    world = World(tmp_path / "others", membership.task_document, seed="a home of format 1")
    server, layout = world.server, membership.task_document.layout
    files = [paths.adapters / "test-task" / str(number) / "adapter_model.safetensors" for number in range(3)]
    server.clock.advance(seconds=time.time() - server.clock().timestamp())  # the home's own client reads the real one
    server.digests = [digest_of(file.read_bytes()) for file in files]
    server.blobs |= dict(zip(server.digests, (file.read_bytes() for file in files), strict=True))
    server.results += [
        RoundResult(outcome=RoundOutcome.COMMITTED, reason="", adapter_version=number, adapter_digest=digest,
                    survivors=3, cohorts=1, sums_done=1)
        for number, digest in enumerate(server.digests) if number
    ]  # fmt: skip
    assert layout.size == len(server.adapter)
    return world


def test_every_format_before_this_one_has_a_step_and_a_home_to_try() -> None:
    assert sorted(STEPS) == list(range(1, FORMAT))
    assert list(range(1, FORMAT + 1))[: len(FORMATS)] == FORMATS
    assert set(STEPS) <= set(FORMATS)


@pytest.mark.parametrize("number", FORMATS)
def test_commands_that_only_look_change_nothing(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = copied(number, tmp_path / "home")
    before = contents(paths.state)
    for command in (["status"], ["consent", "show"], ["policy", "show"], ["paths"]):
        assert invoke([*command, "--home", str(paths.state)]) == 0, capsys.readouterr().err
    assert "rounds      2 of " in capsys.readouterr().out
    assert contents(paths.state) == before


@pytest.mark.parametrize("number", FORMATS)
async def test_a_home_of_an_earlier_client_takes_part_in_the_next_round(number: int, tmp_path: Path) -> None:
    paths = copied(number, tmp_path / "home")
    world = continued(paths, tmp_path)
    key = load_identity(paths.identity_file)
    assert key is not None
    client = LoopedClient.open(config=load_config(paths.state), trainer=FakeTrainer())
    client.server, client.device = world.server, key.public
    client.add_records(ROWS)
    async with asyncio.timeout(20):
        neighbours = [one.session for one in world.devices if one.engagement.key.public != key.public]
        others = [asyncio.create_task(session.run(1)) for session in neighbours]
        kinds = [event.kind async for event in client.run(1)]
        await asyncio.gather(*others)
    assert EventKind.ROUND_COMMITTED in kinds
    assert world.server.results[-1].survivors == 3
    assert format_of(paths.state) == FORMAT
    assert load_config(paths.state).device.threads == 2
    (noted,) = History(paths.history).entries()
    assert (noted.round_no, noted.committed, noted.outcome) == (3, 3, "committed")
    assert invoke(["history", "--verify", "--home", str(paths.state)]) == 0  # its first rounds were in no history
    kept = Agreements(paths.consents).all()
    assert [(one.kind, one.label, one.digest) for one in kept][:1] == [
        ("agreed", "test-task@1", client.require_membership().task_document.digest)
    ]


def test_a_step_that_was_interrupted_runs_again(tmp_path: Path) -> None:
    paths = copied(1, tmp_path / "home")
    STEPS[1](paths)  # the machine stopped right before the new format was noted
    assert open_home(paths) == [2]
    assert open_home(paths) == []
    (kept,) = Agreements(paths.consents).all()
    assert (kept.given_by, kept.at) == ("earlier client", 1767225600)


COMMANDS = ["status", "run", "leave", "consent show", "leave --erase --yes"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_home_of_a_later_client_is_left_alone(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = copied(1, tmp_path / "home")
    paths.home_file.write_text(json.dumps({"format": FORMAT + 1}))
    before = contents(paths.state)
    assert invoke([*command.split(), "--home", str(paths.state)]) == 12
    said = capsys.readouterr().err
    assert "FEDIT-S016: a newer fedit-client wrote this home" in said
    assert "fix:   uv tool upgrade fedit" in said
    assert contents(paths.state) == before


def test_a_home_without_a_readable_format_is_not_guessed_at(tmp_path: Path) -> None:
    paths = copied(1, tmp_path / "home")
    paths.home_file.write_text("{}")
    with pytest.raises(StorageError) as told:
        open_home(paths)
    assert told.value.code == "S013"
