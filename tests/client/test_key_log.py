"""C7 on the device: each head continues the last one seen, which is on disk, or nothing is sent (row 33)."""

from pathlib import Path

import pytest

from fedit_client.membership.key_log import LogWatch, SeenLog
from fedit_client.network.patience import RoundLostError
from fedit_client.testing import LoopbackServer, LoopbackTransport
from fedit_protocol.errors import ProblemType, SecurityError, StorageError
from fedit_protocol.keylog import LogState
from fedit_protocol.signing import SigningKey
from fedit_protocol.testing import MemoryFederation, small_task

NOW_S = 1_800_000_000


def stranger(number: int) -> SigningKey:
    return SigningKey(bytes([number]) * 32)


@pytest.fixture
def federation() -> MemoryFederation:
    return MemoryFederation(3)


@pytest.fixture
def transport(federation: MemoryFederation) -> LoopbackTransport:
    return LoopbackServer(federation, small_task(3)).transport(federation.devices[0].public)


def watch(folder: Path, federation: MemoryFederation) -> LogWatch:
    return LogWatch(folder / "log.json", federation.descriptor, federation.log_head())


async def test_a_log_that_grew_is_followed_and_remembered(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    seen = watch(tmp_path, federation)
    federation.enroll(stranger(1).public)
    federation.revoke(federation.devices[2].public)
    view = await seen.follow(transport, federation.log_head())
    assert (view.devices, view.revoked) == (3, frozenset({2}))
    kept = SeenLog.load(tmp_path / "log.json")
    assert kept == SeenLog(federation.log_head(), 3)


def truncated(federation: MemoryFederation) -> LogState:
    return LogState(federation.log.leaves[:-1], federation.log.revoked)


def forked(federation: MemoryFederation) -> LogState:
    """The same size, another last entry."""
    return LogState((*federation.log.leaves[:-1], bytes(32)), federation.log.revoked)


@pytest.mark.parametrize("change", [truncated, forked], ids=["truncated", "forked"])
async def test_row_33_a_log_that_does_not_continue_is_an_alarm_also_after_a_restart(
    change: object, tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    await watch(tmp_path, federation).follow(transport, federation.log_head())
    federation.log = change(federation)  # type: ignore[operator]  # one of the two above
    restarted = LogWatch(tmp_path / "log.json", federation.descriptor, federation.log_head())
    with pytest.raises(SecurityError) as alarm:
        await restarted.follow(transport, federation.log_head())
    assert alarm.value.code == "T014"
    assert alarm.value.problem is ProblemType.CONTEXT_MISMATCH


async def test_row_33_a_fork_that_grows_on_is_an_alarm(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    seen = watch(tmp_path, federation)
    await seen.follow(transport, federation.log_head())
    federation.log = forked(federation)
    for number in range(1, 4):
        federation.enroll(stranger(number).public)
    with pytest.raises(SecurityError) as alarm:
        await seen.follow(transport, federation.log_head())
    assert alarm.value.code == "T014"


async def test_an_offer_on_an_older_state_of_the_same_log_is_no_alarm_and_not_joined(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    older = federation.log_head()
    seen = watch(tmp_path, federation)
    federation.revoke(federation.devices[1].public)
    await seen.follow(transport, federation.log_head())
    with pytest.raises(RoundLostError, match="older list"):
        await seen.follow(transport, older)


async def test_revocations_that_are_held_back_are_an_alarm(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    seen = watch(tmp_path, federation)
    federation.revoke(federation.devices[1].public)
    head = federation.log_head()
    federation.log = LogState(federation.log.leaves, ())
    with pytest.raises(SecurityError, match="not the authority's"):
        await seen.follow(transport, head)


async def test_a_device_finds_itself_in_the_log(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    own = federation.certificate(federation.devices[0].public)
    assert (await watch(tmp_path, federation).check_own(transport, own, NOW_S)).devices == 3
    strange = federation.certificate(stranger(9).public)
    with pytest.raises(SecurityError, match="not in the authority"):
        await watch(tmp_path, federation).check_own(transport, strange, NOW_S)


async def test_a_revoked_device_is_told_so(
    tmp_path: Path, federation: MemoryFederation, transport: LoopbackTransport
) -> None:
    own = federation.devices[0].public
    federation.revoke(own)
    with pytest.raises(SecurityError, match="revoked") as told:
        await watch(tmp_path, federation).check_own(transport, federation.certificate(own), NOW_S)
    assert told.value.code == "T008"


def test_a_damaged_file_is_not_forgotten_silently(tmp_path: Path, federation: MemoryFederation) -> None:
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(StorageError) as told:
        watch(tmp_path, federation)
    assert told.value.code == "S015"
