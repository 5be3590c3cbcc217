"""A device of the previous protocol minor takes part over HTTP, and is never sent a field that it does not know."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import pytest

from fedit_protocol.messages import RoundOutcome
from fedit_protocol.testing import ManualClock

from .bases import small_task
from .conftest import Running, start
from .devices import Device, one_hot
from .test_serving import SIZE

pytestmark = pytest.mark.sqlite
KEPT = json.loads((Path(__file__).parents[1] / "protocol" / "minors" / "2.0.json").read_text("utf-8"))
KNOWN = {name for fields in KEPT["messages"].values() for name in fields} | set(KEPT["task"])


def names(content: bytes) -> set[str]:
    """Every name in a message and in the messages inside it; what is no message has none."""
    try:
        return names_in(cbor2.loads(content))
    except (cbor2.CBORDecodeError, ValueError):
        return set()


def names_in(value: Any) -> set[str]:
    match value:
        case dict():
            return {str(key) for key in value}.union(*map(names_in, value.values()))
        case list() | tuple():
            return set().union(*map(names_in, value))
        case bytes() if len(value) > 64:
            return names(value)
        case _:
            return set()


@dataclass
class EarlierDevice(Device):
    """Says 2.0, and notes every name that the server sends."""

    speaks: tuple[int, int] = (2, 0)
    heard: set[str] = field(default_factory=set)

    async def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        answer = await super().call(method, path, body, **headers)
        self.heard |= names(answer)
        return answer


async def join(running: Running, count: int) -> list[EarlierDevice]:
    code = await running.code()
    devices = [EarlierDevice(running.http, running.parts.identity.descriptor, running.clock) for _ in range(count)]
    for device in devices:
        await device.enroll(code)
    return devices


async def test_a_round_of_devices_of_the_previous_minor(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path, clock, small_task(base)) as running:
        devices = await join(running, 3)
        await asyncio.gather(*(device.take_part(one_hot(SIZE, i)) for i, device in enumerate(devices)))
        assert (await devices[0].result()).outcome is RoundOutcome.COMMITTED
        await devices[0].call("GET", "/v1/tasks")
        await devices[0].call("GET", "/v1/federation")
    heard = set().union(*(device.heard for device in devices))
    assert heard >= {"offer", "roster", "survivors"} & KNOWN
    assert heard - KNOWN == set()
