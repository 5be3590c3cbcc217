"""What a server takes from its authority, and what an authority takes from its server: forgeries, forks, lost logs."""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.authority import (
    Answer,
    AuthorityQueue,
    AuthorityUpdate,
    IssuedCertificate,
    LoggedEntry,
    request_id,
)
from fedit_protocol.encoding import decode, encode
from fedit_protocol.enrollment import Certificate, Renew, federation_context
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, SecurityError, TransportError
from fedit_protocol.ids import client_id
from fedit_protocol.keylog import LogAction, LogEntry, LogState
from fedit_protocol.messages import Leave
from fedit_protocol.signing import Kind, SigningKey, seal
from fedit_protocol.testing import ManualClock
from fedit_server.authority.link import Wire, follow, parse_server, refusal
from fedit_server.clock import unix_seconds
from fedit_server.home.folder import Home
from fedit_server.keys.rotation import replace_lost_key, rotate_server_key

from .apart import Apart, apart, certificate_of
from .bases import small_task
from .conftest import start
from .devices import Device, RefusedError

STRANGER = SigningKey(b"\x05" * 32)


class Forger:
    """Knows the authority's key, as a broken or a bribed authority does, and goes on from the log of two devices."""

    def __init__(self, there: Apart, stored: LogState, devices: list[Device], pending: Device, sealed: bytes) -> None:
        self.there, self.state, self.devices, self.pending = there, stored, devices, pending
        self.now_s = unix_seconds(there.running.clock())
        self.key = there.worker.authority.keys.sign
        self.federation = there.worker.card.federation_id
        self.request = request_id(sealed)

    def entry(self, device: Device, serial: int, action: LogAction = LogAction.ENROLL) -> LogEntry:
        hashed = hashlib.sha256(device.key.public).digest()
        return LogEntry(action=action, identity_hash=hashed, serial=serial, time=self.now_s)

    def line(self, entry: LogEntry, key: SigningKey | None = None, **lies: Any) -> LoggedEntry:
        self.state = self.state.add(entry)
        head = self.state.head(self.federation, self.now_s).model_copy(update=lies)
        return LoggedEntry(entry=encode(entry), head=self.sealed(Kind.LOG_HEAD, head, key))

    def certificate(self, device: Device, serial: int, index: int, **lies: Any) -> IssuedCertificate:
        key = lies.pop("key", None)
        honest = Certificate(
            federation_id=self.federation,
            identity_key=device.key.public,
            serial=serial,
            not_before=self.now_s - 300,
            not_after=self.now_s + 1000,
            enrolled_at=self.now_s,
            log_index=index,
        )
        sealed = self.sealed(Kind.CERTIFICATE, honest.model_copy(update=lies), key)
        return IssuedCertificate(certificate=sealed, label="")

    def sealed(self, kind: Kind, message: Any, key: SigningKey | None) -> bytes:
        return seal(key or self.key, kind, federation_context(self.federation), message)

    def granted(self, serial: int | None = 2) -> Answer:
        return Answer(request=self.request, serial=serial, problem=None, code="", detail="")

    def honest(self, **lies: Any) -> AuthorityUpdate:
        """The update that admits the waiting device, or one that differs from it as told."""
        fields = {
            "start": 2,
            "lines": lies.pop("lines", None) or (self.line(self.entry(self.pending, 2)),),
            "certificates": (self.certificate(self.pending, 2, 2),),
            "answers": (self.granted(),),
        }
        return AuthorityUpdate(**(fields | lies))


async def forging(there: Apart) -> tuple[Forger, bytes]:
    """Two devices are members, a third one waits."""
    code = await there.code()
    devices = [await there.enroll(code) for _ in range(2)]
    pending = there.running.device()
    sealed = pending.sealed(code)
    with pytest.raises(RefusedError):
        await pending.redeem(sealed)
    stored = await there.running.parts.store.key_log.state()
    return Forger(there, stored, devices, pending, sealed), sealed


