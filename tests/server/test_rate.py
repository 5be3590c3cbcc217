"""Token buckets at the door: per device after its signature, per address before it, in memory and nowhere else."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from fedit_protocol.encoding import encode
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import TaskId, client_id
from fedit_protocol.messages import CheckIn
from fedit_protocol.signing import Kind, SigningKey, read_envelope, seal
from fedit_protocol.testing import ManualClock
from fedit_server.access import rate
from fedit_server.access.rate import DEVICE, Buckets, Rate, Turnstile
from fedit_server.problems import RateLimitedError

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError


def takes(buckets: Buckets, key: str, clock: ManualClock) -> int:
    """Take tokens until there are none, and return how many there were."""
    count = 0
    while True:
        try:
            buckets.take(key, clock(), "device")
        except RateLimitedError:
            return count
        count += 1


def test_a_bucket_is_full_at_first_and_fills_with_time(clock: ManualClock) -> None:
    buckets = Buckets(Rate(burst=3, per_minute=6))
    assert takes(buckets, "one", clock) == 3
    assert takes(buckets, "two", clock) == 3, "everybody has a bucket of its own"
    clock.advance(seconds=9)
    with pytest.raises(RateLimitedError) as refused:
        buckets.take("one", clock(), "device")
    assert refused.value.retry_after_s == pytest.approx(1)
    clock.advance(seconds=1)
    assert takes(buckets, "one", clock) == 1
    clock.advance(seconds=3600)
    assert takes(buckets, "one", clock) == 3


def test_a_clock_that_is_set_back_gives_nothing_away(clock: ManualClock) -> None:
    buckets = Buckets(Rate(burst=1, per_minute=1))
    buckets.take("one", clock(), "device")
    for back_s in (3600, 0):
        with pytest.raises(RateLimitedError):
            buckets.take("one", clock() - timedelta(seconds=back_s), "device")


def test_memory_stays_bounded_whoever_calls(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "_MOST_BUCKETS", 10)
    buckets = Buckets(Rate(burst=2, per_minute=60))
    for number in range(10):
        buckets.take(number, clock(), "address")
    clock.advance(seconds=1)
    buckets.take("new", clock(), "address")
    assert len(buckets) == 1, "those that are full again are forgotten first"
    for number in range(30):
        buckets.take(number, clock(), "address")
    assert len(buckets) == 10


async def exhaust(device: Device) -> RefusedError:
    """Check in as fast as it goes, always for another version of the task, which is answered at once."""
    for _ in range(DEVICE.burst):
        await device.check_in(version=7)
    with pytest.raises(RefusedError) as refused:
        await device.check_in(version=7)
    return refused.value


async def test_a_device_that_asks_too_often_waits_and_the_others_do_not(
    tmp_path: Path, base: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, other = await running.join(2)
        refused = await exhaust(device)
        assert (refused.status, refused.type) == (429, ProblemType.RATE_LIMITED)
        await other.check_in(version=7)
        reply, _ = await device.ask("POST", "/v1/checkin", checking_in(device, clock))
        assert reply.headers["Retry-After"] == "2"
        clock.advance(seconds=2)
        await device.check_in(version=7)
    ours = [
        record for record in caplog.records if record.name.startswith("fedit")
    ]  # the test server's own access log is not ours
    assert all("127.0.0.1" not in record.getMessage() for record in ours)


def checking_in(device: Device, clock: ManualClock, key: SigningKey | None = None) -> bytes:
    message = CheckIn(
        version=(2, 0),
        client_version="0.1.0",
        device_kind="cpu",
        task_id=TaskId("notes"),
        consent_version=7,
        sent_at=int(clock().timestamp()),
        certificate=device.certificate,
    )
    return seal(key or device.key, Kind.CHECK_IN, device.context, message)


async def test_nobody_uses_up_anothers_tokens(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """A check-in and a join that only name a device, with a signature of somebody else, cost that device nothing."""
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        forged = read_envelope(checking_in(device, clock, SigningKey(bytes(32))), Kind.CHECK_IN)
        named = forged.model_copy(update={"signer": device.key.public})
        for _ in range(DEVICE.burst + 1):
            reply, _ = await device.ask("POST", "/v1/checkin", encode(named))
            assert reply.status == 401
        assert await left(running, device) == DEVICE.burst


async def left(running: Running, device: Device) -> int:
    return takes(running.parts.turnstile.devices, client_id(device.key.public), running.clock)


async def test_joins_count_once_they_are_signed(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        taking = devices[0].participant
        assert taking is not None
        (sent,) = [effect for effect in taking.join() if hasattr(effect, "envelope")]
        forged = sent.envelope[:-1] + bytes([sent.envelope[-1] ^ 1])
        for _ in range(5):
            with pytest.raises(RefusedError) as refused:
                await devices[0].call("POST", f"{devices[0].round}/join", forged)
            assert refused.value.type == ProblemType.BAD_SIGNATURE
        for _ in range(5):
            await devices[0].call("POST", f"{devices[0].round}/join", sent.envelope)
        spent = DEVICE.burst - await left(running, devices[0])
    assert spent >= 6, "five joins, and a check-in at least"
    assert spent < 6 + 5, "forged joins are free"


async def test_an_address_is_stopped_before_its_signature_is_looked_at(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        turnstile: Turnstile = running.parts.turnstile
        takes(turnstile.addresses, "127.0.0.1", clock)
        for path in ("/v1/checkin", f"/v1/rounds/{'0' * 32}/join"):
            with pytest.raises(RefusedError) as refused:
                await device.call("POST", path, b"garbage")
            assert refused.value.type == ProblemType.RATE_LIMITED
