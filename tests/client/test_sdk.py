"""The library as another program uses it, over real HTTPS, without torch."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fedit_client
from fedit_client import Client, ClientConfig, ConsentError, DataError, Event, EventKind, MembershipError, RoundStage
from fedit_client.cli import invoke
from fedit_client.config import load_config
from fedit_client.data import Source
from fedit_client.data.remembered import load_sources
from fedit_client.help_pages import documented_codes
from fedit_client.home.paths import Paths
from fedit_client.testing import FakeTrainer
from fedit_protocol.errors import ConfigError, ProblemType, SecurityError, StorageError, TaskRefusedError
from fedit_protocol.signing import SigningKey

from .conftest import HttpsFederation

ROWS = [{"prompt": f"say {number}", "completion": str(number)} for number in range(20)]
OTHER = SigningKey(b"\x07" * 32)
ROOT = Path(fedit_client.__file__).parent
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


async def joined(https: HttpsFederation, home: Path, trainer: FakeTrainer | None = None) -> Client:
    client = Client.open(https.invite, home=home, trainer=trainer or FakeTrainer())
    offer = await client.fetch_offer()
    client.add_records(ROWS)
    await client.join(consent=offer.accept(), label=home.name)
    return client


async def collect(client: Client, max_rounds: int | None = None) -> list[Event]:
    return [event async for event in client.run(max_rounds)]


async def test_three_programs_federate(https: HttpsFederation, tmp_path: Path) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        runs = await asyncio.gather(*(collect(client) for client in clients))
    for client, events in zip(clients, runs, strict=True):
        assert events[-1].kind is EventKind.TASK_FINISHED
        assert sum(event.kind is EventKind.ADAPTER_SAVED for event in events) == 1
        assert EventKind.ROUND_COMMITTED in {event.kind for event in events}
        adapter = client.latest_adapter()
        assert adapter is not None
        assert json.loads((adapter / "adapter_config.json").read_text())["peft_type"] == "LORA"
        card = (adapter / "README.md").read_text()
        assert card.startswith("---\n")
        assert 'library_name: "peft"' in card


async def test_a_client_that_starts_sweeps_what_a_dead_one_left_of_its_training(
    https: HttpsFederation, tmp_path: Path
) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    left = Paths.under(tmp_path / "0").checkpoints / "0123" / "run.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"an adapter, half trained")
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client) for client in clients))
    assert not left.parent.exists()


async def test_an_upload_that_is_cut_goes_on_with_the_same_bytes(https: HttpsFederation, tmp_path: Path) -> None:
    https.cut_upload_after = 1000
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client) for client in clients))
    assert len(https.loopback.uploads) == 3
    assert https.loopback.results[0].survivors == 3


async def test_consent_is_words_and_data(https: HttpsFederation, tmp_path: Path) -> None:
    offer = await Client.open(https.invite, home=tmp_path).fetch_offer()
    summary = offer.summary
    assert summary.hidden_among == 3
    assert summary.label == "test-task@1"
    words = "\n".join(summary.lines())
    for sentence in ("hidden among at least 3", "Never leaves", "Level T1", "your network address", "cohort of three"):
        assert sentence in words
    assert https.asked == ["GET /v1/federation", "GET /v1/tasks"]
    assert list(tmp_path.iterdir()) == []


async def test_a_yes_to_something_else_is_no_yes(https: HttpsFederation, tmp_path: Path) -> None:
    client = Client.open(https.invite, home=tmp_path, trainer=FakeTrainer())
    consent = (await client.fetch_offer()).accept()
    task = https.document.task.model_copy(update={"title": "another"})
    https.loopback.document = https.document.model_copy(update={"task": task})
    await client.fetch_offer()
    with pytest.raises(ConsentError) as told:
        await client.join(consent=consent)
    assert told.value.code == "A003"
    assert "POST /v1/enroll" not in https.asked


async def test_a_task_outside_the_owners_limits_is_refused_before_enrolment(
    https: HttpsFederation, tmp_path: Path
) -> None:
    config = load_config(tmp_path, {"limits": {"hidden_among": 10}})
    with pytest.raises(TaskRefusedError) as told:
        await Client.open(https.invite, config=config).fetch_offer()
    assert told.value.code == "K001"
    assert told.value.where == "setting limits.hidden_among"
    assert "POST /v1/enroll" not in https.asked


async def test_joining_again_renews_consent_and_data_without_a_new_invite(
    https: HttpsFederation, tmp_path: Path
) -> None:
    await joined(https, tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(json.dumps(row) for row in ROWS))
    again = Client.open(home=tmp_path, trainer=FakeTrainer())
    again.add_data(rows)
    offer = await again.fetch_offer()
    await again.join(consent=offer.accept())
    assert load_sources(Paths.under(tmp_path)) == (Source(str(rows)),)
    assert https.asked.count("POST /v1/enroll") == 1


async def test_a_home_of_the_version_before_keeps_its_data(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path / "home")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    before = client.require_membership().model_copy(update={"data": (str(rows),), "on_error": "skip"})
    before.save(tmp_path / "home" / "membership.json")
    paths = Paths.under(tmp_path / "home")
    assert not paths.sources_file.exists()
    assert load_sources(paths) == (Source(str(rows), on_error="skip"),)
    again = Client.open(home=tmp_path / "home", trainer=FakeTrainer())
    await again.join(consent=(await again.fetch_offer()).accept())
    assert load_sources(paths) == (Source(str(rows), on_error="skip"),)
    assert paths.sources_file.exists()


async def test_an_invite_that_was_used_joins_again_while_the_membership_stands(
    https: HttpsFederation, tmp_path: Path
) -> None:
    first = (await joined(https, tmp_path)).require_membership()
    again = (await joined(https, tmp_path)).require_membership()
    assert again.certificate == first.certificate
    assert https.asked.count("POST /v1/enroll") == 1


async def test_a_device_that_the_server_has_forgotten_joins_again_with_an_invite(
    https: HttpsFederation, tmp_path: Path
) -> None:
    await joined(https, tmp_path)
    https.refuse["/adapter"] = SecurityError(ProblemType.NOT_ENROLLED, "who are you?")
    await joined(https, tmp_path)
    assert https.asked.count("POST /v1/enroll") == 2


async def test_an_expired_certificate_is_renewed_with_an_invite(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path)
    expired = client.require_membership().model_copy(update={"certificate": https.federation.certificate(OTHER.public)})
    expired.save(tmp_path / "membership.json")
    renewed = (await joined(https, tmp_path)).require_membership()
    assert renewed.certificate != expired.certificate
    assert https.asked.count("POST /v1/enroll") == 2


async def test_after_leaving_a_new_invite_joins_with_the_same_key(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path)
    key = (tmp_path / "identity.key").read_bytes()
    https.refuse["/v1/leave"] = SecurityError(ProblemType.NOT_ENROLLED, "who are you?")
    await client.leave()
    await joined(https, tmp_path)
    assert (tmp_path / "identity.key").read_bytes() == key


@pytest.mark.parametrize("name", ["membership.json", "identity.key"])
async def test_erasing_works_where_a_damaged_file_says_so(https: HttpsFederation, tmp_path: Path, name: str) -> None:
    client = await joined(https, tmp_path)
    (tmp_path / name).write_text("damaged")
    with pytest.raises(StorageError) as told:
        await client.leave()
    assert (told.value.code, "--erase" in (told.value.fix or "")) == ("S013", True)
    await client.leave(erase=True)
    assert not (tmp_path / "membership.json").exists()
    assert not (tmp_path / "identity.key").exists()


async def test_leaving_tells_the_server_and_keeps_the_adapters(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path)
    kept = tmp_path / "adapters" / "test-task" / "1"
    kept.mkdir(parents=True)
    half_trained = Paths.under(tmp_path).checkpoints
    half_trained.mkdir()
    await client.leave()
    assert "POST /v1/leave" in https.asked
    assert client.membership is None
    assert kept.exists()
    assert (tmp_path / "identity.key").exists()
    removed = (await client.leave(erase=True)).paths
    assert not (tmp_path / "identity.key").exists()
    assert {kept.parent.parent, half_trained} <= set(removed)


async def test_one_home_belongs_to_one_federation(https: HttpsFederation, tmp_path: Path) -> None:
    await joined(https, tmp_path)
    https.descriptor = https.descriptor.replace(b"memory", b"others")
    other = Client.open(https.invite, home=tmp_path, trainer=FakeTrainer())
    offer = await other.fetch_offer()
    with pytest.raises(MembershipError) as told:
        await other.join(consent=offer.accept())
    assert told.value.code == "J002"


async def test_a_new_key_is_a_new_enrolment_and_forgets_nothing_else(https: HttpsFederation, tmp_path: Path) -> None:
    """The server is told under the old key; the next join makes another one (ADR 0021)."""
    client = await joined(https, tmp_path)
    before, old_key = client.require_membership(), (tmp_path / "identity.key").read_bytes()
    (tmp_path / "journal").mkdir()
    (tmp_path / "key-log").mkdir()
    with pytest.raises(ConfigError) as needs_server:
        await client.leave(new_key=True, offline=True)
    assert (needs_server.value.code, (tmp_path / "identity.key").read_bytes()) == ("U001", old_key)
    removed = (await client.leave(new_key=True)).paths
    assert {path.name for path in removed} == {"membership.json", "identity.key"}
    assert https.asked.count("POST /v1/leave") == 1
    assert (tmp_path / "journal").exists()
    assert (tmp_path / "key-log").exists()
    again = (await joined(https, tmp_path)).require_membership()
    assert (tmp_path / "identity.key").read_bytes() != old_key
    assert again.certificate != before.certificate


async def test_status_after_the_end_of_a_task_says_so_and_what_the_adapter_is_good_for(
    https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client) for client in clients))
    assert invoke(["status", "--home", str(tmp_path / "0")]) == 0
    said = capsys.readouterr().out
    assert "client      the task has ended after round 1; there is nothing left to take part in" in said
    assert "use the adapter: fedit-client chat · eval · export --to gguf; then fedit-client leave" in said
    assert "rounds      1 of 1 committed with this device\n" in said
    assert "not running" not in said


async def test_stopping_the_iterator_leaves_the_round(https: HttpsFederation, tmp_path: Path) -> None:
    held = asyncio.Event()
    clients = [await joined(https, tmp_path / str(number), FakeTrainer(wait_for=held)) for number in range(3)]
    others = [asyncio.create_task(collect(client)) for client in clients[1:]]
    async with asyncio.timeout(30), clients[0] as leaving:
        events = leaving.run()
        async for event in events:
            if event.kind is EventKind.PROGRESS and event.stage is RoundStage.TRAIN:
                break
        await events.aclose()
    assert any("/abort" in asked for asked in https.asked)
    for task in others:
        task.cancel()
    await asyncio.wait(others)


async def test_the_callback_hears_what_the_iterator_yields(https: HttpsFederation, tmp_path: Path) -> None:
    clients = [await joined(https, tmp_path / str(number)) for number in range(3)]
    heard: list[Event] = []
    async with asyncio.timeout(30):
        await asyncio.gather(*(client.run_to_end(1, heard.append) for client in clients))
    assert sum(event.kind is EventKind.ROUND_COMMITTED for event in heard) == 3


async def test_without_rows_nothing_is_joined_in_silence(https: HttpsFederation, tmp_path: Path) -> None:
    client = Client.open(https.invite, home=tmp_path, trainer=FakeTrainer())
    await client.join(consent=(await client.fetch_offer()).accept())
    with pytest.raises(DataError) as told:
        await collect(client)
    assert told.value.code == "D020"


async def test_a_bare_address_needs_an_invite_code(https: HttpsFederation, tmp_path: Path) -> None:
    pin = https.invite.partition("#")[2]
    client = Client.open(f"https://127.0.0.1:{https.port}", home=tmp_path, pin=pin)
    with pytest.raises(ConfigError) as told:
        await client.join(consent=(await client.fetch_offer()).accept())
    assert told.value.code == "U005"


def test_every_public_name_is_there() -> None:
    assert all(getattr(fedit_client, name) for name in fedit_client.__all__)
    assert fedit_client.ClientConfig is ClientConfig
    assert sorted(fedit_client.__all__) == list(fedit_client.__all__)


def test_importing_it_is_quick_and_quiet() -> None:
    code = "import sys; import fedit_client; sys.exit('torch' in sys.modules or 'aiohttp' in sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=os.environ | path_of_tests())


def path_of_tests() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


def raised_in(folder: Path) -> set[str]:
    """The codes of the errors that a folder's modules raise."""
    found = (re.findall(r"(?:code=|default_code = )\"([A-Z]\d{3})\"", path.read_text("utf-8"))
             for path in folder.rglob("*.py"))  # fmt: skip
    return {code for codes in found for code in codes}


def test_every_code_that_can_be_raised_has_a_page() -> None:
    protocol = Path(sys.modules["fedit_protocol.errors"].__file__ or "").parent
    assert raised_in(ROOT) | raised_in(protocol) <= documented_codes()


def test_every_code_of_the_examples_has_a_page_or_stands_in_the_table_of_the_paper() -> None:
    table = re.findall(r"^\| `([A-Z]\d{3})` \|", (EXAMPLES / "fedit_paper/README.md").read_text("utf-8"), re.MULTILINE)
    assert set(table) == raised_in(EXAMPLES) - documented_codes()


def test_the_privacy_page_names_every_field_that_leaves() -> None:
    from fedit_protocol.enrollment import EnrollRequest
    from fedit_protocol.messages import CheckIn
    from fedit_protocol.metrics import metric_specs

    page = ROOT / "PRIVACY.md"
    if not page.exists():
        pytest.skip("the wheel carries no documents")
    text = page.read_text("utf-8")
    fields = {*EnrollRequest.model_fields, *CheckIn.model_fields, *(spec.name for spec in metric_specs(1))}
    assert {name for name in fields if f"`{name}`" not in text} == set()
