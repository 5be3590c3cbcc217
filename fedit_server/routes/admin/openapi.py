"""The OpenAPI 3.1 document of the admin API, made from its endpoints and models: nothing is written twice."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import Field
from pydantic.json_schema import models_json_schema

from fedit_server.access.roles import RIGHTS, Right, who_may
from fedit_server.access.sessions import COOKIE, CSRF_HEADER
from fedit_server.admin.models.common import Reply
from fedit_server.problems import ADMIN_STATUS, AdminProblem
from fedit_server.routes.admin.endpoint import MOST_BODY_BYTES, PARAMETERS, PREFIX, Endpoint

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
_REFERENCE: Final = "#/components/schemas/{model}"
_NUMBERS: Final = {"number": 1, "version": 0}
"""Parameters that are whole numbers, with the smallest."""

_MOST_NUMBER: Final = 999_999_999


class Problem(Reply):
    """Why a request was refused (RFC 9457); `fedit-server help CODE` says more."""

    type: str = Field(description="urn:fedit:error:NAME, or about:blank where the status says it all.")
    title: str
    status: int
    detail: str | None = None
    code: str | None = Field(None, pattern="^[A-Z][0-9]{3}$", description="FEDIT's own number for it.")
    fix: str | None = Field(None, description="The one thing that helps.")


def document(endpoints: Iterable[Endpoint], version: str) -> dict[str, Any]:
    """Return the whole document."""
    listed = tuple(endpoints)
    schemas, definitions = models_json_schema(
        [
            *((one.body, "validation") for one in listed if one.body),
            *((one.query, "validation") for one in listed),
            *((one.reply, "serialization") for one in listed if one.reply),
            (Problem, "serialization"),
        ],
        ref_template=_REFERENCE,
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in listed:
        paths.setdefault(PREFIX + one.path, {})[one.method.lower()] = _Operation(one, schemas).as_data()
    unused = {model.__name__ for model in {one.query for one in listed}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "FedIT admin API",
            "version": version,
            "description": _rights_table(),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {k: v for k, v in definitions.get("$defs", {}).items() if k not in unused},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "fedit-server token create"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": f"With {CSRF_HEADER}."},
            },
        },
    }


class _Operation:
    """One endpoint in the words of OpenAPI."""

    def __init__(self, endpoint: Endpoint, schemas: Mapping[Any, Mapping[str, Any]]) -> None:
        self._endpoint = endpoint
        self._schemas = schemas

    def as_data(self) -> dict[str, Any]:
        one = self._endpoint
        words = re.sub(r"\W+", "_", one.path.replace("{", "by_")).strip("_")
        found: dict[str, Any] = {
            "operationId": f"{one.method.lower()}_{words}",
            "summary": one.summary,
            "tags": [re.split(r"[/:]", one.path)[1]],
            "parameters": [*self._in_path(), *self._in_query()],
            "responses": self._responses(),
        }
        if one.right is not None:
            found["description"] = f"Needs the right `{one.right}`: {who_may(one.right)}."
        if one.body is not None:
            found["requestBody"] = {
                "required": one.needs_body,
                "description": f"At most {MOST_BODY_BYTES} bytes.",
                "content": {JSON: {"schema": self._schemas[one.body, "validation"]}},
            }
        found["security"] = [] if one.is_open else [{"token": []}, {"session": []}]
        return found

    def _in_path(self) -> Iterator[dict[str, Any]]:
        for name in self._endpoint.names:
            pattern, said = PARAMETERS[name]
            schema: dict[str, Any] = {"type": "string", "pattern": f"^({pattern})$"}
            if name in _NUMBERS:
                schema = {"type": "integer", "minimum": _NUMBERS[name], "maximum": _MOST_NUMBER}
            yield {"name": name, "in": "path", "required": True, "description": said, "schema": schema}

    def _in_query(self) -> Iterator[dict[str, Any]]:
        described = self._endpoint.query.model_json_schema()
        for name, field in described.get("properties", {}).items():
            choices = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
            schema = {key: value for key, value in choices[0].items() if key not in ("title", "description")}
            if field.get("default") is not None:
                schema["default"] = field["default"]
            required = name in described.get("required", ())
            said = field.get("description", "")
            yield {"name": name, "in": "query", "required": required, "description": said, "schema": schema}

    def _responses(self) -> dict[str, Any]:
        one = self._endpoint
        told: dict[str, Any] = {str(one.status): self._success()}
        if one.is_file:
            told["206"] = {**self._success(), "description": "The part that a Range header asks for."}
            told["416"] = {"description": "There is no such part."}
        problems = {ADMIN_STATUS[problem]: problem.title_text for problem in _problems(one)}
        statuses = {**problems, 429: "too many requests", **({408: "the body came too slowly"} if one.body else {})}
        for status, said in sorted(statuses.items()):
            response: dict[str, Any] = {
                "description": said,
                "content": {PROBLEM: {"schema": self._schemas[Problem, "serialization"]}},
            }
            if status == ADMIN_STATUS[AdminProblem.UNAUTHENTICATED]:
                response["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
            told[str(status)] = response
        return told

    def _success(self) -> dict[str, Any]:
        one = self._endpoint
        if one.reply is not None:
            return {"description": "Done.", "content": {JSON: {"schema": self._schemas[one.reply, "serialization"]}}}
        if one.media == JSON:
            return {"description": "Done; there is nothing to say."}
        return {"description": "The content.", "content": {one.media: {"schema": {"type": "string"}}}}


def _problems(one: Endpoint) -> set[AdminProblem]:
    """Return everything that an endpoint may be refused with."""
    found = {AdminProblem.UNAUTHENTICATED, AdminProblem.NOT_ACCEPTABLE, AdminProblem.INVALID, *one.refusals}
    if one.right is not None or one.method != "GET":
        found.add(AdminProblem.FORBIDDEN)
    if one.names:
        found.add(AdminProblem.NOT_FOUND)
    if one.method != "GET":
        found.add(AdminProblem.TOO_LARGE)
    if one.body is not None:
        found |= {AdminProblem.MALFORMED, AdminProblem.UNSUPPORTED_MEDIA}
    return found


def rights_lines() -> list[str]:
    """Return the table of roles and rights in Markdown, for OPERATING.md and for the document."""
    head = f"| role | {' | '.join(Right)} |"
    rows = [
        f"| {role} | {' | '.join('yes' if r in of_role else '–' for r in Right)} |" for role, of_role in RIGHTS.items()
    ]
    return [head, "|---" * (len(Right) + 1) + "|", *rows]


def _rights_table() -> str:
    return "Who may do what:\n\n" + "\n".join(rights_lines())


def route(endpoints: Iterable[Endpoint], version: str) -> web.RouteDef:
    """Return the route that serves the document to anybody: it holds no secret."""
    made = functools.cache(lambda: document(endpoints, version))

    async def serve(_: web.Request) -> web.Response:
        return web.json_response(made())

    return web.get("/openapi.json", serve)
