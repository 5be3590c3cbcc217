"""The OpenAPI document: valid, complete, served to anybody, and true about what it refuses."""

import re
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role
from fedit_server.routes.admin import ENDPOINTS, events, openapi_document, session
from fedit_server.routes.admin.endpoint import PREFIX
from fedit_server.routes.admin.openapi import rights_lines

from .callers import EXAMPLES, Caller, caller
from .conftest import start

ROOT = Path(__file__).parents[2]
DOCUMENT = openapi_document()


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_endpoint_is_in_it_and_nothing_else() -> None:
    served = {(one.method.lower(), PREFIX + one.path) for one in (*ENDPOINTS, *session.ENDPOINTS, *events.ENDPOINTS)}
    assert {(method, path) for path, methods in DOCUMENT["paths"].items() for method in methods} == served
    names = [one["operationId"] for methods in DOCUMENT["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


def test_each_change_is_said_to_be_protected() -> None:
    open_to_all = [
        (method, path)
        for path, methods in DOCUMENT["paths"].items()
        for method, one in methods.items()
        if not one["security"]
    ]
    assert open_to_all == [("post", f"{PREFIX}/session")]


def test_bodies_say_their_bounds() -> None:
    schema = DOCUMENT["components"]["schemas"]["NewToken"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["lifetime_s"]["minimum"] == 60
    assert schema["properties"]["role"]


async def test_anybody_may_read_it_and_it_tells_the_truth_about_refusals(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        async with running.http.get("/openapi.json") as reply:
            assert (reply.status, await reply.json()) == (200, DOCUMENT)
        nobody, admin = Caller(running), await caller(running, Role.ADMIN)
        for one in ENDPOINTS:
            told = DOCUMENT["paths"][PREFIX + one.path][one.method.lower()]["responses"]
            path = one.path.format(**EXAMPLES)
            for asks, query in ((nobody, ""), (admin, ""), (admin, "?nothing=1")):
                status, _, _ = await asks.send(one.method, path + query)
                assert str(status) in told, (one.method, one.path, status)


def test_the_manual_has_the_table_of_rights() -> None:
    manual = (ROOT / "fedit_server" / "OPERATING.md").read_text("utf-8")
    assert "\n".join(rights_lines()) in manual


@pytest.mark.parametrize("path", sorted(DOCUMENT["paths"]))
def test_paths_are_named_as_the_design_says(path: str) -> None:
    assert re.fullmatch(r"/api/v1(/[a-z]+|/\{[a-z_]+\})+(:[a-z]+)?", path)
