"""A small federation behind real HTTPS: the loopback server's rules, a private authority, knobs that break things."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedit_client.testing import LoopbackServer
from fedit_protocol.base_files import MANIFEST_HEAD
from fedit_protocol.catalogue import TaskList, TaskListing, TaskState
from fedit_protocol.encoding import decode, digest_of, encode, from_base64url
from fedit_protocol.enrollment import (
    EnrollReply,
    EnrollRequest,
    InviteLink,
    ProvenCertificate,
    open_enrollment,
)
from fedit_protocol.errors import ProblemType, ProtocolError, SecurityError
from fedit_protocol.ids import IdentityKey
from fedit_protocol.requests import check_authorization
from fedit_protocol.signing import Kind, read_envelope, unseal
from fedit_protocol.task import TaskDocument
from fedit_protocol.testing import MemoryFederation, small_task

CODE = "K7QF2M9DXT4BW8HC"
STATUS = {ProblemType.NOT_READY: 425, ProblemType.INTERNAL: 500, ProblemType.STORE_FULL: 507}


@dataclass
class HttpsFederation:
    """What the tests hold: keys and rules of the server, what it was asked, what it shall refuse."""

    federation: MemoryFederation
    loopback: LoopbackServer
    seal_key: X25519PrivateKey
    port: int = 0
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    refuse: dict[str, ProtocolError] = field(default_factory=dict)
    cut_upload_after: int | None = None
    stall_blob: asyncio.Event | None = None
    change: bytes | None = None
    """What is sent to who asks for the change of a blob only."""
    agents: set[str] = field(default_factory=set)
    left: bool = False
    uploads: dict[tuple[IdentityKey, str], bytes] = field(default_factory=dict)
    descriptor: bytes = b""

    @property
    def invite(self) -> str:
        return str(InviteLink("127.0.0.1", self.port, CODE, digest_of(self.descriptor)))

    @property
    def document(self) -> TaskDocument:
        return self.loopback.document

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Record the request, then answer or refuse it as the real routes do."""
        self.asked.append(f"{request.method} {request.path}")
        self.agents.add(request.headers.get("User-Agent", ""))
        refusal = next((error for path, error in self.refuse.items() if path in request.path), None)
        if refusal is not None:
            return problem(refusal)
        try:
            return await self._route(request)
        except ProtocolError as error:
            return problem(error)

    async def _route(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/v1/federation":
            return web.Response(body=self.descriptor)
        if path == "/v1/federation/successions":
            return web.Response(body=encode(self.loopback.successions))
        if path == "/v1/tasks":
            listing = TaskListing(document=encode(self.document), state=TaskState.ACTIVE)
            return web.Response(body=encode(TaskList(tasks=(listing,))))
        if "/uploads/" in path:
            return await self._upload(request)
        if path.startswith("/v1/blobs/"):
            content = self.loopback.blobs.get(path.removeprefix("/v1/blobs/"))  # type: ignore[call-overload] # a digest by its text
            if content is None:
                raise ProtocolError(ProblemType.UNKNOWN_BLOB, "there is no such blob")
            if not content.startswith(MANIFEST_HEAD):
                self._caller(request)
            if self.change is not None and "A-IM" in request.headers:
                return web.Response(status=226, body=self.change)
            if self.stall_blob is not None:
                return await self._stall(request, content)
            return ranged(request, content)
        body = await request.read()
        self.bodies.append(body)
        if path == "/v1/enroll":
            return web.Response(body=self._enroll(body))
        device = IdentityKey(read_envelope(body, kind_of(body)).signer) if body else self._caller(request)
        return web.Response(body=self.loopback.serve(device, path, body))

    def _caller(self, request: web.Request) -> IdentityKey:
        now = int(self.loopback.clock().timestamp())
        header = request.headers.get("Authorization", "")
        return check_authorization(header, self.federation.descriptor.federation_id, request.method, request.path, now)

    async def _stall(self, request: web.Request, content: bytes) -> web.StreamResponse:
        """Send half of a blob, then nothing until the test ends; the next request is served."""
        assert self.stall_blob is not None
        held, self.stall_blob = self.stall_blob, None
        response = web.StreamResponse(headers={"Content-Length": str(len(content))})
        await response.prepare(request)
        await response.write(content[: len(content) // 2])
        await held.wait()
        return response

    def _enroll(self, body: bytes) -> bytes:
        context = self.federation.context
        signed = open_enrollment(body, self.seal_key, self.federation.descriptor.federation_id)
        request = unseal(signed, Kind.ENROLL, context, EnrollRequest)
        if request.code != CODE:
            raise SecurityError(ProblemType.INVITE_REFUSED, "no such invite")
        device = IdentityKey(read_envelope(signed, Kind.ENROLL).signer)
        proven = decode(ProvenCertificate, self.federation.admit(device))
        reply = EnrollReply(certificate=proven.certificate, log_head=self.federation.log_head(), path=proven.path)
        return encode(reply)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        device = self._caller(request)
        path = device, request.path
        if request.method == "HEAD":
            return web.Response(headers={"Upload-Offset": str(len(self.uploads.get(path, b"")))})
        offset = int(request.headers["Upload-Offset"])
        stored = self.uploads.get(path, b"")[:offset]
        if offset != len(stored):
            raise ProtocolError(ProblemType.OFFSET_MISMATCH, "another offset")
        if self.cut_upload_after is not None:
            self.uploads[path] = stored + await request.content.readexactly(self.cut_upload_after)
            self.cut_upload_after = None
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        self.uploads[path] = stored + await request.read()
        header = from_base64url(request.headers["Fedit-Upload-Header"])
        return web.Response(body=self.loopback.store_upload(device, header, self.uploads[path]))


def kind_of(body: bytes) -> Kind:
    from fedit_protocol.signing import Envelope

    return decode(Envelope, body).kind


def ranged(request: web.Request, content: bytes) -> web.Response:
    asked = request.headers.get("Range")
    if asked is None:
        return web.Response(body=content)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    return web.Response(status=206, body=content[start:]) if start < len(content) else web.Response(status=416)


def problem(error: ProtocolError) -> web.Response:
    status = STATUS.get(error.problem, 400)
    body = {"type": error.problem, "title": "", "status": status, "detail": str(error), "fix": "rm -rf /"}
    return web.json_response(body, status=status, content_type="application/problem+json", headers={"Retry-After": "0"})


class WallClock:
    """The loopback server's clock when real clients talk to it."""

    def __call__(self) -> object:
        from fedit_client.network.patience import utc_now

        return utc_now()


@pytest.fixture
async def https() -> AsyncIterator[HttpsFederation]:
    authority = trustme.CA()
    federation, seal_key = MemoryFederation(3), X25519PrivateKey.generate()
    federation.descriptor = federation.descriptor.model_copy(
        update={
            "tls_ca": authority.cert_pem.bytes().decode(),
            "authority_seal_key": seal_key.public_key().public_bytes_raw(),
        }
    )
    clock: object = WallClock()
    loopback = LoopbackServer(federation, small_task(3, size=60_000, rounds=1), clock)  # type: ignore[arg-type] # reads real time
    served = HttpsFederation(federation, loopback, seal_key, descriptor=encode(federation.descriptor))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    application = web.Application(client_max_size=2**24)
    application.router.add_route("*", "/{path:.*}", served.answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()
