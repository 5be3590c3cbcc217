"""Leave means leave: everything is listed first, removed, and accounted for; what cannot be undone is said."""

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedit_client import Client
from fedit_client.cli import invoke
from fedit_client.conversations.uninstalling import own_service, traces
from fedit_client.home.log_file import CommandLog
from fedit_client.home.paths import Paths
from fedit_client.membership.joined import load_membership, lock_of, rewriting
from fedit_client.membership.leaving import CANNOT_BE_UNDONE, FORGOTTEN, UNKNOWN_ALREADY
from fedit_client.service.plan import ServicePlan
from fedit_client.service.systems import Launchd, Said, ServiceSystem, Systemd, TaskScheduler
from fedit_client.testing import FakeTrainer
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, StorageError

from .conftest import HttpsFederation
from .test_sdk import collect, joined


async def after_a_round(https: HttpsFederation, folder: Path) -> tuple[Client, Paths]:
    """Return the client of a home that has everything in it that a round and a dry run leave behind."""
    clients = [await joined(https, folder / str(number)) for number in range(3)]
    async with asyncio.timeout(30):
        await asyncio.gather(*(collect(client, 1) for client in clients))
    paths = Paths.under(folder / "0")
    paths.settings_file.write_text("[device]\nthreads = 2\n")
    for place in (paths.exports, paths.runtime, paths.models):
        place.mkdir(parents=True)
        (place / "a file").write_text("x" * 10)
    return Client.open(home=folder / "0", trainer=FakeTrainer()), paths


def files(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file()}


def test_every_place_is_among_those_that_erasing_removes(tmp_path: Path) -> None:
    paths = Paths.under(tmp_path)
    named = [name for name, value in vars(Paths).items() if isinstance(value, property)]
    known = set(paths.everything().values())
    lost = [name for name in named if not {getattr(paths, name), *getattr(paths, name).parents} & known]
    assert lost == ["lock_file"]  # held until the end, and removed last


async def test_erasing_leaves_nothing_and_the_receipt_says_what_was_there(
    https: HttpsFederation, tmp_path: Path
) -> None:
    client, paths = await after_a_round(https, tmp_path)
    before = files(paths.state)
    receipt = await client.leave(erase=True)
    assert not paths.state.exists()
    assert sum(one.files for one in receipt.removed) >= len(before - {paths.lock_file, lock_of(paths.membership_file)})
    assert {"identity", "outbox", "history", "consents", "adapters", "runtime", "exports"} <= {
        one.what for one in receipt.removed
    }
    said = "\n".join(receipt.lines())
    assert (receipt.answered, receipt.kept) == (FORGOTTEN, ())
    assert "server told: that this device leaves and is to be forgotten, signed with its key" in said
    for line in CANNOT_BE_UNDONE:
        assert line in said
    assert f"removed runtime: {paths.runtime} (1 file, 10 B)" in said


async def test_erasing_lets_go_of_the_log_and_takes_drafts_along(https: HttpsFederation, tmp_path: Path) -> None:
    """Windows removes no file that is held open."""
    paths = Paths.under(tmp_path)
    client = await joined(https, tmp_path)
    for place in (paths.config / "client.toml.draft", paths.state / "open-page.html"):
        place.write_text("x")
    with CommandLog(paths):
        logger = logging.getLogger("fedit_client")
        logger.info("a line")
        held = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]
        assert [Path(handler.baseFilename) for handler in held] == [paths.log_file]
        await client.leave(erase=True)
        assert [handler.stream for handler in held] == [None]
        logger.info("another line")
    assert not tmp_path.exists()


async def test_what_is_the_owners_own_stays_where_it_is(https: HttpsFederation, tmp_path: Path) -> None:
    client, paths = await after_a_round(https, tmp_path)
    (paths.state / "rows.jsonl").write_text("{}")
    await client.leave(erase=True)
    assert files(paths.state) == {paths.state / "rows.jsonl"}


async def test_leaving_alone_keeps_the_rest_and_says_so(https: HttpsFederation, tmp_path: Path) -> None:
    client, paths = await after_a_round(https, tmp_path)
    receipt = await client.leave()
    assert [one.what for one in receipt.removed] == ["membership"]
    assert ("adapters", paths.adapters) in receipt.kept
    assert ("outbox", paths.outbox) in receipt.kept


async def test_adapters_that_are_kept_can_still_be_used(https: HttpsFederation, tmp_path: Path) -> None:
    client, paths = await after_a_round(https, tmp_path)
    receipt = await client.leave()
    assert "chat, eval, export and adapters list still work with these adapters" in "\n".join(receipt.lines())
    home = ["--home", str(tmp_path / "0")]
    assert await asyncio.to_thread(invoke, ["adapters", "list", *home]) == 0
    assert await asyncio.to_thread(invoke, ["export", "--to", "peft", "--out", str(tmp_path / "out"), *home]) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
    assert await asyncio.to_thread(invoke, ["run", *home]) == 4
    left = load_membership(paths.left_file)
    assert left is not None
    assert left.certificate == b""
    await client.leave(erase=True)
    assert not paths.left_file.exists()


