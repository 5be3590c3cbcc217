"""GET /v1/blobs: ranges, resume, caching, and a line that is cut; the store in a bucket is read by the same route."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from fedit_protocol.base_files import read_manifest
from fedit_protocol.change import apply_change
from fedit_protocol.encoding import digest_of
from fedit_protocol.ids import Digest
from fedit_protocol.testing import ManualClock
from fedit_server.adapters.changes import Changes
from fedit_server.adapters.tensors import from_safetensors
from fedit_server.problems import problems
from fedit_server.routes.blobs import ROUTES
from fedit_server.routes.keys import BLOBS, CHANGES, PUBLIC_BLOBS
from fedit_server.storage import BlobStore
from fedit_server.storage.disk import DiskBlobs

from ..protocol.test_change import neighbours
from .bases import small_task
from .conftest import gone, start
from .test_rounds import play

CONTENT = b"0123456789" * 100
DIGEST = digest_of(CONTENT)
PATH = f"/v1/blobs/{DIGEST}"
TAG = f'"{DIGEST}"'

RANGES = {
    "the whole": ({}, 200, CONTENT, None),
    "from an offset on": ({"Range": "bytes=990-"}, 206, CONTENT[990:], "bytes 990-999/1000"),
    "one byte": ({"Range": "bytes=0-0"}, 206, b"0", "bytes 0-0/1000"),
    "beyond the end, cut there": ({"Range": "bytes=995-5000"}, 206, b"56789", "bytes 995-999/1000"),
    "the last five": ({"Range": "bytes=-5"}, 206, b"56789", "bytes 995-999/1000"),
    "more of the end than there is": ({"Range": "bytes=-5000"}, 200, CONTENT, None),
    "from the end": ({"Range": "bytes=1000-"}, 416, b"", "bytes */1000"),
    "the last none": ({"Range": "bytes=-0"}, 416, b"", "bytes */1000"),
    "of this version": ({"Range": "bytes=5-9", "If-Range": TAG}, 206, b"56789", "bytes 5-9/1000"),
    "of another version": ({"Range": "bytes=5-9", "If-Range": '"other"'}, 200, CONTENT, None),
    "two ranges": ({"Range": "bytes=0-1,5-6"}, 200, CONTENT, None),
    "another unit": ({"Range": "rows=0-1"}, 200, CONTENT, None),
    "backwards": ({"Range": "bytes=9-5"}, 200, CONTENT, None),
    "no numbers": ({"Range": "bytes=-"}, 200, CONTENT, None),
    "known already": ({"If-None-Match": f'W/{TAG}, "x"'}, 304, b"", None),
    "another is known": ({"If-None-Match": '"x"'}, 200, CONTENT, None),
}


@asynccontextmanager
async def public(blobs: BlobStore) -> AsyncIterator[ClientSession]:
    """The route alone, open to everybody."""
    app = web.Application(middlewares=[problems])
    app[BLOBS], app[PUBLIC_BLOBS], app[CHANGES] = blobs, True, Changes(blobs)
    app.add_routes(ROUTES)
    server = TestServer(app)
    await server.start_server()
    async with ClientSession(server.make_url("/")) as anybody:
        yield anybody
    await gone(server)
    await server.close()


async def test_a_range_is_answered_as_http_says(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    await blobs.put(CONTENT)
    async with public(blobs) as anybody:
        for name, (headers, status, content, span) in RANGES.items():
            for method in ("GET", "HEAD"):
                async with anybody.request(method, PATH, headers=headers) as answer:
                    assert answer.status == status, name
                    assert answer.headers.get("Content-Range") == span, name
                    assert answer.headers["ETag"] == TAG
                    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
                    assert answer.headers["Accept-Ranges"] == "bytes"
                    assert await answer.read() == (content if method == "GET" else b""), name
                    if status in (200, 206):
                        assert answer.headers["Content-Length"] == str(len(content)), name


async def test_a_blob_is_for_enrolled_devices_and_their_own_cache_only(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        await running.parts.blobs.put(CONTENT)
        async with running.http.get(PATH) as refused:
            assert refused.status == 401
        device = (await running.join(1))[0]
        answer, content = await device.ask("GET", PATH, Range="bytes=5-9")
        assert (answer.status, content) == (206, b"56789")
        assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"


async def test_the_manifest_of_a_base_is_for_everybody_and_lies_under_the_digest_that_the_task_pins(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        (task,) = await running.parts.store.tasks.tasks()
        place, adapter = f"/v1/blobs/{task.document.task.base.digest}", await running.parts.blobs.put(CONTENT)
        async with running.http.get(place) as answer:
            content = await answer.read()
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
        files = read_manifest(content)
        assert files == {path.name: digest_of(path.read_bytes()) for path in base.iterdir()}
        async with running.http.get(place, headers={"Range": "bytes=40-"}) as answer:
            assert (answer.status, await answer.read()) == (206, content[40:])
        # A change from an adapter would tell what is in it.
        asked = {"A-IM": "fedit-delta", "If-None-Match": f'"{adapter}"'}
        async with running.http.get(place, headers=asked) as answer:
            assert (answer.status, await answer.read()) == (200, content)


class Shrinking(DiskBlobs):
    """Says that a blob has more bytes than it has, as a disk that lost its end would."""

    async def size(self, digest: Digest) -> int:
        return await super().size(digest) + 1_000_000


async def test_a_blob_that_ends_too_early_cuts_the_line_and_puts_no_error_into_the_bytes(tmp_path: Path) -> None:
    blobs = Shrinking(tmp_path)
    await blobs.put(CONTENT)
    async with public(blobs) as anybody, anybody.get(PATH) as answer:
        assert await answer.content.read(1000) == CONTENT
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


CHANGES_ASKED = {
    "a version that is here": ({"A-IM": "fedit-delta", "If-None-Match": "OLD"}, 226),
    "among other ways": ({"A-IM": "gzip, fedit-delta", "If-None-Match": "OLD"}, 226),
    "another way only": ({"A-IM": "gzip", "If-None-Match": "OLD"}, 200),
    "no version named": ({"A-IM": "fedit-delta"}, 200),
    "a version that is not here": ({"A-IM": "fedit-delta", "If-None-Match": f'"{digest_of(b"none")}"'}, 200),
    "not asked for": ({"If-None-Match": "OLD"}, 200),
    "a range": ({"A-IM": "fedit-delta", "If-None-Match": "OLD", "Range": "bytes=1-"}, 206),
    "the version itself": ({"A-IM": "fedit-delta", "If-None-Match": "NEW"}, 304),
}


async def test_a_change_is_sent_to_who_asks_for_it_and_makes_the_same_bytes(tmp_path: Path) -> None:
    blobs, (old, new) = DiskBlobs(tmp_path), neighbours(16)
    before, after = await blobs.put(old), await blobs.put(new)
    async with public(blobs) as anybody:
        for name, (asked, status) in CHANGES_ASKED.items():
            tags = {"OLD": f'"{before}"', "NEW": f'"{after}"'}
            headers = {key: tags.get(value, value) for key, value in asked.items()}
            async with anybody.get(f"/v1/blobs/{after}", headers=headers) as answer:
                assert answer.status == status, name
                content = await answer.read()
                if status == 226:
                    assert apply_change(old, content, len(new)) == new
                    assert len(content) < 0.45 * len(new)
                    assert (answer.headers["IM"], answer.headers["Delta-Base"]) == ("fedit-delta", f'"{before}"')
                    assert (answer.headers["ETag"], answer.headers["Cache-Control"]) == (f'"{after}"', "no-store")


async def test_a_change_that_is_no_smaller_is_not_sent(tmp_path: Path) -> None:
    blobs, generator = DiskBlobs(tmp_path), np.random.default_rng(1)
    old, new = await blobs.put(generator.bytes(9000)), await blobs.put(generator.bytes(9000))
    headers = {"A-IM": "fedit-delta", "If-None-Match": f'"{old}"'}
    async with public(blobs) as anybody, anybody.get(f"/v1/blobs/{new}", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.slow
async def test_a_new_adapter_lies_on_the_grid_that_the_operator_chose(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base), settings={"adapter_grid": 12}) as running:
        devices = await running.join(3)
        await play(running, devices, {})
        result = await devices[0].result()
        (task,) = await running.parts.store.tasks.tasks()
        content = await running.parts.blobs.get(result.adapter_digest)
        numbers = from_safetensors(task.document.layout, content)
        assert np.array_equal(np.rint(numbers * 2**12), numbers * 2**12)
        assert numbers.any()
