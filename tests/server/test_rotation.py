"""`fedit-server keys rotate`: a new key that the old one vouches for, whole after a crash at every step."""

import asyncio
from pathlib import Path

import pytest

from fedit_protocol.encoding import decode, digest_of
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ConfigError, StorageError
from fedit_protocol.messages import RoundOutcome
from fedit_protocol.signing import SigningKey
from fedit_protocol.succession import Successions, check_successor
from fedit_protocol.testing import ManualClock
from fedit_server.clock import unix_seconds
from fedit_server.home.folder import Home, create_identity, load_identity
from fedit_server.keys import rotation
from fedit_server.keys.rotation import finish_rotation, replace_lost_key, rotate, rotate_server_key

from .bases import small_task
from .conftest import start
from .devices import one_hot
from .test_checkin import SIZE


async def test_a_federation_goes_on_under_a_new_key(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    """Members keep certificates and places; the next round is signed by the new key, and its result verifies."""
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        old = [(device.key, device.certificate) for device in await running.join(3)]
        pin = running.parts.identity.pin
    identity = await rotate(Home(home), lost=False)
    async with start(home, clock) as running:
        shown = await running.device().call("GET", "/v1/federation")
        told = decode(Successions, await running.device().call("GET", "/v1/federation/successions"))
        assert check_successor(pin, shown, told) == identity.descriptor
        devices = [running.device() for _ in old]
        for device, (key, certificate) in zip(devices, old, strict=True):
            device.key, device.certificate = key, certificate
        await asyncio.gather(*(d.take_part(one_hot(SIZE, place)) for place, d in enumerate(devices)))
        result = await devices[0].result()
    assert result.outcome is RoundOutcome.COMMITTED
    assert identity.pin != pin


async def test_a_round_that_is_open_is_ended_first(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    home = tmp_path / "home"
    async with start(home, clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
    before = Home(home).descriptor.read_bytes()
    with pytest.raises(ConfigError) as open_round:
        await rotate(Home(home), lost=False)
    assert open_round.value.code == "U028"
    assert Home(home).descriptor.read_bytes() == before


async def test_a_running_server_keeps_its_key(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    create_identity(home, "one", clock())
    with home.lock(), pytest.raises(StorageError) as locked:
        await rotate(home, lost=False)
    assert locked.value.code == "S002"


class PowerCutError(Exception):
    """The machine stops here."""


@pytest.mark.parametrize("survives", range(4))
def test_a_change_that_was_cut_off_is_completed_or_undone(
    survives: int, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `survives` files of the new key, the successions and the descriptor, the power goes."""
    home = Home(tmp_path)
    before = create_identity(home, "one", clock())
    write, written = rotation.write_atomically, []  # type: ignore[attr-defined, var-annotated]  # the module's own import

    def failing(path: Path, content: bytes) -> None:
        if len(written) == survives:
            raise PowerCutError
        write(path, content)
        written.append(path.name)

    with monkeypatch.context() as cut:
        cut.setattr(rotation, "write_atomically", failing)
        if survives < 3:
            with pytest.raises(PowerCutError):
                rotate_server_key(home, unix_seconds(clock()))
        else:
            rotate_server_key(home, unix_seconds(clock()))
    finish_rotation(home)
    after = load_identity(home)
    decided = survives >= 2
    assert (after.pin != before.pin) is decided
    assert not (home.keys / "server.next.key").exists()
    successor = check_successor(before.pin, after.descriptor_bytes, after.successions)
    assert successor == (after.descriptor if decided else None)
    rotate_server_key(home, unix_seconds(clock()))


def test_two_changes_make_one_line(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    first = create_identity(home, "one", clock())
    rotate_server_key(home, unix_seconds(clock()))
    last = rotate_server_key(home, unix_seconds(clock()))
    assert check_successor(first.pin, last.descriptor_bytes, last.successions) == last.descriptor
    assert last.descriptor.authority_key == first.descriptor.authority_key
    assert last.keys.server.public != first.keys.server.public


def test_the_old_key_is_gone_from_the_disk(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    old = create_identity(home, "one", clock()).keys.server.secret_bytes()
    rotate_server_key(home, unix_seconds(clock()))
    assert all(old not in path.read_bytes() for path in home.root.rglob("*") if path.is_file())


def test_after_a_lost_key_nobody_vouches_for_the_new_one(tmp_path: Path, clock: ManualClock) -> None:
    home = Home(tmp_path)
    first = create_identity(home, "one", clock())
    with pytest.raises(ConfigError) as not_lost:
        replace_lost_key(home)
    assert not_lost.value.code == "U029"
    (home.keys / "server.key").unlink()
    after = replace_lost_key(home)
    assert digest_of(home.descriptor.read_bytes()) == after.pin != first.pin
    assert check_successor(first.pin, after.descriptor_bytes, after.successions) is None
    same = decode(FederationDescriptor, first.descriptor_bytes).model_copy(
        update={"server_key": after.keys.server.public}
    )
    assert after.descriptor == same
    assert isinstance(after.keys.server, SigningKey)
