"""An enrolment authority apart from the server: what the server cannot do, what waits, what survives a crash."""

import asyncio
from pathlib import Path

import pytest

from fedit_protocol.authority import QueuedRequest, RequestKind
from fedit_protocol.enrollment import Renew, check_certificate, check_log_head, check_reply
from fedit_protocol.errors import ProblemType, TransportError
from fedit_protocol.ids import client_id
from fedit_protocol.messages import Leave, RoundOutcome
from fedit_protocol.signing import Kind
from fedit_protocol.testing import ManualClock
from fedit_server.admin.clients import revoke_client
from fedit_server.admin.operations import Admin
from fedit_server.authority.home import AuthorityHome
from fedit_server.clock import unix_seconds
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home, load_identity
from fedit_server.problems import RateLimitedError
from fedit_server.storage.admissions import Admissions

from .apart import apart, certificate_of
from .bases import small_task
from .conftest import start
from .devices import RefusedError, one_hot
from .test_checkin import SIZE
from .test_enrollment import WRONG


def content(folder: Path) -> bytes:
    """Every byte below a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_a_server_set_up_with_a_card_holds_no_key_of_the_authority(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        await there.enroll(await there.code())
    identity = load_identity(Home(tmp_path / "home"))
    card, keys = AuthorityHome(tmp_path / "authority").read()
    stored = content(tmp_path / "home")
    assert identity.keys.authority is None
    assert not identity.descriptor.authority_is_server
    assert identity.is_named_on(card)
    assert {path.name for path in (tmp_path / "home" / "keys").iterdir()} == {"server.key", "ca.key.pem", "ca.pem"}
    assert bytes(keys.sign.public) in stored
    assert keys.sign.secret_bytes() not in stored
    assert keys.seal.private_bytes_raw() not in stored


async def test_row_32_the_server_relays_a_code_and_never_reads_it(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """Not in its database, waiting or answered, nor in anything that it sends on."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        code, device = await there.code(), there.running.device()
        with pytest.raises(RefusedError):
            await device.enroll(code)
        waiting = content(tmp_path / "home")
        queue = await there.wire.get("/v1/authority/queue")
        await there.admitted(device, code)
    assert code.encode() not in waiting + queue + content(tmp_path / "home") + b"".join(there.wire.posted)


