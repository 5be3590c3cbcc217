"""Who may come in: this machine's owner, from a browser on this machine, and no page of the web on their behalf.

The address that the command prints carries a token that opens once, and is exchanged for a key. The page keeps the key
in its tab's session storage, which belongs to this one port, and sends it as a header; there is no cookie, for browsers
send cookies of 127.0.0.1 to every port of it. Without the key there is only the empty shell. Every request has to name
this very host (a name that was rebound to loopback is another one), and whatever changes something has to come from
this page (Origin).
"""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from aiohttp import web

KEY_HEADER: Final = "X-Fedit-Key"
SHELL: Final = frozenset({"/", "/page.css", "/page.js"})
"""What holds nothing of anybody, and is read before the page can show its key."""
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

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """The secrets of one run of the page; `middleware` guards every route."""

    def __init__(self) -> None:
        self.token: str | None = secrets.token_urlsafe(32)
        """Opens once; None after that."""
        self._key = secrets.token_urlsafe(32)
        self._hosts: frozenset[str] = frozenset()

    def stands_at(self, port: int) -> str:
        """Learn the port, and return the address that opens the page once."""
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        return f"http://127.0.0.1:{port}/open?token={self.token}"

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Exchange the token for the shell with the key in it, once."""
        given, token = request.query.get("token", ""), self.token
        if token is None or not hmac.compare_digest(given.encode(), token.encode()):
            return refused("this address has been used, or is none; stop the command and start it again")
        self.token = None
        shell = files("fedit_client.page").joinpath("static", "page.html").read_text("utf-8")
        with_key = shell.replace("</head>", f'  <meta name="fedit-key" content="{self._key}">\n</head>', 1)
        return web.Response(text=with_key, content_type="text/html")

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
        reads = request.method in {"GET", "HEAD"}
        if reads and (request.path == "/open" or request.path in SHELL):
            return None
        if not hmac.compare_digest(request.headers.get(KEY_HEADER, "").encode(), self._key.encode()):
            return refused("open the address that `fedit-client ui` has printed; it works once, in one tab")
        if not reads and origin not in ours:
            return refused("a change has to come from the page itself")
        return None


def refused(why: str) -> web.Response:
    """The answer to who may not come in."""
    return web.Response(status=403, text=f"{why}\n")
