"""The folder of uploads: appended, taken over, kept, deleted; and a disk that is really full."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import ClientId, IdentityKey, RoundId
from fedit_server.storage.spool import Slot, Spool, Writing


def slot_of(content: bytes, client: str = "ab" * 32) -> Slot:
    digest = bytes.fromhex(digest_of(content).removeprefix("sha256:"))
    return Slot(RoundId("0" * 32), ClientId(client), 1, len(content), digest)


async def begun(spool: Spool, slot: Slot, offset: int = 0) -> Writing:
    writing = await spool.begin(slot, offset)
    assert writing is not None
    return writing


async def write(spool: Spool, slot: Slot, content: bytes, offset: int = 0) -> None:
    writing = await begun(spool, slot, offset)
    try:
        await writing.append(content)
        await writing.complete()
    finally:
        await writing.stop()
        spool.end(writing)


async def test_a_second_connection_takes_over_from_the_first(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), b"0123456789"
    first = await begun(spool, slot_of(content))
    await first.append(content[:4])
    second = await begun(spool, slot_of(content), 4)
    with pytest.raises(ProtocolError) as refused:
        await first.append(content[4:])
    assert refused.value.problem is ProblemType.OFFSET_MISMATCH
    await second.append(content[4:])
    await second.complete()
    await second.stop()


async def test_a_request_that_was_overtaken_takes_nothing_back(tmp_path: Path) -> None:
    """A PUT may begin after the one that followed it: its line is dead, and its bytes are known."""
    spool, content = Spool(tmp_path), b"0123456789"
    newer = await begun(spool, slot_of(content))
    await newer.append(content[:6])
    older = await begun(spool, slot_of(content), 2)
    await older.append(content[2:5])
    await older.stop()
    assert spool.received(slot_of(content).round_id, slot_of(content).client, 1) == 6
    await write(spool, slot_of(content), content[4:], offset=4)
    assert await spool.begin(slot_of(content), 10) is None


async def test_what_is_held_in_memory_is_written_when_the_offset_is_asked_for(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), b"0123456789"
    slot = slot_of(content)
    writing = await begun(spool, slot)
    writing.hold(content[:4])
    await spool.catch_up(slot.round_id, slot.client, 1)
    assert spool.received(slot.round_id, slot.client, 1) == 4
    writing.hold(content[4:7])
    await writing.stop()
    assert spool.received(slot.round_id, slot.client, 1) == 7


async def test_of_two_connections_at_the_same_time_one_writes(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), b"0123456789"
    first, second = await asyncio.gather(begun(spool, slot_of(content)), begun(spool, slot_of(content)))
    with pytest.raises(ProtocolError) as refused:
        await first.append(b"!")
    assert refused.value.problem is ProblemType.OFFSET_MISMATCH
    await second.append(content)
    await second.complete()
    await second.stop()


async def test_a_whole_upload_is_never_opened_for_writing_again(tmp_path: Path) -> None:
    spool, slot = Spool(tmp_path), slot_of(b"whole")
    first = await begun(spool, slot)
    await first.append(b"whole")
    _, second = await asyncio.gather(first.complete(), spool.begin(slot, 0))  # a second PUT, while the first completes
    await first.stop()
    for again in (spool, Spool(tmp_path)):
        assert second is None
        second = await again.begin(slot, 0)
        assert again.received(slot.round_id, slot.client, 1) == 5
        stored = next(path for path in tmp_path.rglob("*") if path.is_file())
        assert stored.read_bytes() == b"whole"


async def test_an_upload_that_a_crash_left_unnamed_goes_on_at_its_end(tmp_path: Path) -> None:
    slot = slot_of(b"whole")
    first = await begun(Spool(tmp_path), slot)
    await first.append(b"whole")
    await first.stop()
    spool = Spool(tmp_path)
    assert spool.received(slot.round_id, slot.client, 1) == 5
    await write(spool, slot, b"", offset=5)
    assert await spool.begin(slot, 5) is None


async def test_an_ended_round_takes_no_uploads(tmp_path: Path) -> None:
    """Neither from a request that is writing at the end, nor from one that was let in just before it (S9)."""
    spool, slot = Spool(tmp_path), slot_of(b"whole")
    writing = await begun(spool, slot)
    late = asyncio.create_task(begun(spool, slot_of(b"other", "cd" * 32)))
    await asyncio.sleep(0)
    await spool.discard(slot.round_id)
    calls = [writing.append(b"whole"), (await late).append(b"other"), spool.begin(slot, 0)]
    for call in calls:
        with pytest.raises(ProtocolError) as refused:
            await call
        assert refused.value.problem is ProblemType.TOO_LATE
    assert list(tmp_path.iterdir()) == []


async def test_a_device_cannot_replace_its_upload(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await write(spool, slot_of(b"first"), b"first")
    with pytest.raises(ProtocolError) as refused:
        await spool.begin(slot_of(b"other"), 0)
    assert refused.value.problem is ProblemType.CONFLICT


async def test_the_reader_sees_each_members_bytes(tmp_path: Path) -> None:
    spool, content = Spool(tmp_path), bytes(range(6))
    await write(spool, slot_of(content), content)
    reader = spool.reader([slot_of(content)])
    assert reader(IdentityKey(bytes.fromhex("ab" * 32)), 2, 5).tolist() == [2, 3, 4]


async def test_only_open_rounds_keep_their_uploads(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await write(spool, slot_of(b"first"), b"first")
    await spool.discard_all_but([RoundId("1" * 32)])
    assert list(tmp_path.iterdir()) == []


# A file-size limit is the full disk that a test can have: the system really refuses the write, halfway.
FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from fedit_protocol.errors import StorageError
from fedit_server.problems import as_problem
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.spool import Slot, Spool

async def main():
    content, spool = b"x" * 100_000, Spool(Path(sys.argv[1]) / "spool")
    import hashlib
    slot = Slot("0" * 32, "ab" * 32, 1, len(content), hashlib.sha256(content).digest())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    writing = await spool.begin(slot, 0)
    try:
        await writing.append(content)
        raise SystemExit("the disk took everything")
    except StorageError as error:
        print(error.code, as_problem(error).problem.title_text)
    await writing.stop(); spool.end(writing)
    try:
        await DiskBlobs(Path(sys.argv[1]) / "blobs").put(content)
    except StorageError as error:
        print(error.code, [p for p in (Path(sys.argv[1]) / "blobs").rglob("*") if p.is_file()])
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stored = spool.received(slot.round_id, slot.client, 1)
    writing = await spool.begin(slot, stored)
    await writing.append(content[stored:])
    await writing.complete()
    await writing.stop()
    print(stored, spool.received(slot.round_id, slot.client, 1))

asyncio.run(main())
"""


def test_a_full_disk_is_said_and_the_upload_goes_on_when_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["S004 store full", "S004 []", "60000 100000"], done.stderr
