"""What came back instead of an answer → one typed error with words and a fix of our own.

A server's own `fix` is never shown: a person pastes it into a shell, and the server is not trusted with that.
"""

import errno
import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp

from fedit_protocol.errors import FeditError, ProblemType, ProtocolError, SecurityError, TransportError

_MAX_DETAIL: Final = 300
_CODE: Final = re.compile(r"^[A-Z]\d{3}$")
_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e\u00a0-\ufffd]")

_SECURITY: Final = {
    ProblemType.BAD_SIGNATURE: "T011",
    ProblemType.KEY_REFUSED: "T011",
    ProblemType.CONTEXT_MISMATCH: "T011",
    ProblemType.DIGEST_MISMATCH: "T012",
    ProblemType.NOT_ENROLLED: "T008",
    ProblemType.CLOCK_SKEW: "T007",
    ProblemType.INVITE_EXPIRED: "T004",
    ProblemType.INVITE_USED: "T005",
    ProblemType.INVITE_REFUSED: "T006",
}
_NEW_INVITE: Final = (
    "fedit-client join --server 'NEW-LINK', once the organiser has made a new invite (with fedit-server invite)"
)
_FIXES: Final = {
    ProblemType.INVITE_EXPIRED: _NEW_INVITE,
    ProblemType.INVITE_USED: _NEW_INVITE,
    ProblemType.INVITE_REFUSED: "copy the whole link again; else " + _NEW_INVITE,
    ProblemType.CLOCK_SKEW: "fedit-client doctor --network, and set this machine's clock: timedatectl set-ntp true",
    ProblemType.NOT_ENROLLED: "fedit-client join --server 'fedit://…', with a new invite from the organiser",
    ProblemType.VERSION_MISMATCH: "pip install --upgrade fedit",
    ProblemType.UNKNOWN_TASK: "fedit-client status",
}
_AGAIN: Final = "the same command again later; a client that runs tries again by itself: fedit-client status"
_RETRYABLE: Final = {
    ProblemType.INTERNAL: ("N006", "the server failed while answering"),
    ProblemType.OFFSET_MISMATCH: ("N011", "the upload has to go on elsewhere"),
    ProblemType.STORE_FULL: ("N010", "the server's disk is full"),
}

WAITS_FOR_OPERATOR: Final = "T117"
"""The code of a `not-ready` that means: the operator has to let this device in (SPEC, section 3)."""

_TRY_AGAIN: Final = frozenset({408, 429})  # from a proxy or the HTTP library, without a problem document


class NotReadyError(ProtocolError):
    """The document does not exist yet; ask again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float, *, code: str | None = None) -> None:
        super().__init__(ProblemType.NOT_READY, message, code=code)
        self.retry_after_s = retry_after_s


class BusyError(TransportError):
    """The server asks for fewer requests: the next one after `retry_after_s`, and none before."""

    def __init__(self, message: str, where: str, retry_after_s: float) -> None:
        super().__init__(message, code="N009", where=where, fix=_AGAIN)
        self.retry_after_s = retry_after_s


def problem_error(status: int, body: bytes, retry_after: str | None, where: str) -> FeditError:
    """Return the error behind an HTTP answer of status 400 or more."""
    document = _document(body)
    try:
        problem = ProblemType(str(document.get("type")))
    except ValueError:
        return _without_problem(status, where)
    detail = _clean(document.get("detail")) or problem.title_text
    if problem is ProblemType.NOT_READY:
        said = WAITS_FOR_OPERATOR if document.get("code") == WAITS_FOR_OPERATOR else None
        return NotReadyError(detail, _seconds(retry_after), code=said)
    if problem is ProblemType.RATE_LIMITED:
        return BusyError(f"the server asks for fewer requests: {detail}", where, _seconds(retry_after))
    if problem in _RETRYABLE:
        retry_code, words = _RETRYABLE[problem]
        return TransportError(f"{words}: {detail}", code=retry_code, where=where, fix=_AGAIN)
    if problem in _SECURITY:
        return SecurityError(problem, detail, code=_SECURITY[problem], where=where, fix=_FIXES.get(problem))
    code = document.get("code")
    known = code if isinstance(code, str) and _CODE.match(code) and code[0] in "TK" else None
    return ProtocolError(problem, detail, code=known, where=where, fix=_FIXES.get(problem))


@contextmanager
def translating(host: str, port: int) -> Iterator[None]:
    """Turn what aiohttp raises into a TransportError, or a SecurityError where the far side's identity is in doubt."""
    where = f"{host}:{port}"
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise _certificate_error(error.certificate_error, where) from error
    except aiohttp.ClientConnectorSSLError as error:
        raise TransportError(f"the TLS handshake with {where} failed; is it a fedit-server?", code="N005", where=where,
                             fix=_look(where)) from error  # fmt: skip
    except aiohttp.ClientConnectorDNSError as error:
        raise TransportError(f"no address is known for the host {host}", code="N003", where=where,
                             fix=f"check the spelling of the link, or: {_look(where)}") from error  # fmt: skip
    except aiohttp.ClientConnectorError as error:
        raise _connect_error(error.os_error, host, port) from error
    except TimeoutError as error:
        raise TransportError(f"{where} did not answer in time", code="N004", where=where,
                             fix=_look(where)) from error  # fmt: skip
    except (aiohttp.ClientError, OSError) as error:
        raise TransportError(f"the connection to {where} broke", code="N001", where=where,
                             fix=_AGAIN) from error  # fmt: skip