async def test_the_honest_update_is_taken_however_often_it_comes(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """Without this one, the refusals below might have another reason."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, sealed = await forging(there)
        update = forger.honest()
        for _ in range(2):
            await there.say(update)
        assert certificate_of((await forger.pending.redeem(sealed)).certificate).serial == 2
        assert await there.running.parts.store.key_log.size() == 3


LIES: dict[str, Callable[[Forger], AuthorityUpdate]] = {
    "a gap before it": lambda f: f.honest(start=3),
    "a root of other entries": lambda f: f.honest(lines=(f.line(f.entry(f.pending, 2), root=bytes(32)),)),
    "a hidden revocation": lambda f: f.honest(lines=(f.line(f.entry(f.pending, 2), revoked=bytes(32)),)),
    "a head by another key": lambda f: f.honest(lines=(f.line(f.entry(f.pending, 2), STRANGER),)),
    "a serial used before": lambda f: f.honest(lines=(f.line(f.entry(f.pending, 1)),)),
    "a member enrolled twice": lambda f: f.honest(lines=(f.line(f.entry(f.devices[0], 2)),)),
    "a certificate by another key": lambda f: f.honest(certificates=(f.certificate(f.pending, 2, 2, key=STRANGER),)),
    "a certificate that is not logged": lambda f: f.honest(certificates=(f.certificate(f.pending, 2, 3),)),
    "a certificate of another entry": lambda f: f.honest(certificates=(f.certificate(f.pending, 2, 1),)),
    "another device's certificate": lambda f: f.honest(certificates=(f.certificate(f.devices[0], 2, 2),)),
    "an expired certificate": lambda f: f.honest(certificates=(f.certificate(f.pending, 2, 2, not_after=5),)),
    "another federation's certificate": lambda f: f.honest(
        certificates=(f.certificate(f.pending, 2, 2, federation_id="0" * 32),)
    ),
    "a certificate that is revoked behind it": lambda f: f.honest(
        lines=(f.line(f.entry(f.pending, 2)), f.line(f.entry(f.pending, 2, LogAction.REVOKE))), answers=()
    ),
    "an answer without its certificate": lambda f: f.honest(certificates=()),
    "an answer that names none": lambda f: f.honest(answers=(f.granted(None),)),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_wrong_answer_is_refused_whole_and_the_honest_one_is_taken_afterwards(
    lie: Callable[[Forger], AuthorityUpdate], tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, sealed = await forging(there)
        before = forger.state
        with pytest.raises(ProtocolError) as refused:
            await there.say(lie(forger))
        assert await there.running.parts.store.key_log.size() == 2
        assert await there.running.parts.store.members.client(client_id(forger.pending.key.public)) is None
        forger.state = before
        await there.say(forger.honest())
        assert await forger.pending.redeem(sealed)
    assert refused.value.code == "T026"


async def test_an_update_by_anybody_else_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """Its content is the authority's own; only the envelope is not."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, _ = await forging(there)
        for key in (STRANGER, forger.pending.key, there.running.parts.identity.keys.server):
            with pytest.raises(ProtocolError) as refused:
                await there.say(forger.honest(), key)
            assert refused.value.problem is ProblemType.BAD_SIGNATURE
        assert await there.running.parts.store.key_log.size() == 2


async def test_a_fork_of_what_devices_have_seen_is_refused(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, _ = await forging(there)
        forger.state = LogState(forger.state.leaves[:1])
        other = forger.line(forger.entry(forger.pending, 1))
        with pytest.raises(ProtocolError) as refused:
            await there.say(AuthorityUpdate(start=1, lines=(other,), certificates=(), answers=()))
    assert "forks the log" in str(refused.value)
    assert refused.value.problem is ProblemType.CONTEXT_MISMATCH


async def test_an_answer_is_not_taken_back(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, _ = await forging(there)
        await there.say(forger.honest())
        other = forger.granted().model_copy(update={"serial": None, "problem": ProblemType.INVITE_REFUSED})
        with pytest.raises(ProtocolError) as refused:
            await there.say(AuthorityUpdate(start=3, lines=(), certificates=(), answers=(other,)))
    assert "a second answer" in str(refused.value)


async def asked(there: Apart, device: Device, kind: Kind) -> bytes:
    """Let a member ask for something that it signs itself; return the request's id."""
    now_s = unix_seconds(there.running.clock())
    message = Renew(serial=0, sent_at=now_s) if kind is Kind.RENEW else Leave(sent_at=now_s)
    body = device.signed(kind, message)
    if kind is Kind.LEAVE:
        await device.call("POST", "/v1/leave", body)
    else:
        with pytest.raises(RefusedError):
            await device.call("POST", "/v1/renew", body)
    return request_id(body)


@pytest.mark.parametrize(("kind", "serial"), [(Kind.RENEW, 1), (Kind.LEAVE, None), (Kind.LEAVE, 0)])
async def test_a_grant_that_does_not_fit_the_request_is_refused(
    kind: Kind, serial: int | None, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """Another member's certificate for a renewal; a leave without the revocation that it asks for."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        forger, _ = await forging(there)
        answer = Answer(
            request=await asked(there, forger.devices[0], kind), serial=serial, problem=None, code="", detail=""
        )
        with pytest.raises(ProtocolError) as refused:
            await there.say(AuthorityUpdate(start=2, lines=(), certificates=(), answers=(answer,)))
        assert await there.turn() == 2
    assert "does not fit its request" in str(refused.value)


class Showing:
    """A Wire to a server that shows another queue than it has."""

    def __init__(self, wire: Wire, **shown: Any) -> None:
        self._wire, self._shown = wire, shown
        self.posted: list[bytes] = []

    async def get(self, path: str) -> bytes:
        queue = decode(AuthorityQueue, await self._wire.get(path))
        return encode(queue.model_copy(update=self._shown))

    async def post(self, path: str, body: bytes) -> bytes:
        self.posted.append(body)
        return await self._wire.post(path, body)


async def other_head(there: Apart) -> dict[str, Any]:
    lines = await there.admin.store.key_log.lines()
    return {"log_head": lines[0].head}


async def shortened(there: Apart) -> dict[str, Any]:
    lines = await there.admin.store.key_log.lines()
    return {"log_size": 1, "log_head": lines[0].head}


async def emptied(_: Apart) -> dict[str, Any]:
    return {"log_size": 0, "log_head": b""}


async def longer(_: Apart) -> dict[str, Any]:
    return {"log_size": 3}


WRONG_LOGS: dict[str, tuple[Callable[[Apart], Awaitable[dict[str, Any]]], str]] = {
    "a fork": (other_head, "its entry 1 is another one than here"),
    "a shorter log": (shortened, "it has 1 entries and had 2"),
    "an empty log": (emptied, "it has 0 entries and had 2"),
    "a longer log": (longer, "it has 3 entries and this authority has 2"),
}


@pytest.mark.parametrize("case", WRONG_LOGS.values(), ids=WRONG_LOGS)
async def test_an_authority_sends_nothing_to_a_server_that_shows_another_log(
    case: tuple[Callable[[Apart], Awaitable[dict[str, Any]]], str], tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    lie, words = case
    async with apart(tmp_path, clock, small_task(base)) as there:
        await forging(there)
        showing = Showing(there.wire, **await lie(there))
        there.restarted()  # what it knows of the server is on its disk
        with pytest.raises(SecurityError, match=words) as alarm:
            await there.worker.turn(showing)
    assert alarm.value.code == "T024"
    assert showing.posted == []


async def test_a_server_that_was_restored_from_a_backup_gets_all_of_it_again(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """With --resend; members that the backup did not know are members again."""
    home = tmp_path / "home"
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code(), "kitchen laptop")
        left = await there.enroll(await there.code())
        await left.call("POST", "/v1/leave", left.signed(Kind.LEAVE, Leave(sent_at=unix_seconds(clock()))))
        await there.turn()
    for path in home.glob("fedit.db*"):
        path.unlink()
    async with apart(tmp_path, clock, small_task(base)) as there:
        there.worker.home.link(replace(there.worker.server, confirmed=3))
        with pytest.raises(SecurityError) as alarm:
            await there.restarted().turn(there.wire)
        await there.restarted(resend=True).turn(there.wire)
        rows = {row.client_id: (str(row.state), row.label) for row in await there.running.parts.store.members.clients()}
        assert await there.running.parts.store.key_log.lines() == await there.admin.store.key_log.lines()
    assert alarm.value.code == "T024"
    assert rows == {client_id(device.key.public): ("active", "kitchen laptop")}


async def test_a_log_of_many_entries_is_handed_over_in_pages(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        there.worker.page = 2
        code = await there.code()
        waiting = [(device, device.sealed(code)) for device in (there.running.device() for _ in range(5))]
        for device, sealed in waiting:
            with pytest.raises(RefusedError):
                await device.redeem(sealed)
        assert await there.turn() == 5
        serials = [certificate_of((await device.redeem(sealed)).certificate).serial for device, sealed in waiting]
    assert serials == [0, 1, 2, 3, 4]
    assert len(there.wire.posted) == 3


async def test_a_servers_new_key_is_followed_if_the_old_one_signed_for_it(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """`keys rotate` needs nothing of the authority; open invites stay good, new ones carry the new pin."""
    home = tmp_path / "home"
    async with apart(tmp_path, clock, small_task(base)) as there:
        before, link = there.worker.card, there.worker.server
    after = rotate_server_key(Home(home), unix_seconds(clock()))
    async with start(home, clock) as running:
        wire = there.wire
        wire.http, wire.running = running.http, running
        followed = await follow(link, wire)
    replaced = replace_lost_server_key(home)
    async with start(home, clock) as running:
        wire.http, wire.running = running.http, running
        with pytest.raises(SecurityError) as lost:
            await follow(followed, wire)
    assert (followed.pin, followed.pin != link.pin) == (after.pin, True)
    assert after.is_named_on(before)
    assert after.keys.authority is None
    assert replaced.is_named_on(before)
    assert lost.value.code == "T025"


async def test_a_device_that_is_revoked_while_its_answer_travels_is_refused_and_the_others_are_admitted(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """The log goes over page by page, and `authority revoke` may run between two of them."""
    async with apart(tmp_path, clock, small_task(base)) as there:
        code, devices = await there.code(), [there.running.device() for _ in range(2)]
        asked = [device.sealed(code) for device in devices]
        for device, sealed in zip(devices, asked, strict=True):
            with pytest.raises(RefusedError):
                await device.redeem(sealed)
        there.worker.page, there.wire.cut = 1, 1
        with pytest.raises(TransportError):
            await there.turn()  # both are in the log now, and the server knows nothing of it
        there.wire.meanwhile = lambda: there.authority_revokes(devices[1])
        await there.turn()
        admitted = await devices[0].redeem(asked[0])
        with pytest.raises(RefusedError) as gone:
            await devices[1].redeem(asked[1])
    assert certificate_of(admitted.certificate).serial == 0
    assert gone.value.type == ProblemType.NOT_ENROLLED


def replace_lost_server_key(home: Path) -> Any:
    (home / "keys" / "server.key").unlink()
    return replace_lost_key(Home(home))


ADDRESSES = {
    "https://fl.example.org": ("fl.example.org", 443, None),
    "https://10.1.2.3:8443/": ("10.1.2.3", 8443, None),
    "https://[::1]:8443#sha256:" + "0" * 64: ("::1", 8443, "sha256:" + "0" * 64),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_how_an_authority_is_told_its_server(text: str) -> None:
    assert parse_server(text) == ADDRESSES[text]


@pytest.mark.parametrize(
    "text", ["", "fl.example.org", "http://fl.example.org", "https://h:99999", "https://h#sha256:00"]
)
def test_what_is_no_servers_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_server(text)
    assert refused.value.code == "U034"


@pytest.mark.parametrize("answer", [b"", b"null", b"\xff", b"{}", b'{"type": 3, "detail": ""}', b"[" * 100_000])
def test_a_refusal_that_says_nothing_is_tried_again_and_ends_no_authority(answer: bytes) -> None:
    assert isinstance(refusal(500, answer, "here"), TransportError)
