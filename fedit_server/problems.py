"""One list of wire errors, one way out: every error leaves as problem details (RFC 9457)."""

import logging
import math
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Final

from aiohttp import web

from fedit_protocol.errors import ConfigError, ProblemType, ProtocolError, StorageError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

STATUS: Final[dict[ProblemType, int]] = {
    ProblemType.MALFORMED: 400,
    ProblemType.TOO_LARGE: 413,
    ProblemType.VERSION_MISMATCH: 400,
    ProblemType.BAD_SIGNATURE: 401,
    ProblemType.CLOCK_SKEW: 401,
    ProblemType.NOT_ENROLLED: 403,
    ProblemType.INVITE_REFUSED: 403,
    ProblemType.INVITE_EXPIRED: 410,
    ProblemType.INVITE_USED: 410,
    ProblemType.RATE_LIMITED: 429,
    ProblemType.UNKNOWN_TASK: 404,
    ProblemType.UNKNOWN_ROUND: 404,
    ProblemType.UNKNOWN_BLOB: 404,
    ProblemType.NOT_IN_COHORT: 403,
    ProblemType.STAGE_MISMATCH: 409,
    ProblemType.NOT_READY: 425,
    ProblemType.TOO_LATE: 410,
    ProblemType.CONFLICT: 409,
    ProblemType.KEY_REFUSED: 400,
    ProblemType.CONTEXT_MISMATCH: 409,
    ProblemType.DIGEST_MISMATCH: 422,
    ProblemType.OFFSET_MISMATCH: 409,
    ProblemType.ROUND_FAILED: 410,
    ProblemType.POLICY_REFUSED: 403,
    ProblemType.ENCODING_REFUSED: 422,
    ProblemType.SURVIVORS_REFUSED: 409,
    ProblemType.STORE_FULL: 507,
    ProblemType.INTERNAL: 500,
}
"""Problem type → HTTP status."""

RETRY_AFTER_S: Final[dict[ProblemType, int]] = {
    ProblemType.NOT_READY: 1,
    ProblemType.RATE_LIMITED: 60,
    ProblemType.STORE_FULL: 30,
    ProblemType.INTERNAL: 5,
}

PROBLEM: Final = web.ResponseKey("problem", str)
"""On an answer: the problem type that it tells, for whoever counts."""

_CONTENT_TYPE: Final = "application/problem+json"

log = logging.getLogger(__name__)


class AdminProblem(StrEnum):
    """What can go wrong in the admin API, as problem types (RFC 9457, section 3.1.1) that no device meets."""

    UNAUTHENTICATED = "urn:fedit:error:unauthenticated"
    FORBIDDEN = "urn:fedit:error:forbidden"
    NOT_FOUND = "urn:fedit:error:not-found"
    CONFLICT = "urn:fedit:error:conflict"
    INVALID = "urn:fedit:error:invalid"
    MALFORMED = "urn:fedit:error:malformed"
    NOT_ACCEPTABLE = "urn:fedit:error:not-acceptable"
    UNSUPPORTED_MEDIA = "urn:fedit:error:unsupported-media-type"
    TOO_LARGE = "urn:fedit:error:too-large"
    QUOTA = "urn:fedit:error:quota"

    @property
    def title_text(self) -> str:
        """The name in words."""
        return self.value.rpartition(":")[2].replace("-", " ")


ADMIN_STATUS: Final[dict[AdminProblem, int]] = {
    AdminProblem.UNAUTHENTICATED: 401,
    AdminProblem.FORBIDDEN: 403,
    AdminProblem.NOT_FOUND: 404,
    AdminProblem.CONFLICT: 409,
    AdminProblem.INVALID: 422,
    AdminProblem.MALFORMED: 400,
    AdminProblem.NOT_ACCEPTABLE: 406,
    AdminProblem.UNSUPPORTED_MEDIA: 415,
    AdminProblem.TOO_LARGE: 413,
    AdminProblem.QUOTA: 409,
}
"""Admin problem → HTTP status."""


class RefusalError(ConfigError):
    """What an operator asked for cannot be done: an error of a command, and a problem of the admin API."""

    problem = AdminProblem.INVALID
    default_code = "U111"


class InvalidError(RefusalError):
    """A body or a query says something that the model does not take."""

    def __init__(self, message: str) -> None:
        super().__init__(message, fix="GET /openapi.json says what it takes: fedit-server openapi")


class MalformedError(RefusalError):
    """A body is not JSON."""

    problem = AdminProblem.MALFORMED
    default_code = "U112"

    def __init__(self, message: str) -> None:
        super().__init__(message, fix="send one JSON value, in UTF-8")


class UnacceptableError(RefusalError):
    """The answer's type is none of those that the request takes."""

    problem = AdminProblem.NOT_ACCEPTABLE
    default_code = "U113"

    def __init__(self, media: str) -> None:
        super().__init__(f"this answers in {media} only", fix=f"send Accept: {media}, or no Accept header")


class UnsupportedMediaError(RefusalError):
    """The body's type is not JSON."""

    problem = AdminProblem.UNSUPPORTED_MEDIA
    default_code = "U114"

    def __init__(self) -> None:
        super().__init__("a body has to be application/json", fix="send Content-Type: application/json")


class EncodedBodyError(RefusalError):
    """The body is compressed: what it would become is not bounded by what it is."""

    problem = AdminProblem.UNSUPPORTED_MEDIA
    default_code = "U150"

    def __init__(self) -> None:
        super().__init__("a body with a Content-Encoding is not taken", fix="send it as it is")


