"""Joining and leaving: invites that work, and every kind that does not; who may ask for what."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest

from fedit_protocol.enrollment import EnrollRequest, check_certificate, check_log_head, check_reply, seal_enrollment
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import client_id
from fedit_protocol.messages import Leave
from fedit_protocol.signing import Kind, SigningKey
from fedit_protocol.testing import ManualClock
from fedit_server.access.lockout import ATTEMPTS
from fedit_server.clock import unix_seconds

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError

WRONG = "0000000000000000"


async def test_an_invite_becomes_a_certificate_that_every_client_can_check(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, code = running.device(), await running.code()
        reply = await device.enroll(code, label="kitchen laptop")
        row = await running.parts.store.members.client(client_id(device.key.public))
    certificate = check_certificate(reply.certificate, device.descriptor, unix_seconds(clock()))
    head = check_log_head(reply.log_head, device.descriptor)
    assert certificate.identity_key == device.key.public
    assert (certificate.log_index, head.size) == (0, 1)
    assert row is not None
    assert (row.label, row.state, row.last_seen % 3600) == ("kitchen laptop", "active", 0)


class HurriedClock(ManualClock):
    """A second goes by between any two looks."""

    def __call__(self) -> datetime:
        self.advance(seconds=1)
        return super().__call__()


async def test_a_second_that_ends_while_a_device_enrols_does_not_leave_it_outside_the_log(
    tmp_path: Path, base: Path
) -> None:
    """Certificate and log entry state one time; two looks at the clock gave a device that no member could accept."""
    clock = HurriedClock()
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device = running.device()
        reply = await device.enroll(await running.code())
    assert check_reply(reply, device.descriptor, device.key.public, unix_seconds(clock())).size == 1


async def test_a_lost_reply_costs_nothing(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, code = running.device(), await running.code(uses=1)
        first = await device.enroll(code)
        assert (await device.enroll(code)).certificate == first.certificate


async def expired(running: Running, device: Device) -> None:
    code = await running.code(lifetime_s=60)
    running.clock.advance(seconds=60)
    await device.enroll(code)


async def used(running: Running, device: Device) -> None:
    code = await running.code(uses=1)
    await running.device().enroll(code)
    await device.enroll(code)


async def revoked(running: Running, device: Device) -> None:
    code = await running.code()
    (invite,) = await running.parts.store.members.invites()
    assert await running.parts.store.members.revoke_invite(invite.invite_id, 0)
    await device.enroll(code)


async def guessed(running: Running, device: Device) -> None:
    await running.code()
    await device.enroll(WRONG)


async def joined_already(running: Running, device: Device) -> None:
    await device.enroll(await running.code())
    await device.enroll(await running.code())


async def wrong_clock(running: Running, device: Device) -> None:
    device.clock = lambda: running.clock().replace(year=2027)
    await device.enroll(await running.code())


async def altered(running: Running, device: Device) -> None:
    await device.call("POST", "/v1/enroll", b"\x00" * 200)


async def oversized(running: Running, device: Device) -> None:
    await device.call("POST", "/v1/enroll", b"\x00" * 100_000)


REFUSALS: dict[str, tuple[Callable[[Running, Device], Awaitable[None]], int, ProblemType]] = {
    "the invite has expired": (expired, 410, ProblemType.INVITE_EXPIRED),
    "the invite is used up": (used, 410, ProblemType.INVITE_USED),
    "the invite was revoked": (revoked, 403, ProblemType.INVITE_REFUSED),
    "the code is a guess": (guessed, 403, ProblemType.INVITE_REFUSED),
    "the device has joined with another invite": (joined_already, 409, ProblemType.CONFLICT),
    "the device's clock is a year ahead": (wrong_clock, 401, ProblemType.CLOCK_SKEW),
    "the request was not sealed to this authority": (altered, 401, ProblemType.BAD_SIGNATURE),
    "the request is too long to be read": (oversized, 413, ProblemType.TOO_LARGE),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_row_32_who_may_not_join(
    case: tuple[Callable[[Running, Device], Awaitable[None]], int, ProblemType],
    tmp_path: Path,
    base: Path,
    clock: ManualClock,
) -> None:
    attempt, status, problem = case
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        with pytest.raises(RefusedError) as refused:
            await attempt(running, running.device())
    assert (refused.value.status, refused.value.type) == (status, problem)


async def test_row_32_guessing_codes_locks_the_address_for_a_minute(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, code = running.device(), await running.code()
        attempts = [device.enroll(WRONG) for _ in range(ATTEMPTS + 2)]  # side by side, as a guesser would
        problems = [error.type for error in await asyncio.gather(*attempts, return_exceptions=True)]  # type: ignore[union-attr]  # all of them are refused
        assert problems.count(ProblemType.INVITE_REFUSED) == ATTEMPTS
        assert problems.count(ProblemType.RATE_LIMITED) == 2
        with pytest.raises(RefusedError) as refused:
            await device.enroll(code)
        assert refused.value.status == 429
        clock.advance(seconds=60)
        assert await device.enroll(code)


async def test_a_stolen_key_cannot_be_enrolled_without_its_owner(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """The request is signed by the key that it wants certified; a signature by another key is refused."""
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, thief = running.device(), SigningKey(b"\x07" * 32)
        request = EnrollRequest(code=await running.code(), label="", sent_at=unix_seconds(clock()))
        sealed = seal_enrollment(request, Impostor(thief, device.key.public), device.descriptor)
        with pytest.raises(RefusedError) as refused:
            await device.call("POST", "/v1/enroll", sealed)
    assert refused.value.type == ProblemType.BAD_SIGNATURE


class Impostor(SigningKey):
    """Signs with its own key and claims another."""

    def __init__(self, own: SigningKey, claimed: bytes) -> None:
        super().__init__(own.secret_bytes())
        self.public = claimed  # type: ignore[assignment]  # a lie is the point


async def test_who_leaves_is_forgotten_and_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device = running.device()
        await device.enroll(await running.code(), label="kitchen laptop")
        leaving = device.signed(Kind.LEAVE, Leave(sent_at=unix_seconds(clock())))
        for _ in range(2):
            await device.call("POST", "/v1/leave", leaving)
        with pytest.raises(RefusedError) as refused:
            await device.check_in()
        row = await running.parts.store.members.client(client_id(device.key.public))
        head = await running.parts.store.key_log.head()
        again = await device.enroll(await running.code())
    assert refused.value.type == ProblemType.NOT_ENROLLED
    assert row is not None
    assert (row.state, row.label, row.device_kind, row.client_version) == ("left", "", "", "")
    assert head is not None
    assert check_log_head(head, device.descriptor).size == 2
    assert check_certificate(again.certificate, device.descriptor, unix_seconds(clock())).serial == 1


async def test_an_expired_certificate_is_renewed_with_a_new_invite(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        clock.advance(seconds=366 * 86400)
        with pytest.raises(RefusedError) as refused:
            await device.check_in()
        reply = await device.enroll(await running.code())
        held = await running.parts.store.members.certificate(client_id(device.key.public), unix_seconds(clock()))
    assert refused.value.type == ProblemType.NOT_ENROLLED
    assert held == reply.certificate
    assert check_certificate(reply.certificate, device.descriptor, unix_seconds(clock())).serial == 1


PROTECTED = (
    "/v1/tasks/notes/adapter",
    "/v1/tasks/notes/adapter/0",
    f"/v1/blobs/sha256:{'0' * 64}",
    f"/v1/rounds/{'0' * 32}/result",
)


@pytest.mark.parametrize("path", PROTECTED)
async def test_a_stranger_reads_nothing(path: str, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        stranger = running.device()
        with pytest.raises(RefusedError) as refused:
            await stranger.call("GET", path)
        assert refused.value.type == ProblemType.NOT_ENROLLED
        async with running.http.get(path) as unsigned:
            assert unsigned.status == 401
            assert unsigned.content_type == "application/problem+json"


async def test_a_request_signed_for_one_path_does_not_open_another(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    from fedit_protocol.requests import authorization

    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        signed = authorization(
            device.key, device.descriptor.federation_id, "GET", "/v1/tasks/other/adapter", unix_seconds(clock())
        )
        async with running.http.get("/v1/tasks/notes/adapter", headers={"Authorization": signed}) as reply:
            assert reply.status == 401
