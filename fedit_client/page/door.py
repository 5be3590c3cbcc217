"""Who may come in: this machine's owner, from a browser on this machine, and no page of the web on their behalf.

The address that the command prints carries a token that opens once. It is exchanged for a cookie that scripts cannot
read and other sites cannot send. Every request has to name this very host (a name that was rebound to loopback is
another one), and whatever changes something has to come from this page (Origin) and carry its own second token.
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

COOKIE: Final = "fedit_page"
CHANGE_HEADER: Final = "X-Fedit-Change"
POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; img-src 'self'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OPENED: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="0; url=/">'
    '<title>FedIT</title><p><a href="/">Open the page</a></p></html>'
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """The secrets of one run of the page; `middleware` guards every route."""

    def __init__(self) -> None:
        self.token: str | None = secrets.token_urlsafe(32)
        """Opens once; None after that."""
        self.change_token = secrets.token_urlsafe(32)
        self._cookie = secrets.token_urlsafe(32)
        self._hosts: frozenset[str] = frozenset()

    def stands_at(self, port: int) -> str:
        """Learn the port, and return the address that opens the page once."""
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        return f"http://127.0.0.1:{port}/open?token={self.token}"

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token for the cookie, once."""
        given, token = request.query.get("token", ""), self.token
        if token is None or not hmac.compare_digest(given.encode(), token.encode()):
            return refused("this address has been used, or is none; stop the command and start it again")
        self.token = None
        # Not a redirect: a browser that came from a file or another page would not send a strict cookie along.
        answer = web.Response(text=_OPENED, content_type="text/html")
        answer.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", path="/")
        return answer

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let pass who may, and put the headers on every answer."""
        answer = self._refusal(request) or await self._answer(request, handler)
        if not answer.prepared:
            answer.headers.update(HEADERS)
        return answer

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"message": error.reason}, status=error.status)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if request.host not in self._hosts:
            return refused("this is not the address of the page")
        origin = request.headers.get("Origin")
        ours = {f"http://{host}" for host in self._hosts}
        if origin is not None and origin not in ours:
            return refused("another page cannot ask for this")
        if request.path == "/open":
            return None
        if not _same(request.cookies.get(COOKIE, ""), self._cookie):
            return refused("open the address that `fedit-client ui` has printed; it works once, in one browser")
        if request.method not in {"GET", "HEAD"} and not (
            origin in ours and _same(request.headers.get(CHANGE_HEADER, ""), self.change_token)
        ):
            return refused("a change has to come from the page itself")
        return None


def refused(why: str) -> web.Response:
    """The answer to who may not come in."""
    return web.Response(status=403, text=f"{why}\n")


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