def _look(where: str) -> str:
    return f"fedit-client doctor --network --server https://{where}"


def _connect_error(error: OSError, host: str, port: int) -> TransportError:
    where = f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        return TransportError(f"no address is known for the host {host}", code="N003", where=where,
                              fix=f"check the spelling of the link, or: {_look(where)}")  # fmt: skip
    if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return TransportError(f"there is no route to {host}", code="N002", where=where,
                              fix=_look(where))  # fmt: skip
    if error.errno == errno.ECONNREFUSED or "refused" in str(error).lower():
        reason = "the connection was refused"
    else:
        reason = (error.strerror or type(error).__name__).lower()
    return TransportError(
        f"nothing answers at {host} port {port}: {reason}",
        code="N001",
        where=where,
        fix=f"{_look(where)} (the organiser sees with fedit-server status whether it is up)",
    )


def _certificate_error(error: Exception, where: str) -> FeditError:
    words = str(getattr(error, "verify_message", "") or error).lower()
    if "expired" in words or "not yet valid" in words:
        return SecurityError(ProblemType.CLOCK_SKEW, f"the server's certificate is not valid at this time: {words}",
                             code="T007", where=where, fix=_FIXES[ProblemType.CLOCK_SKEW])  # fmt: skip
    if isinstance(error, ssl.SSLCertVerificationError):
        return SecurityError(
            ProblemType.BAD_SIGNATURE,
            f"the connection is not to the server of this federation: {words}; nothing was sent; a proxy may open it",
            code="T002",
            where=where,
            fix=_look(where),
        )
    return TransportError(f"the TLS handshake failed: {words}", code="N005", where=where, fix=_look(where))


def _without_problem(status: int, where: str) -> FeditError:
    if status >= 500 or status in _TRY_AGAIN:
        return TransportError(f"the server answered with status {status}", code="N006", where=where,
                              fix=_AGAIN)  # fmt: skip
    return ProtocolError(ProblemType.MALFORMED, f"the server answered with status {status} and no problem document",
                         where=where, fix=f"{_look(where)}; is it a FedIT server?")  # fmt: skip


def _document(body: bytes) -> dict[str, object]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _clean(text: object) -> str:
    """A server's words are shown on a terminal: no control characters, no endless lines."""
    return _UNPRINTABLE.sub("", text)[:_MAX_DETAIL] if isinstance(text, str) else ""


def _seconds(retry_after: str | None) -> float:
    return min(float(retry_after), 60.0) if retry_after and retry_after.isdigit() else 1.0
