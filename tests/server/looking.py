"""What the tests of the dashboard share: somebody who is signed in, and what an HTML page says."""

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from fedit_server.access import sessions
from fedit_server.access.roles import Role

from .conftest import Running

VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"})


@dataclass
class Operator:
    """Somebody with a session of one role; asks for pages as a browser does."""

    running: Running
    cookie: str
    csrf: str

    async def get(self, path: str) -> tuple[int, str, dict[str, str]]:
        """Return status, text and headers."""
        async with self.running.http.get(path, headers=self._headers, allow_redirects=False) as reply:
            return reply.status, (await reply.read()).decode(errors="replace"), dict(reply.headers)

    async def post(self, path: str, csrf: str | None = None, **fields: str) -> tuple[int, str, dict[str, str]]:
        """Send a form; with the page's CSRF token unless told otherwise."""
        sent = {"csrf": self.csrf if csrf is None else csrf, **fields}
        async with self.running.http.post(path, data=sent, headers=self._headers, allow_redirects=False) as reply:
            return reply.status, (await reply.read()).decode(errors="replace"), dict(reply.headers)

    @property
    def _headers(self) -> dict[str, str]:
        # Over plain HTTP no browser would keep this cookie; the tests send it by hand.
        return {"Cookie": f"{sessions.COOKIE}={self.cookie}"} if self.cookie else {}


async def sign_in(running: Running, role: Role = Role.ADMIN) -> Operator:
    """Return somebody who has opened a login link."""
    gate = running.parts.admin.gate
    _, secret = await sessions.make_link(gate, role)
    session, cookie = await sessions.sign_in(gate, secret)
    return Operator(running, cookie, session.csrf)


@dataclass
class Outline(HTMLParser):
    """A page's structure: what is inline, what has no name, which headings follow which."""

    inline: list[str] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    open_tags: list[str] = field(default_factory=list)
    unbalanced: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    labelled: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def of(cls, text: str) -> "Outline":
        """Read a page."""
        outline = cls(labelled=frozenset(re.findall(r'<label[^>]* for="([^"]+)"', text)))
        outline.feed(text)
        outline.close()
        return outline

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, Any] = dict(attrs)
        self.inline += [f"{tag} {name}" for name in given if name == "style" or re.match(r"on[a-z]|hx-on", name)]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.links += [str(given[name]) for name in ("href", "src", "sse-connect") if given.get(name)]
        self.actions += [str(given["action"])] if tag == "form" else []
        named = "aria-label" in given or given.get("id") in self.labelled or "label" in self.open_tags
        if tag in {"input", "select", "textarea", "progress"} and given.get("type") != "hidden" and not named:
            self.unlabelled.append(f"{tag} {given}")
        if tag not in VOID and tag not in {"path", "circle", "rect"}:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open_tags and self.open_tags[-1] == tag:
            self.open_tags.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID or tag in {"path", "circle", "rect"}:
            return
        if not self.open_tags or self.open_tags.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """What a person reads."""
        return re.sub(r"\s+", " ", html.unescape(" ".join(self.words)))
