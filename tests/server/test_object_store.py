"""Blobs in an S3-compatible store: what the folder does, and what is said when it fails. moto plays the store."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedit_protocol.encoding import digest_of
from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError
from fedit_protocol.ids import ClientId, Digest, RoundId
from fedit_protocol.testing import STEPS, ManualClock
from fedit_server.config import ServerConfig
from fedit_server.home.folder import Home
from fedit_server.storage import BlobStore
from fedit_server.storage.disk import DiskBlobs
from fedit_server.storage.object_store import ObjectBlobs, open_bucket
from fedit_server.storage.opening import open_blobs, open_spool
from fedit_server.storage.spool import Slot
from fedit_server.tasks.base_model import read_folder

from ..object_store import FakeS3, fake_s3
from .bases import small_task
from .conftest import start
from .test_rounds import take_step

LARGE = bytes(range(256)) * 4096 * 12
"""12 MiB: more than one part."""


@pytest.fixture(scope="module")
def running() -> Iterator[FakeS3]:
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with fake_s3() as fake:
        yield fake


@pytest.fixture
def s3(running: FakeS3) -> FakeS3:
    running.forget()
    return running


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return DiskBlobs(tmp_path)
    fake: FakeS3 = request.getfixturevalue("s3")
    return ObjectBlobs(open_bucket(fake.make_bucket("ours") + "/fed", fake.credentials(tmp_path)), "s3://ours/fed")


async def test_a_blob_is_stored_once_read_in_ranges_listed_and_removed(blobs: BlobStore) -> None:
    await blobs.check()
    digest = await blobs.put(LARGE)
    assert await blobs.put(LARGE) == digest == digest_of(LARGE)
    assert await blobs.get(digest) == LARGE
    assert await blobs.size(digest) == len(LARGE)
    pieces = [piece async for piece in blobs.read(digest, 5, 3_000_000)]
    assert b"".join(pieces) == LARGE[5:3_000_000]
    assert len(pieces) > 1
    assert [piece async for piece in blobs.read(digest, 7, 7)] == []
    assert [(found.digest, found.size) async for found in blobs.stored()] == [(digest, len(LARGE))]
    await blobs.remove(digest)
    await blobs.remove(digest)
    assert [found async for found in blobs.stored()] == []


async def test_an_unknown_blob_is_told_as_one(blobs: BlobStore) -> None:
    await blobs.put(b"another")
    nothing = digest_of(b"nothing")
    for name in (nothing, Digest("../../etc/passwd"), Digest("sha256:" + "A" * 64)):
        with pytest.raises(ProtocolError) as unknown:
            await blobs.get(name)
        assert unknown.value.problem is ProblemType.UNKNOWN_BLOB
    with pytest.raises(ProtocolError):
        await blobs.size(nothing)
    with pytest.raises(ProtocolError):
        _ = [piece async for piece in blobs.read(nothing, 0, 1)]


async def test_a_changed_blob_is_found_when_it_is_read(s3: FakeS3, tmp_path: Path) -> None:
    store = open_bucket(s3.make_bucket("ours"), s3.credentials(tmp_path))
    blobs = ObjectBlobs(store, "s3://ours")
    digest = await blobs.put(b"adapter")
    await store.put_async(f"blobs/{digest[7:9]}/{digest[9:]}", b"altered")
    with pytest.raises(StorageError) as damaged:
        await blobs.get(digest)
    assert damaged.value.code == "S006"


class Answering(BaseHTTPRequestHandler):
    """Answers with the statuses of its server's list, and with the last of them for ever."""

    def answer(self) -> None:
        assert isinstance(self.server, StatusServer)
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = answer  # noqa: N815  the library's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class StatusServer(ThreadingHTTPServer):
    """A store that only ever answers with a status."""

    def __init__(self, *statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.statuses = list(statuses)


@contextmanager
def answering(*statuses: int) -> Iterator[str]:
    with StatusServer(*statuses) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def answering_403() -> Iterator[str]:
    with answering(403) as url:
        yield url


@pytest.fixture
def failing_twice() -> Iterator[str]:
    with answering(503, 500, 200) as url:
        yield url


async def told(blobs: BlobStore) -> StorageError:
    """Return what a failing store says, which is the same for every question."""
    with pytest.raises(StorageError) as check:
        await blobs.check()
    for question in (lambda: blobs.put(b"x"), lambda: blobs.get(digest_of(b"x"))):
        with pytest.raises(StorageError) as failed:
            await question()
        assert failed.value.code == check.value.code
    assert "secret-of-the-test" not in f"{check.value}{check.value.where}{check.value.fix}"
    return check.value


async def test_a_missing_bucket_is_named(s3: FakeS3, tmp_path: Path) -> None:
    error = await told(ObjectBlobs(open_bucket("s3://nobodys", s3.credentials(tmp_path)), "s3://nobodys"))
    assert (error.code, error.where) == ("S101", "s3://nobodys")


async def test_refused_access_is_told_and_never_the_secret(answering_403: str, tmp_path: Path) -> None:
    blobs = ObjectBlobs(open_bucket("s3://theirs", FakeS3(answering_403).credentials(tmp_path)), "s3://theirs")
    assert (await told(blobs)).code == "S102"


@pytest.mark.slow
async def test_a_store_that_is_gone_is_told(tmp_path: Path, unused_tcp_port: int) -> None:
    fake = FakeS3(f"http://127.0.0.1:{unused_tcp_port}")
    assert (await told(ObjectBlobs(open_bucket("s3://b", fake.credentials(tmp_path)), "s3://b"))).code == "S100"


async def test_a_fault_that_passes_is_retried(failing_twice: str, tmp_path: Path) -> None:
    store = open_bucket("s3://b", FakeS3(failing_twice).credentials(tmp_path))
    assert await ObjectBlobs(store, "s3://b").put(b"x") == digest_of(b"x")


def test_settings_choose_the_place(tmp_path: Path, s3: FakeS3) -> None:
    home = Home(tmp_path)
    assert isinstance(open_blobs(ServerConfig.load({"home": tmp_path}, {}), home), DiskBlobs)
    flags = {"home": tmp_path, "blobs": "s3://bucket/a/b", "blobs_credentials_file": str(s3.credentials(tmp_path))}
    assert isinstance(open_blobs(ServerConfig.load(flags, {}), home), ObjectBlobs)
    for wrong in ("s3://", "bucket", "s3://key:secret@bucket", "https://x/y", "s3://b?x=1"):
        with pytest.raises(ConfigError):
            ServerConfig.load({"home": tmp_path, "blobs": wrong}, {})


@pytest.mark.parametrize("text", ["", "no ini", "[default]\nregion = x\n", None])
def test_a_credentials_file_that_cannot_be_used_is_named(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as wrong:
        open_bucket("s3://b", path)
    assert (wrong.value.code, wrong.value.where) == ("C101", str(path))


async def test_a_round_goes_on_with_its_uploads_on_a_machine_that_never_received_them(
    s3: FakeS3, tmp_path: Path
) -> None:
    url, content = s3.make_bucket("ours"), b"masked words" * 1000
    flags = {"home": tmp_path, "blobs": url, "blobs_credentials_file": str(s3.credentials(tmp_path))}
    config = ServerConfig.load({**flags, "copy_uploads": True}, {})
    first, second = (open_spool(config, Home(tmp_path / name)) for name in ("first", "second"))
    slot = Slot(RoundId("a" * 32), ClientId("b" * 64), 1, len(content), hashlib.sha256(content).digest())
    writing = await first.begin(slot, 0)
    assert writing is not None
    await writing.append(content)
    await writing.complete()
    await first.keep(slot)
    await writing.stop()
    first.end(writing)
    assert await first.begin(slot, 0) is None
    await second.take_up(slot.round_id)
    await second.take_up(slot.round_id)
    assert second.content(slot) == content
    assert second.copies is not None
    assert await second.copies.rounds() == {slot.round_id}
    await second.discard(slot.round_id)
    assert await second.copies.rounds() == set()


@pytest.mark.slow
@pytest.mark.sqlite
async def test_a_round_has_its_adapters_in_the_bucket_and_waits_while_that_is_gone(
    s3: FakeS3, tmp_path: Path, base: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def waits() -> bool:
        return "there is no such bucket" in caplog.text

    url = s3.make_bucket("ours")
    settings = {"blobs": url, "blobs_credentials_file": str(s3.credentials(tmp_path))}
    async with start(tmp_path / "home", clock, small_task(base), settings=settings) as running:
        devices, blobs = await running.join(3), running.parts.blobs
        (task,) = await running.parts.store.tasks.tasks()
        first, manifest = (
            (await running.parts.store.tasks.newest_adapter(task.task_id)).digest,
            read_folder(base).digest,
        )
        assert {found.digest async for found in blobs.stored()} == {first, manifest}
        content = await blobs.get(first)
        for device, offer in zip(devices, await asyncio.gather(*(d.offer() for d in devices)), strict=True):
            device.accept(offer)
        for step in STEPS[:-1]:
            await take_step(running, devices, step, {})
        s3.forget()  # and with it the bucket
        await take_step(running, devices, STEPS[-1], {})
        await running.until(waits)
        s3.make_bucket("ours")
        assert await blobs.put(content) == first
        results = [await device.result() for device in devices]
        assert {result.adapter_version for result in results} == {1}
        assert {found.digest async for found in blobs.stored()} == {first, results[0].adapter_digest}
        assert list((tmp_path / "home" / "blobs").iterdir()) == []
