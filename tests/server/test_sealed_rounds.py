"""Trusted rounds over HTTP against the real store: who is let in, restarts, a lost key, devices that lie."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_protocol.adapter import Vector
from fedit_protocol.encoding import digest_of, to_base64url
from fedit_protocol.errors import ProblemType
from fedit_protocol.ids import ClientId, RoundId, TaskId, client_id
from fedit_protocol.limits import Limits
from fedit_protocol.messages import Accept, RoundOutcome, RoundResult, UploadHeader
from fedit_protocol.metrics import ClientReport
from fedit_protocol.sealed.participant import SealedParticipant
from fedit_protocol.secagg.context import offer_context
from fedit_protocol.secagg.effects import Effects, Send
from fedit_protocol.signing import Kind, read_envelope, seal, unseal
from fedit_protocol.task import Mode, Task
from fedit_protocol.testing import ManualClock
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.admin.operations import Admin
from fedit_server.config import ServerConfig
from fedit_server.rounds.round_keys import RoundKeys
from fedit_server.storage.rows import Decision, RoundRow, RoundState

from .bases import small_task
from .conftest import Running, start
from .devices import Device, RefusedError, one_hot

TASK = TaskId("notes")
BOTH = (Mode.MASKED, Mode.TRUSTED)
REPORT = ClientReport(examples=5, train_loss=1.5, held_out_loss=None)


def trusted_task(base: Path, members: int = 3, **policy: object) -> Task:
    return small_task(base, members, round={"mode": "trusted", **policy})


@dataclass
class Guest:
    """A device in a trusted round."""

    device: Device
    offer: bytes
    participant: SealedParticipant

    @classmethod
    async def invited(cls, device: Device) -> "Guest":
        offer = await device.offer()
        limits = Limits(modes=BOTH)
        return cls(device, offer, SealedParticipant(offer, device.descriptor, device.key, limits, device.clock()))

    @property
    def path(self) -> str:
        return f"/v1/rounds/{self.participant.offer.round_id}"

    @property
    def context(self) -> bytes:
        return offer_context(read_envelope(self.offer, Kind.OFFER).body)

    async def accept(self) -> None:
        await self.device.call("POST", f"{self.path}/accept", sent(self.participant.accept()).envelope)

    async def upload(self, update: Vector, weight: int = 1) -> None:
        message = sent(self.participant.freeze(update, weight, REPORT))
        self.participant.on_receipt(await self.put(message.envelope, message.payload or b""))

    async def put(self, header: bytes, payload: bytes, offset: int = 0) -> bytes:
        headers = {"Fedit-Upload-Header": to_base64url(header), "Upload-Offset": str(offset)}
        return await self.device.call("PUT", f"{self.path}/uploads/1", payload, **headers)

    async def put_box(self, payload: bytes) -> bytes:
        """Sign and send whatever bytes."""
        digest = bytes.fromhex(digest_of(payload).removeprefix("sha256:"))
        header = UploadHeader(sum_index=1, length=len(payload), digest=digest)
        return await self.put(seal(self.device.key, Kind.SEALED_UPLOAD, self.context, header), payload)

    async def result(self) -> RoundResult:
        while True:
            try:
                received = await self.device.call("GET", f"{self.path}/result")
            except RefusedError as refused:
                if refused.status != 425:
                    raise
            else:
                key = self.device.descriptor.server_key
                return unseal(received, Kind.RESULT, self.context, RoundResult, signer=key)


def sent(effects: Effects) -> Send:
    (message,) = [effect for effect in effects if isinstance(effect, Send)]
    return message


async def guests(running: Running, count: int) -> list[Guest]:
    return list(await asyncio.gather(*(Guest.invited(device) for device in await running.join(count))))


async def size_of(running: Running) -> int:
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    return task.document.layout.size


async def newest(running: Running) -> RoundRow:
    return (await running.parts.store.rounds.rounds(TASK))[-1]


async def step(running: Running) -> Vector:
    """Return what the newest version adds to the one before."""
    task = await running.parts.store.tasks.task(TASK)
    assert task is not None
    rows = await running.parts.store.tasks.adapters(TASK)
    vectors = [from_safetensors(task.document.layout, await running.parts.blobs.get(row.digest)) for row in rows]
    return vectors[-1] - vectors[-2]


def mean_of(places: Sequence[int], size: int) -> Vector:
    expected = np.zeros(size, dtype=np.float32)
    expected[list(places)] = 1 / len(places)
    return expected


def key_of(running: Running, round_id: RoundId) -> Path:
    return running.home.round_keys / f"{round_id}.key"


async def test_the_rounds_key_is_there_before_the_offer_and_gone_with_the_result(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, trusted_task(base, rounds=1), modes=BOTH) as running:
        there = await guests(running, 3)
        offer = there[0].participant.offer
        assert offer.sealed is not None
        key = key_of(running, offer.round_id)
        public = X25519PrivateKey.from_private_bytes(key.read_bytes()).public_key().public_bytes_raw()
        assert public == offer.sealed.key
        assert (key.stat().st_mode & 0o777, key.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        size = await size_of(running)
        for number, guest in enumerate(there):
            await guest.accept()
            await guest.upload(one_hot(size, number))
        result = await there[0].result()
        assert (result.outcome, result.survivors, result.sums_done) == (RoundOutcome.COMMITTED, 3, 0)
        assert np.allclose(await step(running), mean_of([0, 1, 2], size), atol=1e-6)
        row = await newest(running)
        assert (row.mode, row.as_data()["mode"]) == (Mode.TRUSTED, "trusted")
        await running.until(lambda: gone(running))
        assert list(running.home.round_keys.iterdir()) == []
        assert list(running.home.spool.iterdir()) == []


async def gone(running: Running) -> bool:
    runner = running.parts.coordinator._runners[TASK]
    return runner.live is None


@pytest.mark.parametrize("moment", ["accepted", "some uploaded", "an upload half done"])
async def test_a_round_goes_on_after_a_restart(moment: str, tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = trusted_task(base)
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        there, size = await guests(running, 3), await size_of(running)
        for guest in there:
            await guest.accept()
        frozen = sent(there[0].participant.freeze(one_hot(size, 0), 1, REPORT))
        payload = frozen.payload or b""
        if moment == "some uploaded":
            await there[0].put(frozen.envelope, payload)
        elif moment == "an upload half done":
            with pytest.raises(RefusedError):
                await there[0].put(frozen.envelope, payload[:100])
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        for guest in there:
            guest.device.http = running.http
        if moment == "an upload half done":
            reply, _ = await there[0].device.ask("HEAD", f"{there[0].path}/uploads/1")
            assert reply.headers["Upload-Offset"] == "100"
            there[0].participant.on_receipt(await there[0].put(frozen.envelope, payload[100:], 100))
        else:
            there[0].participant.on_receipt(await there[0].put(frozen.envelope, payload))
        await there[1].upload(one_hot(size, 1))
        await there[2].upload(one_hot(size, 2))
        assert (await there[1].result()).survivors == 3
        assert np.allclose(await step(running), mean_of([0, 1, 2], size), atol=1e-6)


LOSSES = {"its key": "the key of this round is no longer on disk", "an upload": "an upload is no longer on disk"}


@pytest.mark.parametrize("lost", LOSSES)
async def test_a_round_that_lost_what_it_needs_fails_with_the_reason(
    lost: str, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    task = trusted_task(base)
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        there = await guests(running, 3)
        for guest in there:
            await guest.accept()
        await there[0].upload(one_hot(await size_of(running), 0))
        round_id = there[0].participant.offer.round_id
        home = running.home
    if lost == "its key":
        key_of(running, round_id).unlink()
    else:
        next((home.spool / round_id).iterdir()).unlink()
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        row = await running.parts.store.rounds.round(round_id)
        assert row is not None
        assert row.state is RoundState.FAILED
        assert LOSSES[lost] in row.reason
        assert not key_of(running, round_id).exists()


async def test_a_start_deletes_keys_that_belong_to_no_open_round(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    keys = RoundKeys(tmp_path / "home" / "round-keys")
    async with start(tmp_path / "home", clock, trusted_task(base), modes=BOTH) as running:
        open_round = (await guests(running, 3))[0].participant.offer.round_id
    keys.create(RoundId("0" * 32))
    (tmp_path / "home" / "round-keys" / f".{open_round}.key.1.tmp").write_bytes(bytes(32))
    async with start(tmp_path / "home", clock, trusted_task(base), modes=BOTH) as running:
        assert [path.name for path in running.home.round_keys.iterdir()] == [f"{open_round}.key"]


def test_a_destroyed_key_is_overwritten_before_its_name_goes(tmp_path: Path) -> None:
    keys, round_id = RoundKeys(tmp_path / "round-keys"), RoundId("1" * 32)
    keys.create(round_id)
    path = tmp_path / "round-keys" / f"{round_id}.key"
    secret = path.read_bytes()
    other_name = tmp_path / "another name of the same file"
    other_name.hardlink_to(path)
    assert keys.holds(round_id)
    keys.destroy(round_id)
    keys.destroy(round_id)
    assert (keys.holds(round_id), keys.load(round_id)) == (False, None)
    assert other_name.read_bytes() == bytes(len(secret))


async def test_a_box_that_cannot_be_used_is_left_out_and_its_sender_is_barred(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    """Whose box is whose is bound by the seal: another device's, replayed under one's own signature, does not open."""
    task = trusted_task(base, 4, cohort_min=3, dropout_fraction=0.3)
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        there, size = await guests(running, 4), await size_of(running)
        for guest in there:
            await guest.accept()
        copied = sent(there[1].participant.freeze(one_hot(size, 1), 1, REPORT))
        await there[1].put(copied.envelope, copied.payload or b"")
        await there[0].upload(one_hot(size, 0))
        await there[2].upload(one_hot(size, 2))
        await there[3].put_box(copied.payload or b"")
        result = await there[0].result()
        assert (result.outcome, result.survivors) == (RoundOutcome.COMMITTED, 3)
        assert np.allclose(await step(running), mean_of([0, 1, 2], size), atol=1e-6)
        await running.until(lambda: gone(running))
        lobby = running.parts.coordinator._runners[TASK].lobby
        lobby.saw(_client(there[3]), clock())
        assert _client(there[3]) not in lobby.free(clock())


def _client(guest: Guest) -> ClientId:
    return client_id(guest.device.key.public)


async def test_each_kind_of_round_has_its_own_doors(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, trusted_task(base), modes=BOTH) as running:
        (guest, *_) = await guests(running, 3)
        await guest.accept()
        for name in ("roster", "inbox", "sharers", "survivors/1", "confirmations/1", "second-input"):
            with pytest.raises(RefusedError) as refused:
                await guest.device.call("GET", f"{guest.path}/{name}")
            assert refused.value.type == ProblemType.STAGE_MISMATCH
        message = guest.device.signed(Kind.SHARES, Accept(mode=Mode.TRUSTED))
        for name in ("shares", "ack", "unmask/1", "confirm/1"):
            with pytest.raises(RefusedError) as refused:
                await guest.device.call("POST", f"{guest.path}/{name}", message)
            assert refused.value.type == ProblemType.STAGE_MISMATCH


async def test_a_masked_round_takes_no_accept_and_no_sealed_update(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base), modes=BOTH) as running:
        devices = await running.join(3)
        offers = await asyncio.gather(*(device.offer() for device in devices))
        device = devices[0]
        device.accept(offers[0])
        context = offer_context(read_envelope(offers[0], Kind.OFFER).body)
        accepted = seal(device.key, Kind.ACCEPT, context, Accept(mode=Mode.TRUSTED))
        with pytest.raises(RefusedError) as refused:
            await device.call("POST", f"{device.round}/accept", accepted)
        assert refused.value.type == ProblemType.STAGE_MISMATCH
        header = UploadHeader(sum_index=1, length=100, digest=bytes(32))
        with pytest.raises(RefusedError):
            await device.upload(seal(device.key, Kind.SEALED_UPLOAD, context, header), bytes(100))
        assert not running.home.round_keys.exists()


async def test_a_device_without_a_valid_certificate_does_not_get_in(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, trusted_task(base), modes=BOTH) as running:
        there = await guests(running, 3)
        stranger = running.device()
        forged = seal(stranger.key, Kind.ACCEPT, there[0].context, Accept(mode=Mode.TRUSTED))
        with pytest.raises(RefusedError) as refused:
            await stranger.call("POST", f"{there[0].path}/accept", forged)
        assert refused.value.type == ProblemType.NOT_ENROLLED


async def test_a_held_step_needs_the_rounds_key_no_more(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = small_task(
        base, 3, round={"mode": "trusted"}, top={"gates": {"max_coordinate": 0.1, "hold": ["max_coordinate"]}}
    )
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        there, size = await guests(running, 3), await size_of(running)
        for number, guest in enumerate(there):
            await guest.accept()
            await guest.upload(one_hot(size, number))
        assert (await there[0].result()).outcome is RoundOutcome.HELD
        await running.until(lambda: gone(running))
        assert list(running.home.round_keys.iterdir()) == []
    async with Admin.open(ServerConfig.load({"home": tmp_path / "home"}, {})) as admin:
        await admin.decide(None, 1, Decision.APPROVE, "")
    async with start(tmp_path / "home", clock, task, modes=BOTH) as running:
        await running.until(lambda: committed(running))
        assert np.allclose(await step(running), mean_of([0, 1, 2], size), atol=1e-6)
        row = await newest(running)
        assert row.candidate is None or row.candidate.sums_done == 0


async def committed(running: Running) -> bool:
    return (await newest(running)).state is RoundState.COMMITTED
