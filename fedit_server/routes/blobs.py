"""Blobs by digest: a range or the whole, streamed from wherever they lie, as caches understand it (RFC 9110).

A blob never changes, so its digest is its ETag, and a copy is good for ever. Without `blobs_public` only enrolled
devices get an adapter, and only their own caches may keep it. The manifest of a base is for everybody, as its task is.
"""

import asyncio
import logging
import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from fedit_protocol.base_files import MANIFEST_HEAD, MOST_MANIFEST_BYTES
from fedit_protocol.change import NAME
from fedit_protocol.errors import FeditError, ProtocolError
from fedit_protocol.ids import Digest
from fedit_server.routes.keys import BLOBS, CHANGES, PUBLIC_BLOBS
from fedit_server.routes.wire import caller
from fedit_server.storage import BlobStore

_SLOW_S: Final = 60.0
"""How long a reader may take for one piece before its connection is given up."""

log = logging.getLogger(__name__)

_FOR_EVER: Final = "max-age=31536000, immutable"
_TAG: Final = re.compile(r'"(sha256:[0-9a-f]{64})"', re.ASCII)
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


@dataclass(frozen=True)
class Span:
    """The bytes from `start` to before `stop` of a whole that has `size`."""

    start: int
    stop: int
    size: int

    @property
    def is_whole(self) -> bool:
        """Say whether nothing is left out."""
        return (self.start, self.stop) == (0, self.size)


async def blob(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /v1/blobs/{digest}: 200; 206 one range; 226 a change; 304 it is known; 416 beyond the end."""
    digest = Digest(request.match_info["digest"])
    manifest = await _is_manifest(request.app[BLOBS], digest)
    public = manifest or request.app[PUBLIC_BLOBS]
    if not public:
        await caller(request)
    size = await request.app[BLOBS].size(digest)
    tag = f'"{digest}"'
    headers = {
        "ETag": tag,
        "Cache-Control": f"{'public' if public else 'private'}, {_FOR_EVER}",
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
    }
    if _names(request.headers.get("If-None-Match", ""), tag):
        return web.Response(status=304, headers=headers)
    # What changed from an adapter to a manifest would tell the adapter.
    if not manifest and (change := await _change(request, digest)) is not None:
        return change
    span = _span(request, size, tag)
    if span is None:
        return web.Response(status=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    answer = web.StreamResponse(status=200 if span.is_whole else 206, headers=headers)
    answer.content_length = span.stop - span.start
    if not span.is_whole:
        answer.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
    await answer.prepare(request)
    if request.method != "HEAD":
        await _send(answer, request, digest, span)
    return answer


async def _is_manifest(blobs: BlobStore, digest: Digest) -> bool:
    """Say whether a blob is the manifest of a base model: people look at a task's base before they agree and enrol.

    Its first bytes tell it from every adapter; whoever asks for a digest that is not here learns nothing by that.
    """
    try:
        if not len(MANIFEST_HEAD) <= await blobs.size(digest) <= MOST_MANIFEST_BYTES:
            return False
        head = b"".join([piece async for piece in blobs.read(digest, 0, len(MANIFEST_HEAD))])
    except ProtocolError:
        return False
    return head == MANIFEST_HEAD


async def _change(request: web.Request, digest: Digest) -> web.Response | None:
    """Answer a device that holds another version and asks for the change only (RFC 3229); None: send the whole.

    It is 226 and not 200, so that no cache and no client that has not asked takes it for the adapter.
    """
    held = _TAG.fullmatch(request.headers.get("If-None-Match", ""))
    asked = {one.strip() for one in request.headers.get("A-IM", "").split(",")}
    if held is None or NAME not in asked or "Range" in request.headers:
        return None
    content = await request.app[CHANGES].between(Digest(held[1]), digest)
    if content is None:
        return None
    said = {"IM": NAME, "Delta-Base": held[0], "ETag": f'"{digest}"', "Cache-Control": "no-store"}
    return web.Response(status=226, body=content, headers=said, content_type="application/octet-stream")


async def _send(answer: web.StreamResponse, request: web.Request, digest: Digest, span: Span) -> None:
    """Write piece by piece; the line is cut when a piece is not taken in time, or is not there."""
    try:
        async for piece in request.app[BLOBS].read(digest, span.start, span.stop):
            async with asyncio.timeout(_SLOW_S):
                await answer.write(piece)
    except (FeditError, TimeoutError) as error:
        log.warning("a download was cut: %s", str(error) or "its reader stands still")
        if request.transport is not None:  # the head of the answer has gone: only a cut line can say so now
            request.transport.abort()


def _span(request: web.Request, size: int, tag: str) -> Span | None:
    """Return what is asked for; the whole where the question is none that this answers, None beyond the end.

    Several ranges, other units and a range of another version are answered with the whole (RFC 9110, 13.1.5 and 14.2).
    """
    asked = _RANGE.fullmatch(request.headers.get("Range", ""))
    if asked is None or request.headers.get("If-Range", tag) != tag or asked[0] == "bytes=-":
        return Span(0, size, size)
    first, last = asked.groups()
    if not first:  # the last so many bytes
        return Span(max(size - int(last), 0), size, size) if int(last) and size else None
    if last and int(last) < int(first):
        return Span(0, size, size)
    if int(first) >= size:
        return None
    return Span(int(first), min(int(last) + 1, size) if last else size, size)


def _names(header: str, tag: str) -> bool:
    named = {one.strip().removeprefix("W/") for one in header.split(",")}
    return tag in named or "*" in named


ROUTES: Final = (web.get("/v1/blobs/{digest}", blob),)
