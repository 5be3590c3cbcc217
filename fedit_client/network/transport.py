"""Requests to one server over HTTPS: limits, retries, resumable transfers; foreign exceptions end here."""

import asyncio
import hashlib
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiohttp

from fedit_client.home.durable import make_private, sync_folder
from fedit_client.home.durable import translating as translating_disk
from fedit_client.network.bandwidth import Bandwidth, Cap
from fedit_client.network.problems import BusyError, problem_error, translating
from fedit_client.network.proxies import proxy_for
from fedit_protocol.change import NAME, apply_change
from fedit_protocol.encoding import MAX_CONTROL_BYTES, digest_of, to_base64url
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError, TransportError
from fedit_protocol.ids import Digest, FederationId
from fedit_protocol.requests import authorization
from fedit_protocol.signing import SigningKey

OnBytes = Callable[[int, int], None]
"""Told how many bytes of how many have gone."""

T = TypeVar("T")

_CHUNK: Final = 64 * 1024
_CONNECT_S: Final = 10.0
_ANSWER_S: Final = 45.0  # a long poll ends within 25 s (SPEC, section 7), and then has to travel
_STALLED_S: Final = 60.0
_GOODBYE_S: Final = 0.1  # what closing a TLS connection takes when the other side is closing it as well
_ATTEMPTS: Final = 4
_FIRST_WAIT_S: Final = 0.25
_STALE_PART_S: Final = 24 * 3600.0
_MAX_PROBLEM_BYTES: Final = 64 * 1024
_UNCAPPED: Final = Bandwidth()
_USER_AGENT: Final = "fedit"  # the library's own would name Python and its version (PRIVACY.md)


