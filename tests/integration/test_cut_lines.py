"""Lines that break: every device still gets through, an upload goes on where it was cut, and the sum is exact.

Devices reach the real server over real HTTPS through a proxy that cuts their connections after so many bytes.
`FEDIT_CUT_SEED` chooses other cuts; the seed is printed.
"""

import asyncio
import logging
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from fedit_client import ClientConfig
from fedit_client.membership.joined import Membership
from fedit_client.network import transport
from fedit_client.network.transport import HttpTransport, OnBytes
from fedit_protocol.enrollment import InviteLink

from ..server.bases import make_base
from .cutting_proxy import Cut, CuttingProxy, Fault, Line, cutting_proxy, drawn
from .federation import ROWS, Federation, exact_task, expected_adapter, federation
from .test_kill_campaign import LONG
from .witness import PlannedTrainer, Witness, WitnessedClient, WitnessedTransport, steps_of, weight_of_device

SEED = int(os.environ.get("FEDIT_CUT_SEED", "20261127"))
DEVICES = 5
VICTIM = 0
"""The device whose line is cut where a test says."""

PER_CUT: Final = 16 * 1024 + 4096
"""Bytes that a cut may cost: one TLS record that did not arrive whole, a handshake, and the heads of two requests."""


class FreshTransport(WitnessedTransport):
    """Its upload begins on a new line, so that the cuts of a test fall into the upload."""

    before_upload: Callable[[], None] = staticmethod(lambda: None)

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        if (path, self.device) not in self.witness.payloads:  # the first of its attempts
            await self.close()
            self.before_upload()
        return await super().upload(path, header, payload, on_bytes)


class CutClient(WitnessedClient):
    """A client whose upload begins on a new line."""

    before_upload: Callable[[], None] = staticmethod(lambda: None)

    def _signing_transport(self, membership: Membership) -> HttpTransport:
        real = super()._signing_transport(membership)
        fresh = FreshTransport(real._host, real._port, real._tls, real._signer)
        fresh.witness, fresh.device, fresh.before_upload = self.witness, self.device, self.before_upload
        return fresh


@dataclass
class Lines:
    """A federation of five, each device behind a proxy of its own."""

    fed: Federation
    proxies: list[CuttingProxy]
    devices: list[CutClient]
    witness: Witness = field(default_factory=Witness)

    async def play(self, rounds: int, enrolled: Callable[[], None] = lambda: None) -> None:
        """Enrol over lines that hold, then take part until so many rounds are committed."""
        for number, device in enumerate(self.devices):
            device.witness, device.device, device.lost = self.witness, number, []
        async with asyncio.timeout(240):
            await asyncio.gather(*map(_enrol, self.devices))
            enrolled()
            await asyncio.gather(*(device.run_to_end(rounds, device.note) for device in self.devices))

    async def check(self, rounds: int) -> None:
        """Hold every round against its signed documents and plain integers."""
        assert self.witness.faults == []
        assert [device.lost for device in self.devices] == [[]] * DEVICES
        committed = self.witness.committed()
        assert sorted(committed) == list(range(1, rounds + 1))
        for version, round_id in committed.items():
            survivors = self.witness.survivors(round_id)
            assert survivors == list(range(DEVICES))
            steps = {device: steps_of(device, version - 1) for device in survivors}
            weights = {device: weight_of_device(device) for device in survivors}
            before, after = await self.fed.adapter(version - 1), await self.fed.adapter(version)
            assert np.array_equal(after, expected_adapter(before, steps, weights)), f"version {version} is another sum"

    def upload_of_the_victim(self) -> tuple[bytes, list[int]]:
        """Return the one payload of the victim, and where its attempts began."""
        ((key, (_, payload)),) = [item for item in self.witness.payloads.items() if item[0][1] == VICTIM]
        return payload, self.witness.offsets[key]


async def _enrol(device: CutClient) -> None:
    offer = await device.fetch_offer()
    device.add_records(ROWS)
    await device.join(consent=offer.accept())


@asynccontextmanager
async def lines(folder: Path, rounds: int) -> AsyncIterator[Lines]:
    """Run a server and five devices, each with a line of its own that nothing cuts yet."""
    base = make_base(folder / "base", layers=12)
    task = exact_task(base, DEVICES, cohort_min=DEVICES, deadlines=LONG, rounds=rounds)
    async with federation(folder, task) as fed, AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(cutting_proxy(fed.server.port)) for _ in range(DEVICES)]
        devices = []
        for number, proxy in enumerate(proxies):
            invite = str(replace(InviteLink.parse(fed.invite), port=proxy.port))
            config = ClientConfig.model_validate({"home": folder / f"device-{number}", "network": {"max_wait_s": 0.05}})
            device = CutClient.open(invite, config=config, trainer=PlannedTrainer(place=number))
            devices.append(await stack.enter_async_context(device))
        yield Lines(fed, proxies, devices)