async def test_no_more_devices_ask_the_authority_than_the_server_takes(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        there.running.parts.admission.most_devices = 1
        await there.enroll(await there.code())
        with pytest.raises(RefusedError) as full:
            await there.running.device().enroll(await there.code())
        waiting = await there.running.parts.store.admissions.waiting()
    assert (full.value.status, full.value.problem["code"], waiting.count) == (403, "T118", 0)


async def test_nobody_is_admitted_while_the_authority_is_away_and_nothing_is_lost(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        sealed = device.sealed(await there.code(lifetime_s=7 * 86400), "kitchen laptop")
        for _ in range(2):
            with pytest.raises(RefusedError) as waits:
                await device.redeem(sealed)
        assert await there.running.parts.store.members.clients() == []
        clock.advance(seconds=6 * 86400)
        assert await there.turn() == 1
        reply = await device.redeem(sealed)
        row = await there.running.parts.store.members.client(client_id(device.key.public))
        head = check_reply(reply, device.descriptor, device.key.public, unix_seconds(clock()))
    assert (waits.value.status, waits.value.type) == (425, ProblemType.NOT_READY)
    assert "lives apart" in waits.value.problem["detail"]
    assert row is not None
    assert (row.label, row.state, head.size) == ("kitchen laptop", "active", 1)


async def test_a_server_that_was_killed_still_has_what_waited(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """It is on disk before «not ready» leaves."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        sealed = device.sealed(await there.code())
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
    async with apart(tmp_path, clock) as there:
        assert await there.turn() == 1
        device.http = there.running.http
        assert certificate_of((await device.redeem(sealed)).certificate).serial == 0


async def test_a_request_that_waited_too_long_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        sealed = device.sealed(await there.code())
        clock.advance(seconds=8 * 86400)  # it is sent now, and was made a week ago
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
        await there.turn()
        with pytest.raises(RefusedError) as old:
            await device.redeem(sealed)
    assert old.value.type == ProblemType.CLOCK_SKEW


async def test_a_device_waits_in_its_request_while_the_authority_is_there(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        there.desk.long_poll_s = 5.0
        device, code = there.running.device(), await there.code()
        answering = asyncio.create_task(there.turn())
        while there.desk._seen is None:  # noqa: ASYNC110  the server's own state
            await asyncio.sleep(0.005)
        reply = await device.enroll(code)
        assert await answering == 1
    assert certificate_of(reply.certificate).identity_key == device.key.public


async def test_the_same_request_gets_the_same_certificate_and_so_does_a_new_one_with_the_same_code(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device, code = there.running.device(), await there.code(uses=1)
        sealed = device.sealed(code)
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
        await there.turn()
        first = await device.redeem(sealed)
        assert (await device.redeem(sealed)).certificate == first.certificate
        clock.advance(seconds=5)
        assert await there.admitted(device, code) == certificate_of(first.certificate)
        assert await there.admin.store.key_log.size() == 1


@pytest.mark.parametrize("lost", ["the answer", "its receipt"])
async def test_an_authority_that_dies_between_its_log_and_its_answer_gives_the_same_answer_afterwards(
    lost: str, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        sealed = device.sealed(await there.code(uses=1))
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
        there.wire.cut, there.wire.lose = (1, 0) if lost == "the answer" else (0, 1)
        with pytest.raises(TransportError):
            await there.turn()
        logged = await there.admin.store.key_log.lines()
        clock.advance(seconds=60)
        there.restarted()
        await there.turn()
        reply = await device.redeem(sealed)
        held = await there.admin.store.members.in_force([0], unix_seconds(clock()))
        assert await there.running.parts.store.key_log.lines() == logged
        assert await there.admin.store.key_log.size() == 1
    assert [envelope for envelope, _ in held] == [reply.certificate]


async def test_what_the_authority_refuses_is_refused_by_the_server_in_the_same_words(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = there.running.device()
        used = await there.code(uses=1)
        await there.enroll(used)
        expired = await there.code(lifetime_s=60)
        clock.advance(seconds=61)
        found = {}
        for code in (WRONG, used, expired):
            sealed = device.sealed(code)
            with pytest.raises(RefusedError):
                await device.redeem(sealed)
            await there.turn()
            with pytest.raises(RefusedError) as refused:
                await device.redeem(sealed)
            found[refused.value.type] = (refused.value.status, refused.value.problem["code"])
        garbage = there.running.http.post("/v1/enroll", data=b"\x00" * 300)
        async with garbage as first:
            assert first.status == 425
        await there.turn()
        async with there.running.http.post("/v1/enroll", data=b"\x00" * 300) as second:
            assert second.status == 401
    assert found == {
        ProblemType.INVITE_REFUSED: (403, "T006"),
        ProblemType.INVITE_USED: (410, "T005"),
        ProblemType.INVITE_EXPIRED: (410, "T004"),
    }


async def test_one_address_cannot_fill_the_queue(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        statuses = []
        for number in range(101):
            async with there.running.http.post("/v1/enroll", data=number.to_bytes(50, "big")) as reply:
                statuses.append(reply.status)
        async with there.running.http.post("/v1/enroll", data=bytes(50)) as again:
            assert again.status == 425, "what waits already may be asked for again"
        assert (await there.running.parts.store.admissions.waiting()).count == 100
    assert statuses == [425] * 100 + [429]


async def test_many_addresses_together_fill_the_queue_so_far_and_members_are_still_heard(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        member = await there.enroll(await there.code())
        queue, now_s = Admissions(there.running.parts.store.database, most_waiting=2), unix_seconds(clock())
        strangers = [QueuedRequest(kind=RequestKind.ENROLL, body=bytes([number])) for number in range(3)]
        for request in strangers[:2]:
            await queue.keep(request, None, now_s)
        with pytest.raises(RateLimitedError):
            await queue.keep(strangers[2], None, now_s)
        await queue.keep(strangers[0], None, now_s)
        for number in range(3):  # the newest of a kind takes the others' place
            wish = QueuedRequest(kind=RequestKind.LEAVE, body=bytes([9, number]))
            await queue.keep(wish, client_id(member.key.public), now_s)
        assert (await queue.waiting()).count == 3


async def test_the_queue_is_for_the_authority_alone(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code())
        with pytest.raises(RefusedError) as refused:
            await device.call("GET", "/v1/authority/queue")
        async with there.running.http.get("/v1/authority/queue") as unsigned:
            assert unsigned.status == 401
    assert refused.value.type == ProblemType.BAD_SIGNATURE


async def test_a_server_that_is_its_own_authority_has_no_such_doors(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path, clock, small_task(base)) as running:
        async with running.http.get("/v1/authority/queue") as reply:
            assert reply.status == 404
        async with running.http.post("/v1/authority/update", data=b"x") as reply:
            assert reply.status == 404


async def test_who_leaves_is_let_go_at_once_and_revoked_when_the_authority_comes_to_it(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code(), "kitchen laptop")
        member = await there.enroll(await there.code())
        leaving = device.signed(Kind.LEAVE, Leave(sent_at=unix_seconds(clock())))
        for _ in range(2):
            await device.call("POST", "/v1/leave", leaving)
        with pytest.raises(RefusedError) as refused:
            await device.check_in()
        sealed = device.sealed(await there.code())  # it changes its mind before the authority has looked
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
        assert await there.turn() == 2
        await device.call("POST", "/v1/leave", leaving)  # a copy of the old message does nothing any more
        assert await there.turn() == 0
        again = certificate_of((await device.redeem(sealed)).certificate)
        growth = await there.running.parts.log_book.growth(2, 4)
        await member.check_in()
        await device.check_in()
    assert refused.value.type == ProblemType.NOT_ENROLLED
    assert (again.serial, growth.revoked) == (2, (0,))


async def test_a_leave_and_the_join_behind_it_are_answered_once_although_the_authority_dies(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        code = await there.code(uses=2)
        device = await there.enroll(code)
        await device.call("POST", "/v1/leave", device.signed(Kind.LEAVE, Leave(sent_at=unix_seconds(clock()))))
        sealed = device.sealed(code)
        with pytest.raises(RefusedError):
            await device.redeem(sealed)
        there.wire.cut = 1
        with pytest.raises(TransportError):
            await there.turn()
        there.restarted()
        assert await there.turn() == 2
        assert certificate_of((await device.redeem(sealed)).certificate).serial == 1
        assert await there.running.parts.store.key_log.size() == 3


async def test_a_certificate_is_renewed_through_the_queue(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code())
        held = await there.running.parts.store.members.certificate(client_id(device.key.public), unix_seconds(clock()))
        assert held is not None
        clock.advance(seconds=350 * 86400)
        request = device.signed(Kind.RENEW, Renew(serial=0, sent_at=unix_seconds(clock())))
        with pytest.raises(RefusedError) as waits:
            await device.call("POST", "/v1/renew", request)
        await there.turn()
        await device.call("POST", "/v1/renew", request)
        renewed = await there.running.parts.store.members.certificate(
            client_id(device.key.public), unix_seconds(clock())
        )
        stranger, wish = there.running.device(), Renew(serial=0, sent_at=unix_seconds(clock()))
        with pytest.raises(RefusedError) as unknown:
            await stranger.call("POST", "/v1/renew", stranger.signed(Kind.RENEW, wish))
    assert waits.value.status == 425
    assert unknown.value.type == ProblemType.NOT_ENROLLED
    assert renewed is not None
    assert certificate_of(renewed).not_after == certificate_of(held).not_after + 350 * 86400
    assert check_certificate(renewed, device.descriptor, unix_seconds(clock())).serial == 0


async def test_the_operator_blocks_here_and_the_authority_revokes_for_everybody(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device, other = [await there.enroll(await there.code()) for _ in range(2)]
        members = there.running.parts.store.members
        async with Admin.open(ServerConfig.load({"home": tmp_path / "home"}, {})) as admin:
            await revoke_client(admin, client_id(device.key.public)[:8])
        with pytest.raises(RefusedError) as blocked:
            await device.check_in()
        assert await there.running.parts.store.key_log.size() == 2, "the server cannot write the log"
        await there.admin.revoke(client_id(other.key.public)[:8])
        await there.admin.revoke(client_id(device.key.public)[:8])
        assert await there.turn() == 0
        head = await there.running.parts.store.key_log.head()
        states = {row.client_id: str(row.state) for row in await members.clients()}
        with pytest.raises(RefusedError) as revoked:
            await other.check_in()
        sealed = other.sealed(await there.code())
        with pytest.raises(RefusedError):
            await other.redeem(sealed)
        await there.turn()
        with pytest.raises(RefusedError) as never_again:
            await other.redeem(sealed)
    assert blocked.value.type == revoked.value.type == ProblemType.NOT_ENROLLED
    assert never_again.value.type == ProblemType.INVITE_REFUSED
    assert head is not None
    assert check_log_head(head, device.descriptor).size == 4
    assert states == {client_id(device.key.public): "blocked", client_id(other.key.public): "revoked"}


async def test_a_blocked_device_stays_out_although_the_authority_admits_it_anew(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        code = await there.code()
        device = await there.enroll(code)
        await there.desk.block(client_id(device.key.public))
        clock.advance(seconds=366 * 86400)  # its certificate ends, and with an invite it may have another
        assert (await there.admitted(device, await there.code())).serial == 1
        with pytest.raises(RefusedError) as refused:
            await device.check_in()
    assert refused.value.type == ProblemType.NOT_ENROLLED


async def test_a_round_runs_among_devices_that_an_authority_apart_has_admitted(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        code = await there.code()
        devices = [await there.enroll(code) for _ in range(3)]
        await asyncio.gather(*(device.take_part(one_hot(SIZE, place)) for place, device in enumerate(devices)))
        result = await devices[0].result()
    assert result.outcome is RoundOutcome.COMMITTED