class Transport(Protocol):
    """The seam between a session and the network; paths begin with /v1."""

    async def get(self, path: str) -> bytes:
        """Return a control document; raises NotReadyError while there is none, TransportError, ProtocolError."""
        ...

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a control message and return the answer, which may be empty. The same bytes may arrive twice."""
        ...

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        """Put the payload that the signed header announces, resuming what the server has; return the receipt."""
        ...

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        """Fetch a blob of at most `limit` bytes into `target`; it appears there only if its digest is right.

        `known` is a file with an earlier version: the server may send the change from it instead (SPEC, section 7.1).
        """
        ...


class HttpTransport:
    """A Transport over aiohttp to one base URL; use as an async context manager.

    `signer` is the device's key with its federation: requests without a signed body carry its signature then. Before
    enrolment there is none, and no request identifies this device. `bandwidth` caps uploads and downloads of blobs;
    `no_proxy` are the owner's hosts that no proxy stands before (`network.no_proxy`).
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext,
        signer: tuple[SigningKey, FederationId] | None,
        bandwidth: Bandwidth = _UNCAPPED,
        no_proxy: str = "",
    ) -> None:
        self._host, self._port, self._tls, self._signer = host, port, tls, signer
        self._bandwidth, self._own = bandwidth, f"{os.getpid()}-{secrets.token_hex(4)}"
        self._no_proxy = no_proxy
        self._base = f"https://{f'[{host}]' if ':' in host else host}:{port}"
        self._http: aiohttp.ClientSession | None = None
        self._ended_by_server = False

    async def __aenter__(self) -> "HttpTransport":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calling it twice is harmless."""
        if self._http:
            await self._http.close()
            self._http = None
            if self._ended_by_server:
                # The session no longer counts a connection that the server has ended, and does not wait for its close.
                await asyncio.sleep(_GOODBYE_S)

    async def get(self, path: str) -> bytes:
        return await self._retrying(lambda: self._control("GET", path, None))

    async def post(self, path: str, body: bytes) -> bytes:
        return await self._retrying(lambda: self._control("POST", path, body))

    async def upload(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        return await self._retrying(lambda: self._put(path, header, payload, on_bytes))

    async def download(
        self, digest: Digest, target: Path, limit: int, on_bytes: OnBytes, known: Path | None = None
    ) -> None:
        make_private(target.parent)
        part, path = self._part_of(target), f"/v1/blobs/{digest}"
        if known is None or not await self._fetch_change(path, known, part, limit, on_bytes, digest):
            await self._retrying(lambda: self._fetch(path, part, limit, on_bytes))
        found = await asyncio.to_thread(_digest_of_file, part)
        if found != digest:
            part.unlink()
            raise SecurityError(ProblemType.DIGEST_MISMATCH, f"the server sent other bytes than {digest[:19]}…",
                                code="T012", where=f"{self._host}:{self._port}")  # fmt: skip
        with translating_disk(target):
            part.replace(target)
            sync_folder(target.parent)
            _remove_stale_parts(target)

    def _part_of(self, target: Path) -> Path:
        """Where this transport gathers a download: another client's download of the same blob has another place."""
        return target.with_name(f".{target.name}.{self._own}.part")

    async def _retrying(self, action: Callable[[], Awaitable[T]]) -> T:
        """Run an idempotent request a few times; only a TransportError is worth another try.

        Not stamina: its hooks are process-wide and print where structlog is installed, which an SDK must not do.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await action()
            except TransportError as error:
                if attempt == _ATTEMPTS or isinstance(error, BusyError):
                    raise  # who is asked for fewer requests does not send the next one at once
                await asyncio.sleep(jittered(_FIRST_WAIT_S * 2**attempt))
        raise AssertionError("unreachable")

    async def _control(self, method: str, path: str, body: bytes | None) -> bytes:
        with translating(self._host, self._port):
            async with self._request(method, path, data=body) as response:
                await self._check(response)
                return await _read(response, MAX_CONTROL_BYTES)

    async def _put(self, path: str, header: bytes, payload: bytes, on_bytes: OnBytes) -> bytes:
        offset = await self._stored(path, len(payload))
        headers = {
            "Fedit-Upload-Header": to_base64url(header),
            "Upload-Offset": str(offset),
            "Content-Length": str(len(payload) - offset),
        }
        try:
            with translating(self._host, self._port):
                # The HTTP library limits the wait for an answer, not for a body that nobody takes any more.
                async with asyncio.timeout(_STALLED_S) as stalled:
                    body = _pieces(payload, offset, on_bytes, stalled, self._bandwidth.up)
                    async with self._request("PUT", path, data=body, headers=headers, bulk=True) as response:
                        await self._check(response)
                        return await _read(response, MAX_CONTROL_BYTES)
        except SecurityError as error:
            if offset and error.problem is ProblemType.DIGEST_MISMATCH:  # a power cut may have taken the stored part
                raise TransportError("what the server had of the upload was damaged; it is sent again", code="N011",
                                     where=self._base, fix="wait: fedit-client status") from error  # fmt: skip
            raise

    async def _stored(self, path: str, length: int) -> int:
        """Return how many bytes of this upload the server already holds; 0 if it says nothing usable."""
        with translating(self._host, self._port):
            async with self._request("HEAD", path) as response:
                text = response.headers.get("Upload-Offset", "0")
                # A HEAD answer has no body, so a refusal cannot explain itself: the PUT that follows will.
                return min(int(text), length) if response.ok and text.isdigit() and len(text) < 16 else 0

    async def _fetch_change(
        self, path: str, known: Path, part: Path, limit: int, on_bytes: OnBytes, digest: Digest
    ) -> bool:
        """Ask once for the change from a version that is here; False if the whole has to be fetched after all.

        Whatever is wrong with a change is no reason to give up: the whole follows, and is checked like any other.
        """
        with translating_disk(known):
            old = await asyncio.to_thread(known.read_bytes)
        headers = {"A-IM": NAME, "If-None-Match": f'"{digest_of(old)}"'}
        try:
            with translating(self._host, self._port):
                async with self._request("GET", path, headers=headers, bulk=True) as response:
                    if response.status != 226:
                        await self._check(response)
                        await self._receive(response, part, 0, limit, on_bytes)
                        return True
                    change = await _read(response, limit, self._bandwidth.down)
            new = await asyncio.to_thread(apply_change, old, change, limit)
        except (ProtocolError, TransportError):
            return False
        if digest_of(new) != digest:
            return False
        on_bytes(len(change), len(change))
        with _opened(part, "wb") as write:
            write(new)
        return True

    async def _fetch(self, path: str, part: Path, limit: int, on_bytes: OnBytes) -> None:
        with translating_disk(part):
            have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with translating(self._host, self._port):
            async with self._request("GET", path, headers=headers, bulk=True) as response:
                if response.status == 416:  # the part is as long as the blob, or longer: its digest will tell
                    return
                await self._check(response)
                await self._receive(response, part, have if response.status == 206 else 0, limit, on_bytes)

    async def _receive(
        self, response: aiohttp.ClientResponse, part: Path, have: int, limit: int, on_bytes: OnBytes
    ) -> None:
        """Write a body behind what `part` has already."""
        total = have + (response.content_length or 0)
        if total > limit:
            raise _too_large(total, limit)
        with _opened(part, "ab" if have else "wb") as write:
            async for chunk in response.content.iter_chunked(self._bandwidth.down.piece_bytes):
                await self._bandwidth.down.take(len(chunk))
                have += len(chunk)
                if have > limit:
                    raise _too_large(have, limit)
                write(chunk)
                on_bytes(have, max(total, have))

    def _request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        bulk: bool = False,
    ) -> "aiohttp.client._RequestContextManager":
        if self._http is None:
            self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self._tls), auto_decompress=False)
        sent = {"User-Agent": _USER_AGENT}
        if isinstance(data, bytes):
            sent["Content-Type"] = "application/cbor"
        if self._signer:
            key, federation = self._signer
            sent["Authorization"] = authorization(key, federation, method, path, int(time.time()))
        timeout = aiohttp.ClientTimeout(
            total=None if bulk else _ANSWER_S, sock_connect=_CONNECT_S, sock_read=_STALLED_S if bulk else None
        )
        return self._http.request(
            method,
            self._base + path,
            data=data,
            headers=sent | (headers or {}),
            timeout=timeout,
            allow_redirects=False,
            proxy=proxy_for(self._host, self._no_proxy),
        )

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        self._ended_by_server |= response.headers.get("Connection", "").lower() == "close"
        if response.status >= 300:
            body = await _read(response, _MAX_PROBLEM_BYTES)
            retry_after = response.headers.get("Retry-After")
            raise problem_error(response.status, body, retry_after, f"{self._host}:{self._port}")


def jittered(seconds: float) -> float:
    """Return a time between half and all of `seconds`, so that clients which failed together do not return together."""
    return seconds * (0.5 + secrets.randbelow(1001) / 2000)


@contextmanager
def _opened(part: Path, mode: str) -> Iterator[Callable[[bytes], object]]:
    """Yield what writes to a file. Only the file's own errors are the disk's: those of the network are OSErrors too."""
    with translating_disk(part):
        file = part.open(mode)

    def write(chunk: bytes) -> None:
        with translating_disk(part):
            file.write(chunk)

    try:
        yield write
    finally:
        with translating_disk(part):
            file.close()


async def _read(response: aiohttp.ClientResponse, limit: int, cap: Cap | None = None) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK if cap is None else cap.piece_bytes):
        if cap is not None:
            await cap.take(len(chunk))
        body += chunk
        if len(body) > limit:
            raise _too_large(len(body), limit)
    return bytes(body)


async def _pieces(
    payload: bytes, offset: int, on_bytes: OnBytes, stalled: asyncio.Timeout, cap: Cap
) -> AsyncIterator[bytes]:
    """Yield the payload from `offset` on; each piece that was taken, and the answer, has as long as the first."""
    view, loop, size = memoryview(payload), asyncio.get_running_loop(), cap.piece_bytes
    for start in range(offset, len(payload), size):
        await cap.take(min(size, len(payload) - start))
        yield bytes(view[start : start + size])
        with suppress(RuntimeError):  # a server may answer before it has read everything: nobody waits any more
            stalled.reschedule(loop.time() + _STALLED_S)
        on_bytes(min(start + size, len(payload)), len(payload))


def _remove_stale_parts(target: Path) -> None:
    """Remove what programs that died during a download of this blob have left behind."""
    for part in target.parent.glob(f".{target.name}.*part"):
        if time.time() - part.stat().st_mtime > _STALE_PART_S:
            part.unlink(missing_ok=True)


def _digest_of_file(path: Path) -> str:
    with translating_disk(path), path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _too_large(found: int, limit: int) -> ProtocolError:
    return ProtocolError(ProblemType.TOO_LARGE, f"the server sends {found} bytes or more, and {limit} are the limit",
                         fix="fedit-client doctor --network; is it a FedIT server?")  # fmt: skip
