"""What a running server must say to anybody, before any enrolment (SPEC, sections 2, 3, 7, 9)."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fedit_protocol.catalogue import TaskList
from fedit_protocol.encoding import decode, digest_of, encode
from fedit_protocol.enrollment import FederationDescriptor
from fedit_protocol.errors import ProblemType
from fedit_protocol.signing import check_public_key

_TIMEOUT_S: Final = 40
_UNKNOWN_ROUND: Final = "0" * 32


@dataclass(frozen=True)
class Reply:
    """Status, content type and body of an answer."""

    status: int
    kind: str
    body: bytes

    @property
    def problem(self) -> str:
        """The problem type of an error, empty if this is no problem document."""
        if self.kind != "application/problem+json":
            return ""
        return str(json.loads(self.body).get("type", ""))


class LiveServer:
    """A server under test, over HTTPS; the descriptor's own authority is trusted once it has been read."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/v1"
        # Trust begins with the descriptor's digest, so the first look is without trust (SPEC, section 3, step 1).
        self._trust = ssl._create_unverified_context()
        self.descriptor = decode(FederationDescriptor, self.ask("GET", "/federation").body)
        self._trust = ssl.create_default_context(cadata=self.descriptor.tls_ca or None)
        self._trust.check_hostname = not self.descriptor.tls_ca

    def ask(self, method: str, path: str, body: bytes | None = None) -> Reply:
        """Send one request; errors are answers too."""
        request = urllib.request.Request(self._url + path, data=body, method=method)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._trust) as reply:
                return Reply(reply.status, reply.headers.get_content_type(), reply.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers.get_content_type(), error.read())


def _refuses(method: str, path: str, body: bytes | None, *problems: ProblemType) -> Callable[[LiveServer], str]:
    def rule(server: LiveServer) -> str:
        reply = server.ask(method, path, body)
        expected = " or ".join(problems)
        return "" if reply.problem in problems else f"{reply.status} {reply.problem or reply.kind}, not {expected}"

    return rule


def _descriptor(server: LiveServer) -> str:
    body = server.ask("GET", "/federation").body
    if encode(decode(FederationDescriptor, body)) != body:
        return "the descriptor is not canonical"
    check_public_key(server.descriptor.server_key)
    check_public_key(server.descriptor.authority_key)
    return ""


def _same_descriptor(server: LiveServer) -> str:
    pins = {digest_of(server.ask("GET", "/federation").body) for _ in range(2)}
    return "" if len(pins) == 1 else "the descriptor, and with it the PIN, changes between two requests"


def _tasks(server: LiveServer) -> str:
    reply = server.ask("GET", "/tasks")
    decode(TaskList, reply.body)
    return "" if reply.status == 200 else f"status {reply.status}"


def _problem_document(server: LiveServer) -> str:
    reply = server.ask("POST", "/enroll", b"\x00")
    fields = json.loads(reply.body) if reply.problem else {}
    missing = {"type", "title", "status", "detail"} - fields.keys()
    if missing or fields["status"] != reply.status:
        return f"the problem document lacks {', '.join(sorted(missing)) or 'its own status'}"
    return ""


_STRANGER: Final = (ProblemType.BAD_SIGNATURE, ProblemType.MALFORMED, ProblemType.NOT_ENROLLED)
RULES: Final[dict[str, Callable[[LiveServer], str]]] = {
    "the descriptor is canonical and its keys are usable": _descriptor,
    "the descriptor is the same every time": _same_descriptor,
    "tasks are readable without enrolment": _tasks,
    "an error is an RFC 9457 document": _problem_document,
    "an enrolment that does not open is refused": _refuses("POST", "/enroll", bytes(200), *_STRANGER),
    "a request beyond the limit is refused": _refuses("POST", "/enroll", bytes(1 << 20), ProblemType.TOO_LARGE),
    "a check-in that is no envelope is refused": _refuses("POST", "/checkin", b"\xa0", *_STRANGER),
    "a round's documents need a signed request": _refuses("GET", f"/rounds/{_UNKNOWN_ROUND}/roster", None, *_STRANGER),
    "a blob needs a signed request": _refuses("GET", f"/blobs/{digest_of(b'')}", None, *_STRANGER),
}
"""What must hold → a function that says what is wrong, or nothing."""
