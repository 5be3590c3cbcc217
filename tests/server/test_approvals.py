"""Invites with `approve`: a device waits, its owner reads out a code, the operator lets it in."""

from pathlib import Path

import pytest

from fedit_protocol.enrollment import InviteLink, approval_code
from fedit_protocol.ids import IdentityKey, client_id
from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role

from .callers import caller
from .conftest import start
from .devices import RefusedError


async def test_a_device_waits_for_the_operator_and_then_joins(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        operator, viewer = await caller(running, Role.OPERATOR), await caller(running, Role.VIEWER)
        invite = await operator.post("/invites", {"uses": 1, "approve": True})
        code = InviteLink.parse(invite["link"]).code
        device, stranger = running.device(), running.device()
        for one in (device, stranger, device):
            with pytest.raises(RefusedError) as waits:
                await one.enroll(code, "desk" if one is device else "shelf")
            assert (waits.value.status, waits.value.problem["code"]) == (425, "T117")
        listed = (await operator.get("/clients/waiting"))["waiting"]
        shown = approval_code(device.key.public)
        forbidden, _, _ = await viewer.send("POST", f"/clients/{shown}:approve")
        unknown, _, _ = await operator.send("POST", "/clients/AAAA-AAAA:approve")
        unused = (await operator.get("/invites"))["invites"][0]["uses"]
        await operator.post(f"/clients/{approval_code(stranger.key.public)}:refuse")
        done = await operator.post(f"/clients/{shown}:approve")
        clock.advance(seconds=120)
        await device.enroll(code, "desk")
        await device.enroll(code, "desk")  # a lost reply costs nothing
        empty = (await operator.get("/clients/waiting"))["waiting"]
        members = (await operator.get("/clients"))["clients"]
        with pytest.raises(RefusedError) as used:
            await stranger.enroll(code)
        actions = [line.content.action for line in await running.parts.store.audit.lines(0, 20)]
    assert [(one["label"], one["asked"]) for one in listed] == [("desk", "recently"), ("shelf", "recently")]
    assert listed[0]["code"] == shown
    assert (forbidden, unknown, unused, empty) == (403, 404, 0, [])
    assert done == {"code": shown, "id": client_id(device.key.public), "approved": True}
    assert [one["label"] for one in members] == ["desk"]
    assert used.value.problem["code"] == "T005"
    assert actions[-2:] == ["client.refuse", "client.approve"]


async def test_who_was_let_in_has_a_week_and_no_more(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        operator = await caller(running, Role.OPERATOR)
        code = InviteLink.parse((await operator.post("/invites", {"approve": True, "lifetime_s": 10**7}))["link"]).code
        device = running.device()
        with pytest.raises(RefusedError):
            await device.enroll(code)
        await operator.post(f"/clients/{approval_code(device.key.public)}:approve")
        clock.advance(seconds=8 * 86400)
        with pytest.raises(RefusedError) as late:
            await device.enroll(code)
    assert late.value.problem["code"] == "T117"


async def test_a_federation_that_is_full_takes_no_more_devices(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        running.authority.most_devices = 2
        devices = await running.join(2)
        with pytest.raises(RefusedError) as full:
            await running.device().enroll(await running.code())
        await running.authority.revoke(client_id(devices[0].key.public))
        await running.device().enroll(await running.code())
    assert (full.value.status, full.value.problem["code"]) == (403, "T118")


def test_a_code_is_made_to_be_read_out() -> None:
    assert approval_code(IdentityKey(bytes(32))) == "XGS8-S02C"
