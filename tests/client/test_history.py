"""The signed history: every round with its figures, and no line that can be changed, removed or put in unseen."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedit_client import Client
from fedit_client.cli import invoke
from fedit_client.commands.fleet import note_contacts
from fedit_client.config import load_config
from fedit_client.data import Source
from fedit_client.events import Event, EventKind
from fedit_client.fleet.launching import Launch
from fedit_client.fleet.settings import FleetSettings
from fedit_client.home.paths import Paths
from fedit_client.membership.identity import load_or_create_identity
from fedit_client.membership.trust import system_tls
from fedit_client.network.metering import MeteredTransport
from fedit_client.network.transport import HttpTransport
from fedit_client.records.contacts import (
    HUB,
    INSTALLER,
    PACKAGES,
    RAY,
    SERVER,
    Contacts,
    every_host,
    note_hub,
)
from fedit_client.records.history import History, RoundEntry, faults
from fedit_client.records.journal import Journal
from fedit_client.records.round_notes import RoundNotes
from fedit_client.testing import FakeTrainer
from fedit_protocol.encoding import decode
from fedit_protocol.errors import DeviceError, StorageError
from fedit_protocol.messages import Offer
from fedit_protocol.secagg.effects import Persist, Record
from fedit_protocol.signing import Kind, SigningKey, read_envelope
from fedit_protocol.testing import MemoryFederation

from .conftest import HttpsFederation
from .test_home import copied
from .test_sdk import collect, joined

KEY = SigningKey(b"\x05" * 32)


def entry(number: int, **changes: object) -> RoundEntry:
    """Return a made-up round."""
    values = {"started_at": 1, "ended_at": 2, "server": "here:1", "federation_id": "f", "task": "t@1", "mode": "masked",
              "task_digest": "sha256:aa", "model": "m", "model_digest": "sha256:bb", "round_no": number,
              "round_id": "0", "outcome": "committed", "adapter_before": number - 1,
              "adapter_before_digest": "sha256:cc", "committed": number}  # fmt: skip
    return RoundEntry.model_validate(values | changes)


def written(folder: Path, rounds: int = 4) -> Path:
    history = History(folder, KEY)
    for number in range(1, rounds + 1):
        history.append(entry(number))
    (file,) = folder.iterdir()
    return file


async def test_a_round_is_noted_with_everything_that_its_owner_may_ask(
    https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client, 1) for client in clients))
    home = tmp_path / "0"
    paths = Paths.under(home)
    key = load_or_create_identity(paths.identity_file)
    (line,) = History(paths.history).lines()
    noted, upload = line.entry, dict(https.loopback.uploads)[key.public]
    document = https.document
    assert (line.fault, line.signer) == (None, key.public.hex())
    assert (noted.task, noted.task_digest, noted.model_digest) == (
        "test-task@1",
        document.digest,
        document.task.base.digest,
    )
    assert (noted.cohort, noted.honest, noted.survivors, noted.outcome) == (3, 3, 3, "committed")
    assert (noted.adapter_before, noted.adapter_after) == (0, 1)
    assert (noted.adapter_before_digest, noted.adapter_after_digest) == tuple(https.loopback.digests)
    assert len(upload) < noted.bytes_up < len(upload) + 5000
    assert noted.bytes_down > len(https.loopback.blobs[https.loopback.digests[0]])
    assert (noted.log_devices, noted.committed, noted.epsilon) == (6, 1, None)
    assert noted.uploads == (hashlib.sha256(upload).hexdigest(),)
    words = ("--home", str(home))
    assert invoke(["history", "--verify", *words]) == 0
    said = capsys.readouterr().out
    assert "test-task@1 round 1 · committed · hidden among 3 of 3 devices · adapter 0 → 1" in said
    assert "1 line: every signature holds" in said
    assert invoke(["privacy", *words]) == 0
    said = capsys.readouterr().out
    assert "no bound: the task adds no noise" in said
    assert "contributed to 1 of 1 that the task plans" in said
    assert "round 1: 3 devices; least hidden in round 1: among 3 of 3, yours counted" in said
    assert "6 devices enrolled, as many as in your first round" in said
    assert invoke(["explain", "network", *words]) == 0
    said = capsys.readouterr().out
    assert f"127.0.0.1:{https.port}  last contacted: 20" in said
    assert "huggingface.co  last contacted: never" in said
    next(paths.history.iterdir()).write_bytes(b"")  # the journal knows of a round that is nowhere here
    assert invoke(["history", "--verify", *words]) == 12
    assert "the last 1 committed rounds of" in capsys.readouterr().err


async def test_a_round_that_a_device_leaves_is_noted_too(https: HttpsFederation, tmp_path: Path) -> None:
    broken = DeviceError("the card is on fire", code="H004")
    clients = [
        await joined(https, tmp_path / str(n), FakeTrainer(fail_with=broken if n == 0 else None)) for n in range(3)
    ]
    runs = [asyncio.create_task(collect(client, 1)) for client in clients]
    async with asyncio.timeout(30):
        with pytest.raises(DeviceError):
            await runs[0]
    for run in runs[1:]:
        run.cancel()
    await asyncio.wait(runs)
    (noted,) = History(Paths.under(tmp_path / "0").history).entries()
    assert (noted.outcome, noted.reason, noted.uploads) == ("left", "the card is on fire", ())


async def test_a_history_that_cannot_be_written_does_not_hide_what_ended_the_round(
    https: HttpsFederation, tmp_path: Path
) -> None:
    broken = DeviceError("the card is on fire", code="H004")
    clients = [
        await joined(https, tmp_path / str(n), FakeTrainer(fail_with=broken if n == 0 else None)) for n in range(3)
    ]
    others = [asyncio.create_task(collect(client, 1)) for client in clients[1:]]
    told: list[str] = []

    def block(event: Event) -> None:
        told.append(event.text)
        if event.kind is EventKind.ROUND_OPENED:
            Paths.under(tmp_path / "0").history.write_text("a file where the folder belongs")

    async with asyncio.timeout(30):
        with pytest.raises(DeviceError, match="on fire"):
            await clients[0].run_to_end(on_event=block)
    for run in others:
        run.cancel()
    await asyncio.wait(others)
    assert told[-1].startswith("how the round ended could not be noted: ")


def test_a_round_in_whose_midst_the_program_was_killed_is_noted_by_the_next_one(tmp_path: Path) -> None:
    paths = copied(1, tmp_path / "home")
    membership = Client.open(home=paths.state).require_membership()
    descriptor, document = membership.federation.descriptor, membership.task_document
    journal = Journal(paths.journal / descriptor.federation_id / document.task.id)
    notes = RoundNotes(
        History(paths.history, KEY), membership, MeteredTransport(HttpTransport("", 1, system_tls(), None))
    )
    now = datetime(2026, 1, 1, tzinfo=UTC)
    notes.catch_up(journal, now, ())
    assert History(paths.history).entries() == []  # its last round was committed
    federation = MemoryFederation(3, "a home of format 1")
    offer = decode(Offer, read_envelope(federation.offer(document, now, round_no=3), Kind.OFFER).body)
    journal.persist(offer, Persist(Record(kind="joined", body=offer.round_id.encode())), 1767225600)
    for _ in range(2):
        notes.catch_up(Journal(journal._folder), now, ("ab",))
    (line,) = History(paths.history).lines()
    assert (line.entry.round_no, line.entry.outcome, line.entry.uploads) == (3, "left", ("ab",))
    assert (line.entry.reason, line.fault) == ("this program ended in the midst of it", None)


def swapped(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a figure is changed": lambda lines: [lines[0].replace(b'"round_no":1', b'"round_no":9'), *lines[1:]],
    "the last line is changed": lambda lines: [*lines[:-1], lines[-1].replace(b'"bytes_up":0', b'"bytes_up":7')],
    "a line is removed": lambda lines: [lines[0], *lines[2:]],
    "the first line is removed": lambda lines: lines[1:],
    "a line is put in twice": lambda lines: [lines[0], lines[0], *lines[1:]],
    "two lines are swapped": swapped,
    "a space is put in": lambda lines: [lines[0].replace(b":1,", b": 1,", 1), *lines[1:]],
    "the last lines are cut off": lambda lines: lines[:-2],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_found(change: Callable[[list[bytes]], list[bytes]], tmp_path: Path) -> None:
    file = written(tmp_path)
    assert faults(History(tmp_path).lines(), {"f/t": 4}) == []
    file.write_bytes(b"".join(line + b"\n" for line in change(file.read_bytes().splitlines())))
    assert faults(History(tmp_path).lines(), {"f/t": 4}) != []


def test_a_line_by_another_key_is_found(tmp_path: Path) -> None:
    file = written(tmp_path / "own")
    History(tmp_path / "other", SigningKey(b"\x06" * 32)).append(entry(1))
    (forged,) = (tmp_path / "other").iterdir()
    file.write_bytes(forged.read_bytes())
    assert "another key" in faults(History(tmp_path / "own").lines(), {})[0]


def test_what_a_crash_tore_is_cut_off_before_the_next_line(tmp_path: Path) -> None:
    file = written(tmp_path, rounds=2)
    with file.open("ab") as torn:
        torn.write(b'{"entry":{"adap')
    assert len(History(tmp_path).lines()) == 2
    History(tmp_path, KEY).append(entry(3))
    assert faults(History(tmp_path).lines(), {"f/t": 3}) == []
    assert [one.round_no for one in History(tmp_path).entries()] == [1, 2, 3]


def test_a_line_that_is_none_has_a_code(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text("{}\n")
    with pytest.raises(StorageError) as told:
        History(tmp_path).lines()
    assert told.value.code == "S018"


def test_the_command_fails_on_a_changed_line_and_warns_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path / "history")
    file.write_bytes(file.read_bytes().replace(b'"bytes_up":0', b'"bytes_up":1', 1))
    assert invoke(["history", "--verify", "--home", str(tmp_path)]) == 12
    assert (
        "FEDIT-S019: the history does not hold: line 1: it was changed after it was signed" in capsys.readouterr().err
    )
    assert invoke(["history", "--json", "--home", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (len(shown["data"]["rounds"]), shown["data"]["verified"], len(shown["data"]["faults"])) == (4, False, 2)


def test_hosts_are_the_servers_and_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org/x")
    contacts = Contacts(tmp_path / "contacts.json")
    contacts.note("old:8443", SERVER)
    contacts.note("new:8443", SERVER)
    hosts = every_host(contacts.all(), "new:8443", "org/model")
    assert [(host.host, host.purpose) for host in hosts] == [
        ("new:8443", SERVER), ("old:8443", SERVER), ("hub.example.org", HUB), (INSTALLER, INSTALLER)
    ]  # fmt: skip
    assert [host.last_at is None for host in hosts] == [False, False, True, True]
    assert every_host({}, None, "HuggingFaceTB/SmolLM2-135M-Instruct")[-1].host == PACKAGES
    note_hub(tmp_path)
    assert contacts.all()["hub.example.org"]["purpose"] == HUB
    (tmp_path / "contacts.json").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    note_hub(tmp_path)
    assert contacts.all() == {}
    hub = every_host({"hub.example.org": {"purpose": HUB, "at": 1}}, None, None)[0]
    assert hub.line() == (
        "hub.example.org  last contacted: 1970-01-01 00:00 UTC\n    not asked now: HF_HUB_OFFLINE is set"
    )
    (tmp_path / "contacts.json").write_text("[")
    assert contacts.all() == {}


def test_a_fleet_tells_of_its_server_and_of_the_ray_cluster_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, contacts = load_config(tmp_path), Contacts(load_config(tmp_path).paths.contacts_file)
    settings = FleetSettings(server="local", clients=3, data="rows.jsonl", ray=True)
    fleet = Launch(settings, tmp_path, Source("rows.jsonl"), config)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    note_contacts(fleet)
    assert contacts.all() == {}
    monkeypatch.setenv("RAY_ADDRESS", "ray://lab.example.org:10001")
    note_contacts(replace(fleet, settings=replace(settings, server="https://lab.example.org:8443")))
    hosts = every_host(contacts.all(), None, None)
    assert [(host.host, host.purpose) for host in hosts if host.last_at] == [
        ("lab.example.org:8443", SERVER),
        ("ray://lab.example.org:10001", RAY),
    ]
