"""Requests about a task's rounds are answered by the replica that owns it: here, or handed on to there as they came.

A hand-over is one HTTPS request to the owner's own address: method, path, headers and body unchanged, with the token
that the owner left in the database, which proves a replica, and the address that asked. What it carries is signed by a
device and checked there again. Nothing is handed on twice, and whoever waited at an owner that lost the lease is asked
to come again: by then somebody else owns the task.
"""

import asyncio
import hmac
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.typedefs import Handler

from fedit_protocol.ids import RoundId, TaskId
from fedit_server.config import split_address
from fedit_server.rounds.bell import Ear
from fedit_server.rounds.shared import SharedCoordinator
from fedit_server.storage.leases import Owner

PROOF: Final = "Fedit-Replica-Token"
_FORWARDED: Final = "X-Forwarded-For"
_CONNECT_S: Final = 3.0
_COME_AGAIN_S: Final = 1
_MOST_ROUNDS: Final = 10_000
_CHUNK: Final = 256 * 1024
_OF_THE_LINE: Final = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "host", "date", "server"}
)
"""Headers about one connection, not about the request (RFC 9110, section 7.6.1)."""
_OWNED: Final = ("/v1/rounds/", "/candidates/")

T = TypeVar("T")
Here = Callable[[], Awaitable[web.StreamResponse]]


class Owners(Protocol):
    """Who answers what is asked about a task."""

    async def answer(
        self, request: web.Request, task_id: TaskId, here: Here, body: bytes | None = None
    ) -> web.StreamResponse:
        """Answer with `here`, or with what the owner says; `body` is what was read of the request already."""
        ...


class Alone:
    """One server: it owns every task."""

    async def answer(
        self, request: web.Request, task_id: TaskId, here: Here, body: bytes | None = None
    ) -> web.StreamResponse:
        """Answer here."""
        return await here()


OWNERS: Final[web.AppKey[Owners]] = web.AppKey("owners")


