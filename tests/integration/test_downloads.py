"""Downloads over real HTTPS: a cut line goes on where it stopped, and a known version makes the next one small."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from fedit_client import Client, ClientConfig
from fedit_client.network import transport as transport_module
from fedit_client.network.metering import MeteredTransport
from fedit_client.network.transport import HttpTransport
from fedit_protocol.change import round_to_grid
from fedit_protocol.encoding import digest_of
from fedit_protocol.enrollment import InviteLink
from fedit_server.storage import BlobStore

from ..protocol.test_change import file
from ..server.bases import make_base
from .cutting_proxy import Cut, CuttingProxy, Fault, cutting_proxy
from .federation import ROWS, exact_task, federation

PER_CUT = 300 * 1024
"""Bytes that may be under way in buffers when a line is cut, and are sent again."""


@dataclass(frozen=True)
class Fetching:
    """A device that has joined, its line, and what the server hands out."""

    transport: HttpTransport
    proxy: CuttingProxy
    blobs: BlobStore

    def down(self) -> int:
        """How many bytes have come down the line so far, TLS included."""
        return sum(line.down for line in self.proxy.lines)


@asynccontextmanager
async def fetching(folder: Path) -> AsyncIterator[Fetching]:
    async with (
        federation(folder, exact_task(make_base(folder / "base"), 3)) as fed,
        cutting_proxy(fed.server.port) as proxy,
    ):
        invite = str(replace(InviteLink.parse(fed.invite), port=proxy.port))
        client = Client.open(invite, config=ClientConfig.model_validate({"home": folder / "device"}))
        offer = await client.fetch_offer()
        client.add_records(ROWS)
        membership = await client.join(consent=offer.accept())
        async with client._signing_transport(membership) as transport:
            yield Fetching(transport, proxy, fed.server.parts.blobs)


def quiet(_done: int, _total: int) -> None:
    """Take the progress."""


async def test_a_download_goes_on_where_its_line_was_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_FIRST_WAIT_S", 0.01)
    content = np.random.default_rng(1).bytes(4_000_000)
    async with fetching(tmp_path) as at:
        digest, before = await at.blobs.put(content), at.down()
        await at.transport.close()
        at.proxy.cut_from_now_on(
            [Cut(900_000, up=False), Cut(1_200_000, up=False, fault=Fault.RESET), Cut(800_000, up=False)]
        )
        await at.transport.download(digest, tmp_path / "blob", 10**7, quiet)
        assert (tmp_path / "blob").read_bytes() == content
        assert at.proxy.count == 3
        assert at.down() - before < len(content) * 1.02 + 4 * PER_CUT


async def test_a_version_that_is_here_makes_the_next_one_small(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    old = chance.normal(0, 0.02, 250_000)
    new = old + chance.normal(0, 0.002, old.size)
    versions = [file(round_to_grid(numbers, 16)) for numbers in (old, new)]
    async with fetching(tmp_path) as at:
        first, second = [await at.blobs.put(content) for content in versions]
        metered = MeteredTransport(at.transport)
        await metered.download(first, tmp_path / "1", 10**7, quiet, None)
        whole = metered.traffic.down
        await metered.download(second, tmp_path / "2", 10**7, quiet, tmp_path / "1")
        assert (tmp_path / "2").read_bytes() == versions[1]
        assert whole == len(versions[0])
        assert metered.traffic.down - whole < 0.45 * len(versions[1])
        (tmp_path / "other").write_bytes(b"what the server does not have")
        before = metered.traffic.down
        await metered.download(second, tmp_path / "3", 10**7, quiet, tmp_path / "other")
        assert (tmp_path / "3").read_bytes() == versions[1]
        assert metered.traffic.down - before == len(versions[1])
        assert digest_of((tmp_path / "3").read_bytes()) == second
