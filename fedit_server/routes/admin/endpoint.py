"""What an endpoint of the admin API is, and how one is asked, by a request or by a command beside the store.

An endpoint is a line of data: method, path, who may, what comes in, what goes out. The HTTP routes, the local commands
and the OpenAPI document are all made from it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from fedit_server.access.roles import Right
from fedit_server.access.tokens import Caller
from fedit_server.admin.models.common import FileReply, Query
from fedit_server.admin.operations import Admin
from fedit_server.problems import AdminProblem, InvalidError, MalformedError

PREFIX: Final = "/api/v1"
MOST_BODY_BYTES: Final = 256 * 1024

PARAMETERS: Final[dict[str, tuple[str, str]]] = {
    "task_id": ("[a-z0-9][a-z0-9-]{0,63}", "A task's id."),
    "number": ("[1-9][0-9]{0,8}", "A round's number within its task."),
    "version": ("0|[1-9][0-9]{0,8}", "An adapter version of the task."),
    "client_id": ("[0-9a-f]{4,64}", "A device's id, or how it begins."),
    "code": ("[0-9A-Z]{4}-[0-9A-Z]{4}", "The code that a waiting device shows."),
    "invite_id": ("[0-9a-f]{8}", "An invite's id."),
    "token_id": ("[0-9a-f]{8}", "The id of a token, a login link or a session."),
    "webhook_id": ("[0-9a-f]{8}", "A webhook's id."),
    "file_name": (r"[A-Za-z0-9_-]{1,64}\.[a-z]{2,12}", "A file of the adapter's folder."),
}
"""Name in a path → pattern, and what it is."""


@dataclass(frozen=True)
class Asked:
    """A question whose parts fit their endpoint."""

    path: Mapping[str, str]
    query: Any
    body: Any


Handle = Callable[[Admin, Asked], Awaitable[BaseModel | FileReply | None]]


@dataclass(frozen=True)
class Endpoint:
    """One thing that the admin API does."""

    method: str
    path: str
    """Below `PREFIX`, with the names of `PARAMETERS` in braces."""
    right: Right | None
    """What a caller needs; None where anybody who is known may."""
    summary: str
    handle: Handle = field(repr=False)
    reply: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    query: type[Query] = Query
    refusals: tuple[AdminProblem, ...] = ()
    """What it may be refused with, besides what every endpoint is."""
    media: str = "application/json"
    is_open: bool = False
    """Whether it takes callers that nobody knows."""

    @property
    def is_file(self) -> bool:
        """Whether it answers with bytes, of which a Range header may ask a part."""
        return self.media == "application/octet-stream"

    @property
    def status(self) -> int:
        """The status of success."""
        return 204 if self.reply is None and self.media == "application/json" else 200

    @property
    def needs_body(self) -> bool:
        """Whether it makes no sense without a body: some field has no default."""
        return self.body is not None and any(field.is_required() for field in self.body.model_fields.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters in the path."""
        return tuple(re.findall(r"{(\w+)}", self.path))

    @property
    def route(self) -> str:
        """The path as aiohttp's router takes it."""
        return PREFIX + re.sub(r"{(\w+)}", lambda found: f"{{{found[1]}:{PARAMETERS[found[1]][0]}}}", self.path)

    def check_right(self, caller: Caller) -> None:
        """Raise ForbiddenError T111 unless the caller may."""
        if self.right is not None:
            caller.need(self.right)

    def match(self, path: str) -> Mapping[str, str] | None:
        """Return the parameters of a concrete path below `PREFIX`, or None if it is another endpoint's."""
        parts = re.split(r"{(\w+)}", self.path)
        pattern = "".join(f"(?P<{p}>{PARAMETERS[p][0]})" if i % 2 else re.escape(p) for i, p in enumerate(parts))
        found = re.fullmatch(pattern, path)
        return found and found.groupdict()


async def answer(
    endpoint: Endpoint, admin: Admin, path: Mapping[str, str], query: Mapping[str, str], body: bytes
) -> BaseModel | FileReply | None:
    """Check a question against its endpoint and answer it; raises RefusalError."""
    endpoint.check_right(admin.caller)
    return await endpoint.handle(admin, Asked(path, _query(endpoint, query), body_of(endpoint, body)))


def _query(endpoint: Endpoint, query: Mapping[str, str]) -> Query:
    try:
        return endpoint.query.model_validate(dict(query))
    except ValidationError as error:
        raise InvalidError(_first(error, "the query")) from error


def body_of(endpoint: Endpoint, body: bytes) -> BaseModel | None:
    """Return the body as its endpoint's model; raises MalformedError U112, InvalidError U111."""
    if endpoint.body is None:
        if body.strip():
            raise InvalidError("this takes no body")
        return None
    try:
        return endpoint.body.model_validate_json(body if body.strip() or endpoint.needs_body else b"{}")
    except ValidationError as error:
        if error.errors(include_input=False, include_url=False)[0]["type"] == "json_invalid":
            raise MalformedError("the body is not JSON") from error
        raise InvalidError(_first(error, "the body")) from error


def _first(error: ValidationError, where: str) -> str:
    """Return the first thing that is wrong, without the value: it may be a secret in the wrong field."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    name = ".".join(map(str, first["loc"])) or where
    reason = first["msg"].removeprefix("Value error, ")
    return f"{name}: {reason[:1].lower()}{reason[1:]}"