async def test_a_membership_that_another_process_writes_does_not_come_back(
    https: HttpsFederation, tmp_path: Path
) -> None:
    client, paths = await joined(https, tmp_path), Paths.under(tmp_path)
    with rewriting(paths.membership_file):
        leaving = asyncio.create_task(client.leave())
        async with asyncio.timeout(30):
            while "POST /v1/leave" not in https.asked:  # noqa: ASYNC110 - the double has no event for it
                await asyncio.sleep(0)
        membership = load_membership(paths.membership_file)
        assert membership is not None
        membership.save(paths.membership_file)  # as a renewal does, which had begun before
    await leaving
    assert not paths.membership_file.exists()


async def test_the_receipt_says_what_the_server_answered(https: HttpsFederation, tmp_path: Path) -> None:
    https.refuse["/v1/leave"] = SecurityError(ProblemType.NOT_ENROLLED, "who are you?")
    assert (await (await joined(https, tmp_path / "a")).leave()).answered == UNKNOWN_ALREADY
    offline = await (await joined(https, tmp_path / "b")).leave(offline=True)
    assert (offline.answered, "it still counts this device" in offline.told) == ("nothing", True)


async def test_a_lost_key_is_not_replaced_by_one_that_the_server_does_not_know(
    https: HttpsFederation, tmp_path: Path
) -> None:
    paths = Paths.under(tmp_path / "a")
    client = await joined(https, paths.state)
    paths.identity_file.unlink()
    with pytest.raises(StorageError, match="still counts this device") as told:
        await client.leave()
    assert (told.value.code, told.value.fix) == ("S013", "fedit-client leave --offline")
    assert paths.membership_file.exists()
    assert not paths.identity_file.exists()
    erased = await client.leave(erase=True)
    assert ("key is lost" in erased.told, "still counts" in erased.told, erased.answered) == (True, True, "nothing")
    other = Paths.under(tmp_path / "b")
    client = await joined(https, other.state)
    other.identity_file.unlink()
    assert "it still counts this device" in (await client.leave(offline=True)).told


async def test_nothing_is_removed_while_the_server_has_not_answered(https: HttpsFederation, tmp_path: Path) -> None:
    client = await joined(https, tmp_path)
    https.refuse["/v1/leave"] = ProtocolError(ProblemType.MALFORMED, "not now")
    before = files(tmp_path)
    with pytest.raises(ProtocolError):
        await client.leave(erase=True)
    assert files(tmp_path) >= before


def test_only_the_service_of_this_home_is_this_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    ran: list[tuple[str, ...]] = []

    def run(command: Sequence[str]) -> Said:
        ran.append(tuple(command))
        return Said(0, "")

    manager, home = Systemd(run), tmp_path / "home"
    assert own_service(home, manager) is None
    manager.install(ServicePlan(home, tmp_path / "log"))
    assert own_service(home, manager) is manager
    assert own_service(tmp_path / "another", manager) is None
    assert own_service(None, manager) is None
    listed = traces(Paths.under(home), own_service(home, manager))
    assert (listed[0].what, listed[0].path) == ("service", manager.file)
    manager.uninstall()
    manager.install(ServicePlan(None, tmp_path / "log"))
    assert own_service(None, manager) is manager


@pytest.mark.parametrize("kind", [Systemd, Launchd, TaskScheduler])
def test_a_service_of_a_longer_name_is_anothers(
    kind: type[ServiceSystem], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    manager = kind(lambda _: Said(0, ""))
    for theirs, ours in ((tmp_path / "fed2", tmp_path / "fed"), (tmp_path / 'a "b" 100% $x\\', tmp_path / 'a "b"')):
        manager.install(ServicePlan(theirs, tmp_path / "log", settings_file=ours))
        assert own_service(ours, manager) is None
        assert own_service(None, manager) is None
        assert own_service(theirs, manager) is manager
    manager.file.write_bytes(b"not a description")
    assert own_service(theirs, manager) is None
    assert own_service(None, manager) is None


async def test_uninstall_lists_every_path_first(
    https: HttpsFederation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, paths = await after_a_round(https, tmp_path)
    home, before = ("--home", str(paths.state)), files(paths.state)
    assert invoke(["uninstall", "--dry-run", "--json", *home]) == 0
    listed = [Path(one["path"]) for one in json.loads(capsys.readouterr().out)["data"]["paths"]]
    unlisted = {path for path in before if not {path, *path.parents} & set(listed)}
    assert unlisted == {paths.lock_file, lock_of(paths.membership_file)}
    assert before <= files(paths.state)
    assert invoke(["uninstall", *home]) == 2  # nobody is here to answer
    assert before <= files(paths.state)
    assert await asyncio.to_thread(invoke, ["uninstall", "--yes", *home]) == 0
    said = capsys.readouterr().out
    assert "server answered: forgotten" in said
    assert "pip uninstall fedit" in said or "uv tool uninstall fedit" in said
    assert not (paths.state / "identity.key").exists()
    assert files(paths.state) == set()
