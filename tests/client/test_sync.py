"""The SDK for plain functions, an app's own home, and what a library may not do to the program that it lives in."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fedit_client import Client, ConfigError, DataError, Event, EventKind, MembershipError, RoundStage, SyncClient
from fedit_client.data import Source
from fedit_client.data.remembered import add_source
from fedit_client.home.paths import Paths, app_home
from fedit_client.manners.control import read_wish
from fedit_client.testing import FakeTrainer

from .conftest import HttpsFederation

ROWS = [{"prompt": f"say {number}", "completion": str(number)} for number in range(20)]


def take_part(invite: str, home: Path) -> tuple[list[Event], Path | None]:
    with SyncClient.open(invite, home=home, trainer=FakeTrainer()) as client:
        client.add_records(ROWS)
        client.join(consent=client.fetch_offer().accept(), label=home.name)
        return list(client.run(max_rounds=1)), client.latest_adapter()


async def test_three_plain_functions_federate(https: HttpsFederation, tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(3) as pool:
        async with asyncio.timeout(30):
            done = await asyncio.gather(
                *(loop.run_in_executor(pool, take_part, https.invite, tmp_path / str(number)) for number in range(3))
            )
    for events, adapter in done:
        assert EventKind.ROUND_COMMITTED in {event.kind for event in events}
        assert adapter is not None
    assert not any(thread.name == "fedit-client" for thread in threading.enumerate())


async def test_it_works_where_a_loop_runs_already(https: HttpsFederation, tmp_path: Path) -> None:
    """As in a notebook: the call waits in the thread that runs the loop, so nothing else may be needed from it."""
    with SyncClient.open(https.invite, home=tmp_path, trainer=FakeTrainer()) as client:
        with pytest.raises(MembershipError):
            client.run_to_end()
        with pytest.raises(MembershipError):
            next(iter(client.run()))
        client.close()


async def test_leaving_the_loop_early_leaves_the_round(https: HttpsFederation, tmp_path: Path) -> None:
    held = asyncio.Event()
    others = [Client.open(https.invite, home=tmp_path / name, trainer=FakeTrainer(wait_for=held)) for name in "ab"]
    for other in others:
        other.add_records(ROWS)
        await other.join(consent=(await other.fetch_offer()).accept())
    runs = [asyncio.create_task(other.run_to_end()) for other in others]

    def start_and_stop() -> None:
        with SyncClient.open(
            https.invite, home=tmp_path / "c", trainer=FakeTrainer(wait_for=asyncio.Event())
        ) as client:
            client.add_records(ROWS)
            client.join(consent=client.fetch_offer().accept())
            for event in client.run():
                if event.kind is EventKind.PROGRESS and event.stage is RoundStage.TRAIN:
                    break

    async with asyncio.timeout(30):
        await asyncio.to_thread(start_and_stop)
    assert any("/abort" in asked for asked in https.asked)
    for run in runs:
        run.cancel()
    await asyncio.wait(runs)


def test_pause_and_resume_are_wishes_that_any_process_can_make(tmp_path: Path) -> None:
    client, paths = Client.open(home=tmp_path), Paths.under(tmp_path)
    client.pause()
    assert (read_wish(paths).paused, read_wish(paths).until) == (True, None)
    client.pause(datetime(2030, 1, 1, tzinfo=UTC))
    assert read_wish(paths).until == 1893456000
    client.resume()
    assert not read_wish(paths).paused


async def test_a_paused_client_says_so_and_goes_on_after_resume(https: HttpsFederation, tmp_path: Path) -> None:
    clients = [Client.open(https.invite, home=tmp_path / str(number), trainer=FakeTrainer()) for number in range(3)]
    for client in clients:
        client.add_records(ROWS)
        await client.join(consent=(await client.fetch_offer()).accept())
    clients[0].pause()
    kinds: list[EventKind] = []
    async with asyncio.timeout(30):
        runs = [asyncio.create_task(client.run_to_end(1)) for client in clients[1:]]
        async for event in clients[0].run(1):
            kinds.append(event.kind)
            if event.kind is EventKind.PAUSED:
                assert https.loopback.results == []
                clients[0].resume()
        await asyncio.gather(*runs)
    assert kinds.index(EventKind.PAUSED) < kinds.index(EventKind.RESUMED) < kinds.index(EventKind.ROUND_COMMITTED)


def test_an_app_has_a_home_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert app_home(None, None) is None
    assert app_home("notes-app", tmp_path) == tmp_path / "fedit"
    named = app_home("notes-app", None)
    assert named is not None
    assert named.parts[-3:] == ("fedit-client", "apps", "notes-app")
    for name in ("", "../x", "a/b", "-x", "x" * 65):
        with pytest.raises(ConfigError) as told:
            Client.open(app=name, data_dir=tmp_path)
        assert told.value.code == "C001"


class Growing:
    """A source whose rows change between two looks."""

    def __init__(self) -> None:
        self.looks = 0

    def rows(self) -> Iterator[dict[str, str]]:
        self.looks += 1
        yield from ROWS[: self.looks]


async def test_a_source_is_asked_when_training_starts_and_each_time_anew(
    https: HttpsFederation, tmp_path: Path
) -> None:
    source, trainer, rows = Growing(), FakeTrainer(), list(ROWS)
    client = Client.open(https.invite, home=tmp_path, trainer=trainer)
    client.add_source(source)
    client.add_records(rows)
    client.add_records(iter(ROWS))
    await client.join(consent=(await client.fetch_offer()).accept())
    assert source.looks == 0
    rows.pop()
    await client.dry_run()
    await client.dry_run()
    assert [len(request.records) for request in trainer.requests] == [1 + 19 + 20, 2 + 19 + 20]
    assert not (tmp_path / "sources.json").exists()


async def test_each_round_takes_the_rows_as_they_are_then(https: HttpsFederation, tmp_path: Path) -> None:
    """Rows of one device grow, of another go away while it runs: neither costs the round."""
    source, trainers = Growing(), [FakeTrainer() for _ in range(3)]
    clients = [Client.open(https.invite, home=tmp_path / str(n), trainer=trainers[n]) for n in range(3)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    clients[0].add_source(source)
    clients[1].add_data(file)
    clients[2].add_records(ROWS)
    for client in clients:
        await client.join(consent=(await client.fetch_offer()).accept())
    told: list[str] = []

    def hear(event: Event) -> None:
        told.append(event.text)
        if event.kind is EventKind.ROUND_OPENED:
            file.unlink(missing_ok=True)

    async with asyncio.timeout(30):
        await asyncio.gather(*(client.run_to_end(1, hear) for client in clients))
    assert [len(trainer.requests[0].records) for trainer in trainers] == [2, 20, 20]
    assert sum("those of the start are used" in text for text in told) == 1


async def test_data_that_another_process_adds_counts_from_the_next_round_on(
    https: HttpsFederation, tmp_path: Path
) -> None:
    trainer, files = FakeTrainer(), [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file in files:
        file.write_text(json.dumps(ROWS[0]) + "\n")
    client = Client.open(https.invite, home=tmp_path / "home", trainer=trainer)
    client.add_data(files[0])
    await client.join(consent=(await client.fetch_offer()).accept())
    await client.dry_run()
    add_source(Paths.under(tmp_path / "home"), Source(str(files[1])))
    await client.dry_run()
    assert [len(request.records) for request in trainer.requests] == [1, 2]


def test_rows_that_cannot_be_used_are_skipped_only_if_asked(tmp_path: Path) -> None:
    client = Client.open(home=tmp_path)
    with pytest.raises(DataError) as told:
        client.add_records([*ROWS, {"prompt": "x", "completion": ""}])
    assert told.value.fix == 'correct these rows, or pass on_error="skip"'
    assert len(client.add_records([*ROWS, {"prompt": "x", "completion": ""}], on_error="skip").skipped) == 1


async def test_the_sdk_leaves_the_process_as_it_was(
    https: HttpsFederation, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No prints, no log handlers, no signal handlers, no changes to the environment."""
    before = state_of_the_process()
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(asyncio.to_thread(take_part, https.invite, tmp_path / str(number)) for number in range(3))
        )
    assert state_of_the_process() == before
    assert capfd.readouterr() == ("", "")


def state_of_the_process() -> dict[str, Any]:
    names = [name for name in logging.root.manager.loggerDict if name.startswith("fedit")]
    return {
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "handlers": list(logging.root.handlers),
        "own handlers": [name for name in names if logging.getLogger(name).handlers],
        "folder": Path.cwd(),
    }


def test_importing_it_takes_less_than_300_ms_and_no_torch() -> None:
    code = (
        "import json, sys, time; begun = time.process_time(); import fedit_client; took = time.process_time() - begun\n"
        "from fedit_client import Client, SyncClient, DataSource\n"
        "print(json.dumps([took, sorted({'torch', 'transformers', 'rich', 'typer', 'pandas'} & set(sys.modules))]))"
    )
    path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | path
    )
    took, loaded = json.loads(done.stdout)
    assert (took < 0.3, loaded) == (True, [])
