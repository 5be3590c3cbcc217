"""Updates, masked or sealed: checked before the body is read, appended to the spool, counted once they are on disk."""

import asyncio
from typing import Final

from aiohttp import StreamReader, web

from fedit_protocol.encoding import from_base64url
from fedit_protocol.errors import ProblemType, ProtocolError
from fedit_protocol.ids import IdentityKey, client_id, identity_key
from fedit_server.access.requests import METRICS
from fedit_server.rounds.driver import Driver, Machine
from fedit_server.routes.keys import COORDINATOR, SPOOL
from fedit_server.routes.rounds import cohort_of, round_id, sum_index
from fedit_server.routes.wire import caller, cbor
from fedit_server.storage.spool import Slot, Writing

IDLE_TIMEOUT_S: Final = 60.0
"""How long a batch of an upload may take before its connection is given up; what arrived stays."""

_BATCH_BYTES: Final = 1024 * 1024
"""How much of an upload waits in memory for its turn to be written, times spool.MOST_IN_FLIGHT in all."""
_BATCH_CHUNKS: Final = _BATCH_BYTES // (
    16 * 1024
)  # TLS records; who sends single bytes costs no more memory than others
_MOST_HEADER_CHARACTERS: Final = 1024
_UPLOADS: Final = "/v1/rounds/{round_id:[0-9a-f]{32}}/uploads/{sum_index}"


async def put(request: web.Request) -> web.Response:
    """PUT uploads/{j}: append from `Upload-Offset` on; the whole upload is answered with its receipt."""
    header, offset = _header(request), _offset(request)
    cohort = await cohort_of(request, header)
    opened = await cohort.read(lambda machine: machine.check_upload(header, cohort.now()))
    if opened.sum_index != sum_index(request):
        raise ProtocolError(ProblemType.CONTEXT_MISMATCH, "the path and the header name different sums")
    slot = cohort.slot(header, opened)
    if request.content_length is not None and offset + request.content_length > slot.length:
        raise ProtocolError(ProblemType.TOO_LARGE, f"the upload exceeds the {slot.length} bytes it announced")
    async with request.app[SPOOL].turns:
        await store(request, slot, offset)
    await cohort.handle(lambda machine, now: machine.on_upload(header, now))
    return cbor(await _receipt(cohort, identity_key(slot.client), slot.sum_index))


async def head(request: web.Request) -> web.Response:
    """HEAD uploads/{j}: how many bytes of the caller's upload are stored."""
    key = await caller(request)
    await request.app[COORDINATOR].live(round_id(request))
    upload = round_id(request), client_id(key), sum_index(request)
    await request.app[SPOOL].catch_up(*upload)
    stored = request.app[SPOOL].received(*upload)
    # Without a length the client would take the end of the line for the end of the answer, and PUT on a new one.
    headers = {"Upload-Offset": str(stored), "Content-Length": "0", "Cache-Control": "no-store"}
    return web.Response(headers=headers)


async def store(request: web.Request, slot: Slot, offset: int) -> None:
    """Append the request's body to the spool; returns once the whole upload is on disk with its digest."""
    spool = request.app[SPOOL]
    writing = await spool.begin(slot, offset)
    if writing is None:
        await _skip(request, slot.length)
        return
    try:
        cut = await _append(request.content, writing)
        if writing.offset < slot.length:
            raise cut or ProtocolError(
                ProblemType.OFFSET_MISMATCH, f"{writing.offset} of {slot.length} bytes are stored; send the rest"
            )
        await writing.complete()
        await spool.keep(slot)
    finally:
        request.app[METRICS].uploaded(writing.offset - offset)
        await writing.stop()
        spool.end(writing)


async def _append(content: StreamReader, writing: Writing) -> ConnectionError | None:
    """Write batch by batch and join nothing: a thread per chunk, and copies, would cost more than the bytes.

    Returns what cut the line, if something did: all that had arrived is written then, and it may be everything.
    """
    try:
        while not content.at_eof():
            # One limit for a whole batch: who sends byte by byte may not hold a turn for ever.
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                await _fill(content, writing)
            await writing.flush()
    except OSError as error:  # also a TimeoutError, and what TLS says of a line that ends too early
        cut = content.exception()
        writing.hold(_unread(content))
        await writing.flush()
        if cut is None:
            raise _too_slow(writing.offset) from error
        return ConnectionResetError(f"the line was cut after {writing.offset} bytes")
    return None


async def _fill(content: StreamReader, writing: Writing) -> None:
    size = chunks = 0
    while size < _BATCH_BYTES and chunks < _BATCH_CHUNKS and (chunk := await content.readany()):
        writing.hold(chunk)
        size += len(chunk)
        chunks += 1


def _unread(content: StreamReader) -> bytes:
    """Return what arrived and was not read; no public method hands it out once the line is cut."""
    return content._read_nowait(-1)  # noqa: SLF001 - test_cut_lines shows that it is needed and that it works


async def _skip(request: web.Request, length: int) -> None:
    """Read away the body of an upload that is stored already, so that the client gets to read the answer."""
    skipped = 0
    try:
        while chunk := await _next_chunk(request):
            skipped += len(chunk)
            if skipped > length:
                raise ProtocolError(ProblemType.TOO_LARGE, f"the upload exceeds the {length} bytes it announced")
    except TimeoutError as error:
        raise _too_slow(length) from error


async def _next_chunk(request: web.Request) -> bytes:
    async with asyncio.timeout(IDLE_TIMEOUT_S):
        return await request.content.readany()


def _too_slow(stored: int) -> ProtocolError:
    slow = f"less than {_BATCH_BYTES >> 20} MiB of the upload came in {IDLE_TIMEOUT_S:g} s"
    message = f"{slow}; {stored} bytes are stored, continue there"
    return ProtocolError(ProblemType.OFFSET_MISMATCH, message)


async def _receipt(cohort: Driver[Machine], key: IdentityKey, index: int) -> bytes:
    return await cohort.read(lambda machine: machine.receipt(key, index))


def _header(request: web.Request) -> bytes:
    text = request.headers.get("Fedit-Upload-Header", "")
    if not 0 < len(text) <= _MOST_HEADER_CHARACTERS:
        raise ProtocolError(ProblemType.MALFORMED, "the Fedit-Upload-Header is missing or too long")
    return from_base64url(text)


def _offset(request: web.Request) -> int:
    text = request.headers.get("Upload-Offset", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise ProtocolError(ProblemType.MALFORMED, "Upload-Offset is a number of bytes")
    return int(text)


ROUTES: Final = (web.put(_UPLOADS, put), web.head(_UPLOADS, head))
