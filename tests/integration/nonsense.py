"""Requests that nobody should send: known paths with wrong words in them, bodies of all kinds, and what is no HTTP."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from fedit_server.access.sessions import COOKIE, CSRF_HEADER
from fedit_server.dashboard import actions, editor, pages
from fedit_server.routes import add_routes

from ..server.decoders import DECODERS

_WORDS: Final = (
    "notes", "1", "0", "-1", "9" * 30, "0" * 32, "f" * 32, "0" * 64, "sha256:" + "9" * 64, "none", "abcd1234",
    "README.md", "..%2f..%2fetc%2fpasswd", "%00", "%ff%fe", "%F0%9F%92%A9", "'%20OR%201=1--", "{{7*7}}", "x" * 3000,
    "\xff", "",
)  # fmt: skip
_QUERIES: Final = (
    "", "", "", "?limit=-1", "?limit=9999999999999999999", "?after=%00", "?before=x&before=y", "?nothing=1",
    "?told=<b>", "?" + "&".join(f"a{i}=1" for i in range(200)), "?cursor=%ff", "?task=notes&round=x", "?page=1e400",
    "?%", "?=",
)  # fmt: skip
_KINDS: Final = (
    "application/json", "application/cbor", "application/x-www-form-urlencoded", "multipart/form-data",
    "multipart/form-data; boundary=x", "text/html; charset=nonsense", "application/octet-stream", "/", "\x80",
)  # fmt: skip
_METHODS: Final = (
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "get", "BREW",
)  # fmt: skip
_HEADERS: Final = (
    "Range: bytes=9-1", "Range: bytes=-9999999999999999999", "Range: bytes=0-0,2-3,5-", "If-None-Match: \x80",
    "A-IM: fedit-delta", "Content-Encoding: gzip", "Content-Encoding: identity, br", "Transfer-Encoding: gzip",
    "Accept: \x00", "Accept: image/png", "Expect: 100-continue", "Expect: the-unexpected", "Upgrade: websocket",
    "Connection: Upgrade, close", "Upload-Offset: 1e9", "Upload-Offset: 999999999999",
    "Fedit-Upload-Header: " + "A" * 1000, "X-Forwarded-For: , ,unknown,[::1", "X-Request-Id: \x1b[31m",
    f"Cookie: {COOKIE}=x", "Cookie: =;;;=", "Last-Event-ID: -1", "If-Modified-Since: yesterday",
    "Host: " + "h" * 300, ":", f"{CSRF_HEADER}: x", "Content-Type: x", "Sec-WebSocket-Key: x", "X-Long: " + "y" * 9000,
)  # fmt: skip
_AUTHORITIES: Final = (
    "", "Bearer ", "Bearer \x80", "Bearer " + "x" * 5000, "Basic YTpi", "FedIT x", "FedIT A.1.B",
    "FedIT " + "." * 2000, "FedIT " + "A" * 43 + ".1700000000." + "A" * 86,
    "FedIT " + "A" * 43 + "." + "9" * 400 + "." + "A" * 86,
)  # fmt: skip
_JSON: Final = (
    b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b"1e999999", b"NaN", b'"\\ud800"', b"\xff", b"null", b"{}",
    b'{"id":1,"id":2}', json.dumps({"task": {"id": "a" * 100_000}}).encode(), b'{"role":"admin","lifetime_s":1e308}',
    b'{"role":["admin"]}', b"\xef\xbb\xbf{}",
)  # fmt: skip
_CBOR: Final = (
    b"\x81" * 20_000, b"\x9f" * 5000, b"\xbb" + b"\xff" * 8, b"\x5b" + b"\xff" * 8, b"\xa1\xa1", b"\xf9\x7e\x00",
    b"\xc2\x40",
)  # fmt: skip
_NO_HTTP: Final = (
    b"\x16\x03\x01\x02\x00", bytes(200), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n", b"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b"\r\n" * 5000,
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
)  # fmt: skip


def routes() -> tuple[tuple[str, str], ...]:
    """Return method and pattern of everything that the server answers, such as POST, /v1/rounds/{round_id}/join."""
    app = web.Application()
    add_routes(app, apart=False)
    app.add_routes([*actions.ROUTES, *editor.ROUTES, *pages.routes()])
    known = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource is not None}
    return tuple(sorted(known | {("GET", "/join"), ("POST", "/sign-in"), ("POST", "/sign-out")}))


@dataclass(frozen=True)
class Told:
    """Bytes for a connection; of a request that is `whole` there should be an answer, for HEAD without its body."""

    content: bytes
    whole: bool

    @property
    def bodiless(self) -> bool:
        """Whether its answer says how long its body would be, and has none."""
        return self.content.startswith(b"HEAD ")


class Nonsense:
    """Draws requests; those of a seed repeat."""

    def __init__(self, seed: str, token: str) -> None:
        self._draw = random.Random(seed)
        self._routes = routes()
        self._authorities = (*_AUTHORITIES, *[f"Bearer {token}"] * 3 * len(_AUTHORITIES))

    def request(self) -> Told:
        """Return what to say next."""
        if self._draw.random() < 0.05:
            return Told(self._draw.choice(_NO_HTTP), whole=False)
        method, pattern = self._draw.choice(self._routes)
        if self._draw.random() < 0.05:
            method = self._draw.choice(_METHODS)
        headers = [f"Host: x\r\nAuthorization: {self._draw.choice(self._authorities)}", *self._few(_HEADERS)]
        body, whole = self._body(), True
        if body:
            framing, body, whole = self._framed(body)
            headers += [f"Content-Type: {self._draw.choice(_KINDS[:3] * 3 + _KINDS)}", framing]
        told = "\r\n".join((f"{method} {self._path(pattern)} HTTP/1.1", *headers, "", "")).encode("latin-1") + body
        if self._draw.random() < 0.05:
            return Told(told[: self._draw.randrange(len(told))], whole=False)
        return Told(told, whole)

    def _path(self, pattern: str) -> str:
        path = ""
        for part in pattern.replace("{", "\0{").replace("}", "}\0").split("\0"):
            path += self._draw.choice(_WORDS[: self._draw.choice((3, len(_WORDS)))]) if part.startswith("{") else part
        return path + self._draw.choice(_QUERIES)

    def _body(self) -> bytes:
        match self._draw.randrange(6):
            case 0 | 1:
                return b""
            case 2:
                return self._draw.choice(_JSON)
            case 3:
                return self._draw.choice(_CBOR)
            case 4:
                return self._draw.randbytes(self._draw.choice((1, 100, 5000, 300_000)))
        return self._spoiled(self._draw.choice(list(DECODERS.values())).seed)

    def _spoiled(self, seed: bytes) -> bytes:
        content = bytearray(seed)
        for _ in range(self._draw.randrange(4)):
            content[self._draw.randrange(len(content))] = self._draw.randrange(256)
        return bytes(content)

    def _framed(self, body: bytes) -> tuple[str, bytes, bool]:
        """Return a header that says how long a body is, the body, and whether they agree."""
        match self._draw.randrange(20):
            case 0:
                return f"Content-Length: {10**15}", body, False
            case 1:
                return f"Content-Length: {len(body)}\r\nTransfer-Encoding: chunked", body, False
            case 2:
                return "Transfer-Encoding: chunked", body, False
            case number if number < 8:
                return "Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), True
        return f"Content-Length: {len(body)}", body, True

    def _few(self, among: Sequence[str]) -> list[str]:
        return self._draw.sample(among, self._draw.choice((0, 0, 0, 1, 2)))