class Replicas:
    """This server and the others on its database. A middleware sends requests about rounds to their owner."""

    def __init__(self, coordinator: SharedCoordinator, tls_authority: str) -> None:
        """`tls_authority` is what the owners' certificates are issued by, PEM; empty: one that the system trusts."""
        self._coordinator = coordinator
        self._context = ssl.create_default_context(cadata=tls_authority or None)
        if tls_authority:
            # The federation's own authority issues to its servers only, and a replica's address is in no certificate.
            self._context.check_hostname = False
        self._session: ClientSession | None = None
        self._rounds: dict[RoundId, TaskId] = {}

    async def connected(self, _app: web.Application) -> AsyncIterator[None]:
        """Hold the connections to the other replicas while the application runs."""
        connector = TCPConnector(ssl=self._context, limit=0)
        timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S)
        async with ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as self._session:
            yield

    @property
    def middleware(self) -> Any:
        """What stands before the routes."""

        @web.middleware
        async def at_owner(request: web.Request, handler: Handler) -> web.StreamResponse:
            task_id = await self._task_of(request)
            if self._is_handed_on(request):
                request = request.clone(remote=request.headers.get(_FORWARDED, ""))
            if task_id is None:
                return await handler(request)
            return await self.answer(request, task_id, lambda: handler(request))

        return at_owner

    async def answer(
        self, request: web.Request, task_id: TaskId, here: Here, body: bytes | None = None
    ) -> web.StreamResponse:
        """Answer here if this replica owns the task, else hand it on, else wait until there is an owner."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._coordinator.leases.length_s + _CONNECT_S
        while True:
            ear = self._coordinator.changed.listen()
            if (owned := self._coordinator.owned(task_id)) is not None:
                response = await _unless(here(), owned.lost.wait)
                return response if response is not None and owned.lease.is_good else come_again()
            owner = self._coordinator.owner(task_id)
            is_elsewhere = owner is not None and owner.replica_id != self._coordinator.leases.me.replica_id
            if self._is_handed_on(request):
                return come_again()
            if owner is not None and is_elsewhere:
                with suppress(ClientConnectorError):  # nobody listens there any more: wait for the next owner
                    return await self._hand_on(request, task_id, owner, body)
            elif await self._coordinator.services.store.tasks.task(task_id) is None:
                return await here()  # which says so
            left = until - loop.time()
            if left <= 0:
                return come_again()
            await ear.wait(left)

    async def _hand_on(
        self, request: web.Request, task_id: TaskId, owner: Owner, body: bytes | None
    ) -> web.StreamResponse:
        """Let the owner answer; if it stops being the owner meanwhile, the caller comes again. Raises what aiohttp does
        when nobody listens there."""
        asking = self._ask(request, owner, body)
        try:
            response = await _unless(asking, lambda: self._until_another_owns(task_id, owner))
        except ClientConnectorError:
            raise
        except (ClientError, OSError):
            return come_again()
        return come_again() if response is None else response

    async def _ask(self, request: web.Request, owner: Owner, body: bytes | None) -> web.StreamResponse:
        if self._session is None:
            raise RuntimeError("the application does not run")
        headers = [*_kept(request.headers), (PROOF, owner.token), (_FORWARDED, request.remote or "")]
        content = body if body is not None else request.content.iter_any() if request.can_read_body else None
        host, port = split_address(owner.address)
        url = request.url.with_scheme("https").with_host(host).with_port(port)  # its path stays as it was signed
        async with self._session.request(
            request.method, url, headers=headers, data=content, allow_redirects=False, skip_auto_headers=_DEFAULTS
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            if request.method == "HEAD":
                return web.Response(status=answer.status, headers=_kept(answer.headers))
            await response.prepare(request)
            async for chunk in answer.content.iter_chunked(_CHUNK):
                await response.write(chunk)
            await response.write_eof()
            return response

    async def _until_another_owns(self, task_id: TaskId, owner: Owner) -> None:
        ear: Ear = self._coordinator.changed.listen()
        while self._coordinator.owner(task_id) == owner:
            await ear.wait(None)
            ear = self._coordinator.changed.listen()

    async def _task_of(self, request: web.Request) -> TaskId | None:
        """Return the task whose owner has to answer; None where the database knows all that is asked for."""
        if not any(part in request.path for part in _OWNED) or not request.path.startswith("/v1/"):
            return None
        named = request.match_info.get("round_id")
        if named is None:
            task = request.match_info.get("task_id")
            return None if task is None else TaskId(task)
        round_id = RoundId(named)
        if round_id not in self._rounds:
            task_id = await self._coordinator.services.store.rounds.task_of(round_id)
            if task_id is None:
                return None
            if len(self._rounds) >= _MOST_ROUNDS:
                self._rounds.clear()
            self._rounds[round_id] = task_id
        return self._rounds[round_id]

    def _is_handed_on(self, request: web.Request) -> bool:
        shown = request.headers.get(PROOF, "")
        return hmac.compare_digest(shown.encode(), self._coordinator.leases.me.token.encode())


_DEFAULTS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


def come_again() -> web.Response:
    """Return what is said while a task changes its owner: nothing is lost, and the same request again is right."""
    body = {"type": "about:blank", "title": "the task changes its server; come again", "status": 503}
    response = web.json_response(body, status=503, content_type="application/problem+json")
    response.headers["Retry-After"] = str(_COME_AGAIN_S)
    return response


def _kept(headers: Any) -> list[tuple[str, str]]:
    dropped = _OF_THE_LINE | {PROOF.lower(), _FORWARDED.lower()}
    return [(name, value) for name, value in headers.items() if name.lower() not in dropped]


async def _unless(work: Awaitable[T], stopped: Callable[[], Awaitable[Any]]) -> T | None:
    """Return what `work` returns, None if `stopped` comes first; the work is then cancelled."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, stopping):
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