class TooLargeError(RefusalError):
    """The body is larger than any that makes sense."""

    problem = AdminProblem.TOO_LARGE
    default_code = "U116"

    def __init__(self, most: int) -> None:
        super().__init__(f"a body may have {most} bytes", fix="send less")


class NotFoundError(RefusalError):
    """There is no such thing."""

    problem = AdminProblem.NOT_FOUND
    default_code = "U025"


class StateConflictError(RefusalError):
    """The thing is in a state in which this makes no sense."""

    problem = AdminProblem.CONFLICT
    default_code = "U030"


class QuotaError(RefusalError):
    """There are as many of these as the settings allow."""

    problem = AdminProblem.QUOTA
    default_code = "U115"


class UnauthenticatedError(RefusalError):
    """Nobody knows who asks."""

    problem = AdminProblem.UNAUTHENTICATED
    default_code = "T110"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, fix="fedit-server token create --role ROLE, on the server's machine")


class ForbiddenError(RefusalError):
    """Who asks may not do this."""

    problem = AdminProblem.FORBIDDEN
    default_code = "T111"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(
            message, code=code, fix="ask for a token with another role: fedit-server token create --role ROLE"
        )


class ComeAgainError(ProtocolError):
    """Not now; the same request makes sense again after `retry_after_s`."""

    def __init__(self, problem: ProblemType, message: str, retry_after_s: float, *, code: str | None = None) -> None:
        super().__init__(problem, message, code=code)
        self.retry_after_s = retry_after_s


class RateLimitedError(ComeAgainError):
    """Too many requests; the next one counts again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(ProblemType.RATE_LIMITED, message, retry_after_s, code="T022")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with problem details; what is not meant for the wire becomes `internal`, logged by class.

    An encoded body is refused here: aiohttp would unpack it for any handler that reads it.
    """
    try:
        if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
            raise EncodedBodyError
        return await handler(request)
    except ProtocolError as error:
        return problem_response(error)
    except ConfigError as error:
        return refusal_response(error)
    except web.HTTPException as error:
        return _http_problem(error)
    except StorageError as error:
        log.error("the store failed: %s", error, extra={"code": error.code})
        return problem_response(as_problem(error))
    except ConnectionError as error:  # nobody is there to read the answer
        log.debug("a caller hung up")
        return problem_response(as_problem(error))
    except Exception as error:  # the last line: beyond it aiohttp would log the caller's address
        log.exception("a request failed")
        return problem_response(as_problem(error))


def as_problem(error: Exception) -> ProtocolError:
    """Return the wire's view of an error from inside the server: a full disk is worth saying, the rest is not."""
    if isinstance(error, StorageError) and error.code == "S004":
        return ProtocolError(
            ProblemType.STORE_FULL, "the server's disk is full; nothing was taken, try again later", code="S004"
        )
    return ProtocolError(ProblemType.INTERNAL, "the server failed; its log says why", code="X001")


def refusal_of(error: ConfigError) -> AdminProblem:
    """Return which problem of the admin API an operator's error is; those of commands beside the store go by code."""
    if isinstance(error, RefusalError):
        return error.problem
    if error.code == NotFoundError.default_code:
        return AdminProblem.NOT_FOUND
    return AdminProblem.CONFLICT if error.code.startswith("U") else AdminProblem.INVALID


def refusal_response(error: ConfigError) -> web.Response:
    """Return the problem document of an operator's error in the admin API."""
    problem = refusal_of(error)
    status = ADMIN_STATUS[problem]
    body = {
        "type": problem,
        "title": problem.title_text,
        "status": status,
        "detail": str(error),
        "code": error.code,
    }
    if error.fix:
        body["fix"] = error.fix
    # RFC 9110, section 11.6.1: a 401 says how to do it right.
    headers = {"WWW-Authenticate": 'Bearer realm="fedit"'} if status == web.HTTPUnauthorized.status_code else None
    return web.json_response(body, status=status, content_type=_CONTENT_TYPE, headers=headers)


def problem_response(error: ProtocolError) -> web.Response:
    """Return the problem document of an error."""
    status = STATUS[error.problem]
    body: dict[str, Any] = {
        "type": error.problem,
        "title": error.problem.title_text,
        "status": status,
        "detail": str(error),
        "code": error.code,
    }
    if error.fix:
        body["fix"] = error.fix
    response = web.json_response(body, status=status, content_type=_CONTENT_TYPE)
    response[PROBLEM] = str(error.problem)
    if isinstance(error, ComeAgainError):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    elif error.problem in RETRY_AFTER_S:
        response.headers["Retry-After"] = str(RETRY_AFTER_S[error.problem])
    if error.problem is ProblemType.TOO_LARGE:
        response.force_close()  # the rest of the body is not worth reading
    return response


def _http_problem(error: web.HTTPException) -> web.StreamResponse:
    if error.status < 400:
        raise error
    body = {"type": "about:blank", "title": error.reason, "status": error.status}
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return web.json_response(body, status=error.status, content_type=_CONTENT_TYPE, headers=headers)


def no_room() -> ProtocolError:
    """The error for a device that asks to join where there are as many as the settings allow."""
    return ProtocolError(ProblemType.POLICY_REFUSED, "this federation has as many devices as it takes", code="T118")