@pytest.fixture(autouse=True)
def _who_hangs_up_is_no_error(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A broken line is daily life: an operator's log does not call it a failure of the server."""
    yield
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert errors == []


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts that are still long enough for the server to see that a line is gone."""
    monkeypatch.setattr(transport, "_FIRST_WAIT_S", 0.05)


async def cut_upload(folder: Path, cuts: Sequence[Cut]) -> tuple[Lines, int]:
    """Play a round in which the victim's upload is cut like this; return it, and the bytes that went up for it."""
    async with lines(folder, rounds=1) as cut:
        proxy = cut.proxies[VICTIM]
        before: list[Line] = []

        def begin() -> None:
            before.extend(proxy.lines)
            proxy.cut_from_now_on(cuts)

        cut.devices[VICTIM].before_upload = begin
        await cut.play(1)
        await cut.check(1)
        return cut, sum(line.up for line in proxy.lines[len(before) :])


def check_cost(cut: Lines, passed: int) -> None:
    """What arrived before a cut is not sent again: more than PER_CUT bytes for each would be."""
    payload, offsets = cut.upload_of_the_victim()
    cuts = cut.proxies[VICTIM].count
    sys.stdout.write(f"{len(payload)} bytes, {cuts} cuts, {passed} bytes passed, attempts at {offsets}\n")
    assert offsets[-1] > 0
    assert passed <= len(payload) + (cuts + 1) * PER_CUT


@pytest.mark.usefixtures("_short_waits")
@pytest.mark.parametrize("fault", [Fault.CLOSED, Fault.RESET])
async def test_an_upload_goes_on_where_its_line_was_cut(fault: Fault, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    cuts = [Cut(chance.randrange(25_000, 60_000), fault=fault) for _ in range(8)]
    sys.stdout.write(f"seed {SEED}: {', '.join(map(str, cuts))}\n")
    cut, passed = await cut_upload(tmp_path, cuts)
    assert cut.proxies[VICTIM].count >= 3
    check_cost(cut, passed)


@pytest.mark.usefixtures("_short_waits")
async def test_an_upload_leaves_a_line_that_went_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told: the device gives up by itself, and the server hands over what the dead line had brought."""
    monkeypatch.setattr(transport, "_STALLED_S", 0.5)
    cut, passed = await cut_upload(tmp_path, [Cut(60_000, fault=Fault.SILENT), Cut(90_000, fault=Fault.SILENT)])
    assert cut.proxies[VICTIM].count == 2
    check_cost(cut, passed)


async def broken_lines(folder: Path, seed: int) -> None:
    """Play two rounds over lines of which the first connections break, each where the seed says."""
    async with lines(folder, rounds=2) as cut:

        def begin() -> None:
            for number, proxy in enumerate(cut.proxies):
                proxy.cut_from_now_on(drawn(f"{seed}/{number}", 8, 200_000))

        sys.stdout.write(f"seed {seed}\n")
        await cut.play(2, begin)
        await cut.check(2)
        cuts = [line.cut for proxy in cut.proxies for line in proxy.lines if line.was_cut]
        sys.stdout.write(f"{len(cuts)} cuts: {', '.join(map(str, cuts))}\n")
        assert len(cuts) >= DEVICES


async def test_devices_get_through_lines_that_break(tmp_path: Path) -> None:
    """Any request may be hit, on its way up or down; a connection that is kept alive may be hit between two of them."""
    await broken_lines(tmp_path, SEED)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, 13))
async def test_devices_get_through_many_lines_that_break(number: int, tmp_path: Path) -> None:
    await broken_lines(tmp_path, SEED + number)


@pytest.mark.slow
@pytest.mark.usefixtures("_short_waits")
async def test_an_upload_that_is_cut_fifty_times_is_one_upload(tmp_path: Path) -> None:
    """Row 17: whatever arrived of it and however often it was cut, the bytes are those of the one frozen payload."""
    chance = random.Random(SEED)
    cuts = [Cut(chance.randrange(1_500, 26_000), fault=chance.choice([Fault.CLOSED, Fault.RESET])) for _ in range(50)]
    sys.stdout.write(f"seed {SEED}: {', '.join(map(str, cuts))}\n")
    cut, passed = await cut_upload(tmp_path, cuts)
    check_cost(cut, passed)
