"""The folder of an authority that lives apart: made once, never shared with a server, checked from its first entry."""

from pathlib import Path

import pytest

from fedit_protocol.errors import ConfigError
from fedit_protocol.ids import client_id
from fedit_protocol.testing import ManualClock
from fedit_server.access.invites import Terms
from fedit_server.admin.invites import end_invite, make_invite, show_invites
from fedit_server.admin.models.invites import NewInviteTerms
from fedit_server.admin.operations import Admin
from fedit_server.admin.overview import overview
from fedit_server.authority.admin import AuthorityAdmin, audit
from fedit_server.authority.home import AuthorityHome, read_card_file
from fedit_server.config import ServerConfig
from fedit_server.home.folder import CARD_FILE, Home, create_identity

from .apart import apart
from .bases import small_task


async def test_invites_are_made_where_the_authority_is(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        made = await there.admin.create_invite(Terms(1, 60), "fl.example.org")
        async with Admin.open(ServerConfig.load({"home": tmp_path / "home"}, {})) as admin:
            for attempt in (make_invite(admin, NewInviteTerms()), show_invites(admin), end_invite(admin, "x")):
                with pytest.raises(ConfigError) as refused:
                    await attempt
                assert refused.value.code == "U031"
            shown = (await overview(admin)).model_dump(mode="json")
        pin = there.running.parts.identity.pin
    assert (made.link.host, made.link.port, made.link.pin) == ("fl.example.org", 8443, pin)
    assert shown["authority"] == {"apart": True, "waiting": 0, "waiting_since": None}


async def test_both_sides_can_be_audited_and_agree(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code())
        await there.enroll(await there.code())
        await there.admin.revoke(client_id(device.key.public))
        await there.turn()
    found = [await audit(tmp_path / folder) for folder in ("home", "authority")]
    assert found[0] == found[1]
    assert (found[0].size, found[0].devices, found[0].apart) == (3, 1, True)


async def test_a_device_is_revoked_by_the_identity_that_the_log_shows(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with apart(tmp_path, clock, small_task(base)) as there:
        device = await there.enroll(await there.code())
        await there.enroll(await there.code())
        await there.turn()
        shown = (await audit(tmp_path / "authority")).entries[0].identity_hash.hex()
        with pytest.raises(ConfigError) as too_short:
            await there.admin.revoke(shown[:7])
        row = await there.admin.revoke(shown[:8].upper())
        log = await audit(tmp_path / "authority")
    assert too_short.value.code == "U025"
    assert row.client_id == client_id(device.key.public)
    assert [str(entry.action) for entry in log.entries] == ["enroll", "enroll", "revoke"]
    assert log.entries[2].identity_hash.hex() == shown


async def test_an_authority_is_chosen_once(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with apart(tmp_path, clock, small_task(base)):
        pass
    home, card = Home(tmp_path / "home"), AuthorityHome(tmp_path / "authority").read()[0]
    assert create_identity(home, "x", clock(), card).is_named_on(card)
    create_identity(Home(tmp_path / "alone"), "x", clock())
    other = AuthorityHome(tmp_path / "second").create("")
    for folder in ("home", "alone"):
        with pytest.raises(ConfigError) as refused:
            create_identity(Home(tmp_path / folder), "x", clock(), other)
        assert refused.value.code == "C033"


async def test_a_server_and_an_authority_do_not_share_a_folder(tmp_path: Path, clock: ManualClock) -> None:
    AuthorityHome(tmp_path / "authority").create("")
    create_identity(Home(tmp_path / "server"), "x", clock())
    with pytest.raises(ConfigError) as upon:
        create_identity(Home(tmp_path / "authority"), "x", clock())
    with pytest.raises(ConfigError) as under:
        AuthorityHome(tmp_path / "server").create("")
    with pytest.raises(ConfigError) as nothing:
        AuthorityHome(tmp_path / "nowhere").read()
    assert (upon.value.code, under.value.code, nothing.value.code) == ("C034", "C034", "C035")


def test_a_file_that_is_no_card_is_named(tmp_path: Path) -> None:
    AuthorityHome(tmp_path / "authority").create("")
    (tmp_path / "altered").write_bytes((tmp_path / "authority" / CARD_FILE).read_bytes()[:-9] + b"\xff\n")
    with pytest.raises(ConfigError) as refused:
        read_card_file(tmp_path / "altered")
    assert (refused.value.code, refused.value.where) == ("C032", str(tmp_path / "altered"))


async def test_an_invite_needs_to_know_the_server(tmp_path: Path, clock: ManualClock) -> None:
    home = AuthorityHome(tmp_path)
    home.create("")
    async with AuthorityAdmin.open(home, migrate=True, clock=clock) as admin:
        with pytest.raises(ConfigError) as early:
            await admin.create_invite(Terms(1, 60), None)
    assert early.value.code == "C036"
