"""The log of devices as clients check it: proofs over HTTP, revocation in it, renewal that leaves it alone."""

import asyncio
from pathlib import Path

import pytest

from fedit_protocol.encoding import decode
from fedit_protocol.enrollment import (
    Certificate,
    EnrolledView,
    EnrollReply,
    Renew,
    check_certificate,
    check_log_head,
    check_reply,
    log_leaf,
)
from fedit_protocol.errors import ProblemType, SecurityError
from fedit_protocol.ids import client_id
from fedit_protocol.keylog import (
    LogAction,
    LogEntry,
    LogGrowth,
    LogHead,
    LogInclusion,
    LogPage,
    check_consistency,
    check_inclusion,
    leaf_hash,
    merkle_root,
)
from fedit_protocol.messages import Leave, WaitReason
from fedit_protocol.signing import Kind
from fedit_protocol.testing import ManualClock
from fedit_server.clock import unix_seconds

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError

DAY_S = 86400


async def newest(device: Device) -> LogHead:
    return check_log_head(await device.call("GET", "/v1/log/head"), device.descriptor)


async def growth(device: Device, old: int, new: int) -> LogGrowth:
    return decode(LogGrowth, await device.call("GET", f"/v1/log/growth/{old}/{new}"))


async def test_every_device_finds_itself_in_the_newest_log(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        for device in await running.join(5):
            own = check_certificate(device.certificate, device.descriptor, unix_seconds(clock()))
            head = await newest(device)
            answer = await device.call("GET", f"/v1/log/inclusion/{own.log_index}/{head.size}")
            check_inclusion(log_leaf(own), own.log_index, decode(LogInclusion, answer).path, head)
            with pytest.raises(SecurityError):
                check_inclusion(log_leaf(own), (own.log_index + 1) % 5, decode(LogInclusion, answer).path, head)


async def test_the_reply_to_an_enrolment_proves_itself(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await running.join(3)
        device = running.device()
        reply = await device.enroll(await running.code())
        now_s = unix_seconds(clock())
        assert check_reply(reply, device.descriptor, device.key.public, now_s).size == 4
        with pytest.raises(SecurityError, match="not in the authority"):
            check_reply(reply.model_copy(update={"path": ()}), device.descriptor, device.key.public, now_s)


async def test_the_log_only_grows_and_says_whom_it_revokes(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        first, second, third = await running.join(3)
        before = await newest(first)
        await second.call("POST", "/v1/leave", second.signed(Kind.LEAVE, Leave(sent_at=unix_seconds(clock()))))
        after = await newest(first)
        grown = await growth(first, before.size, after.size)
        check_consistency(before, after, grown.path)
        view = EnrolledView(after, frozenset(grown.revoked))
        page = decode(LogPage, await third.call("GET", "/v1/log/entries/0"))
    assert grown.revoked == (1,)
    assert (view.devices, view.enrolled) == (2, 3)
    entries = [decode(LogEntry, entry) for entry in page.entries]
    assert [entry.action for entry in entries] == [LogAction.ENROLL] * 3 + [LogAction.REVOKE]
    assert merkle_root([leaf_hash(entry) for entry in entries]) == after.root


@pytest.mark.parametrize(
    "path", ["/v1/log/growth/0/9", "/v1/log/growth/3/2", "/v1/log/inclusion/3/3", "/v1/log/inclusion/0/9"]
)
async def test_a_proof_that_cannot_exist_is_refused(path: str, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, *_ = await running.join(3)
        with pytest.raises(RefusedError) as refused:
            await device.call("GET", path)
    assert refused.value.type == ProblemType.MALFORMED


@pytest.mark.parametrize("path", ["head", "growth/0/1", "inclusion/0/1", "entries/0"])
async def test_a_stranger_does_not_read_the_log(path: str, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        await running.join(1)
        with pytest.raises(RefusedError) as refused:
            await running.device().call("GET", f"/v1/log/{path}")
    assert refused.value.type == ProblemType.NOT_ENROLLED


async def renewed(device: Device, clock: ManualClock, serial: int = 0) -> EnrollReply:
    request = device.signed(Kind.RENEW, Renew(serial=serial, sent_at=unix_seconds(clock())))
    return decode(EnrollReply, await device.call("POST", "/v1/renew", request))


async def test_a_renewal_moves_the_end_and_nothing_else(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (device,) = await running.join(1)
        before = check_certificate(device.certificate, device.descriptor, unix_seconds(clock()))
        clock.advance(seconds=350 * DAY_S)
        with pytest.raises(RefusedError) as refused:
            await renewed(device, clock, serial=1)
        reply = await renewed(device, clock)
        clock.advance(seconds=30 * DAY_S)  # the first certificate has ended by now
        after = check_certificate(reply.certificate, device.descriptor, unix_seconds(clock()))
        assert (await newest(device)).size == 1
        assert (await device.check_in(version=7)).reason is not None
    assert refused.value.type == ProblemType.CONFLICT
    assert after == before.model_copy(update={"not_after": before.not_after + 350 * DAY_S})


async def excluded(running: Running, device: Device) -> None:
    await running.authority.revoke(client_id(device.key.public))


async def test_row_2_an_excluded_device_is_refused_everywhere_and_cannot_return(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, other = await running.join(2)
        await excluded(running, device)
        await excluded(running, device)
        refusals = []
        for attempt in (device.check_in(), renewed(device, clock), device.call("GET", "/v1/log/head")):
            with pytest.raises(RefusedError) as refused:
                await attempt
            refusals.append(refused.value.type)
        with pytest.raises(RefusedError) as again:
            await device.enroll(await running.code())
        head = await newest(other)
        grown = await growth(other, 2, head.size)
    assert refusals == [ProblemType.NOT_ENROLLED] * 3
    assert again.value.type == ProblemType.INVITE_REFUSED
    assert (head.size, grown.revoked) == (3, (0,))


async def test_row_2_who_returns_after_leaving_counts_once(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        device, _ = await running.join(2)
        clock.advance(seconds=400 * DAY_S)
        reply = await device.enroll(await running.code())
        head = check_log_head(reply.log_head, device.descriptor)
        grown = await growth(device, 0, head.size)
        certificate = check_certificate(reply.certificate, device.descriptor, unix_seconds(clock()))
    assert isinstance(certificate, Certificate)
    assert grown.revoked == (0,)
    assert EnrolledView(head, frozenset(grown.revoked)).devices == 2


async def test_row_2_a_device_that_is_too_new_waits_until_it_is_old_enough(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"min_cert_age_h": 24})) as running:
        devices = await running.join(3)
        reply = await devices[0].check_in()
        assert (reply.offer, reply.reason, reply.free_clients) == (None, WaitReason.TOO_NEW, 0)
        clock.advance(seconds=DAY_S - 1)
        assert (await devices[0].check_in()).reason is WaitReason.TOO_NEW
        clock.advance(seconds=1)
        offers = await asyncio.gather(*(device.offer() for device in devices))
    assert len(set(offers)) == 1
