"""The admin API's door: who is let in, for what, and how each refusal looks."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import RIGHTS, Right, Role, role_of
from fedit_server.access.sessions import COOKIE, CSRF_HEADER
from fedit_server.access.tokens import PREFIX as SECRET_PREFIX
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import NewLink, NewToken
from fedit_server.routes.admin import ENDPOINTS
from fedit_server.routes.admin.endpoint import MOST_BODY_BYTES, Endpoint

from .callers import EXAMPLES, Caller, caller, token
from .conftest import Running, start


@pytest_asyncio.fixture
async def running(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with start(tmp_path / "home", clock) as server:
        yield server


def concrete(endpoint: Endpoint) -> str:
    return endpoint.path.format(**EXAMPLES)


def test_each_right_belongs_to_some_role_and_an_admin_has_all() -> None:
    assert RIGHTS[Role.ADMIN] == frozenset(Right)
    assert RIGHTS.keys() == set(Role)
    assert RIGHTS[Role.METRICS] == {Right.METRICS}
    assert Right.GOVERN not in RIGHTS[Role.OPERATOR]
    assert role_of("owner") is Role.ADMIN


async def test_each_endpoint_takes_exactly_the_roles_of_the_table(running: Running) -> None:
    for role in Role:
        somebody = await caller(running, role)
        for endpoint in ENDPOINTS:
            status, problem, _ = await somebody.send(endpoint.method, concrete(endpoint))
            let_in = endpoint.right is None or endpoint.right in RIGHTS[role]
            assert (status not in (401, 403)) == let_in, (role, endpoint.method, endpoint.path)
            if not let_in:
                assert problem["code"] == "T111"
                assert f"the role {role} may not do this; it needs admin" in problem["detail"]


async def test_nobody_is_let_in_without_a_token(running: Running) -> None:
    for endpoint in ENDPOINTS:
        for stranger in (Caller(running), Caller(running, SECRET_PREFIX + "x" * 43), Caller(running, "é")):
            status, problem, headers = await stranger.send(endpoint.method, concrete(endpoint))
            assert (status, problem["code"]) == (401, "T110")
            assert headers["WWW-Authenticate"] == 'Bearer realm="fedit"'
            assert headers["Content-Type"].startswith("application/problem+json")


async def test_a_token_ends_by_time_and_by_revocation(running: Running) -> None:
    brief = Caller(running, await token(running, Role.ADMIN, 60))
    assert (await brief.send("GET", "/tokens"))[0] == 200
    running.clock.advance(seconds=60)
    status, problem, _ = await brief.send("GET", "/tokens")
    assert (status, problem["code"], problem["detail"]) == (401, "T112", "this token is expired")
    admin = await caller(running, Role.ADMIN)
    listed = (await admin.send("GET", "/tokens"))[1]["tokens"]
    mine = next(one for one in listed if one["state"] == "active")
    assert (await admin.send("DELETE", f"/tokens/{mine['id']}"))[1]["state"] == "revoked"
    assert (await admin.send("GET", "/tokens"))[1]["detail"] == "this token is revoked"


async def test_secrets_are_shown_once_and_kept_as_hashes(running: Running) -> None:
    admin = await caller(running, Role.ADMIN)
    status, made, _ = await admin.send("POST", "/tokens", value={"role": "viewer", "name": "wall screen"})
    assert (status, made["token"]["role"], made["token"]["last_used"]) == (200, "viewer", None)
    assert (await Caller(running, made["secret"]).send("GET", "/session"))[1]["rights"] == ["read"]
    listed = (await admin.send("GET", "/tokens"))[1]
    assert made["secret"] not in json.dumps(listed)
    assert "recently" in {one["last_used"] for one in listed["tokens"]}
    for path in running.home.root.rglob("fedit.db*"):
        assert made["secret"].encode() not in path.read_bytes()


BAD_BODIES = {
    "no JSON": (b"{", {}, 400, "U112"),
    "nothing": (b"", {}, 400, "U112"),
    "not UTF-8": (b'{"role": "\xff"}', {}, 400, "U112"),
    "an unknown field": (b'{"role": "viewer", "rights": "all"}', {}, 422, "U111"),
    "an unknown role": (b'{"role": "god"}', {}, 422, "U111"),
    "a number as text": (b'{"role": "viewer", "lifetime_s": "60"}', {}, 422, "U111"),
    "too short a life": (b'{"role": "viewer", "lifetime_s": 59}', {}, 422, "U111"),
    "a list": (b"[]", {}, 422, "U111"),
    "a form": (b"role=viewer", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "U114"),
    "too much": (b" " * (MOST_BODY_BYTES + 1), {}, 413, "U116"),
    "an answer that nobody makes": (b'{"role": "viewer"}', {"Accept": "text/html"}, 406, "U113"),
}


async def test_a_bad_request_is_told_what_is_wrong(running: Running) -> None:
    admin = await caller(running, Role.ADMIN)
    for name, (content, headers, wanted, code) in BAD_BODIES.items():
        sent = {"Content-Type": "application/json", **headers}
        status, problem, _ = await admin.send("POST", "/tokens", content=content, headers=sent)
        assert (status, problem["code"], problem["status"]) == (wanted, code, wanted), name
        assert problem["fix"], name


async def test_wrong_methods_queries_and_ids_are_refused(running: Running) -> None:
    admin = await caller(running, Role.ADMIN)
    status, problem, headers = await admin.send("PUT", "/tokens", value={})
    assert (status, headers["Allow"]) == (405, "GET,HEAD,POST")
    assert problem["status"] == 405
    assert (await admin.send("GET", "/tokens?everything=1"))[1]["code"] == "U111"
    assert (await admin.send("DELETE", "/tokens/00000000"))[1]["code"] == "U025"
    assert (await admin.send("DELETE", "/tokens/nonsense"))[0] == 404


async def test_there_are_no_more_tokens_than_the_settings_allow(tmp_path: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock) as running:
        few = running.parts.admin.config.model_copy(update={"most_tokens": 2})
        admin = await caller(running, Role.ADMIN)
        object.__setattr__(running.parts.admin, "config", few)
        assert (await admin.send("POST", "/tokens", value={"role": "viewer"}))[0] == 200
        status, problem, _ = await admin.send("POST", "/tokens", value={"role": "viewer"})
    assert (status, problem["code"]) == (409, "U115")


async def signed_in(running: Running, role: Role = Role.ADMIN) -> tuple[Caller, str]:
    """Return a browser that a login link has signed in, and its CSRF token."""
    link = (await tokens.create_link(running.parts.admin, NewLink(role=role))).link
    stranger = Caller(running)
    status, told, headers = await stranger.send("POST", "/session", value={"login": link.partition("#login=")[2]})
    assert status == 200
    cookie = headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}={SECRET_PREFIX}")
    for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/"):
        assert attribute in cookie
    return Caller(running, Cookie=cookie.partition(";")[0]), told["csrf"]


async def test_a_login_link_is_good_once_and_for_ten_minutes(running: Running) -> None:
    made = await tokens.create_link(running.parts.admin, NewLink())
    secret = made.link.partition("#login=")[2]
    stranger = Caller(running)
    assert (await stranger.send("POST", "/session", value={"login": secret}))[0] == 200
    status, problem, _ = await stranger.send("POST", "/session", value={"login": secret})
    assert (status, problem["detail"]) == (401, "this login link is used")
    late = (await tokens.create_link(running.parts.admin, NewLink())).link.partition("#login=")[2]
    running.clock.advance(seconds=600)
    assert (await stranger.send("POST", "/session", value={"login": late}))[1]["code"] == "T112"
    assert (await Caller(running, secret).send("GET", "/tokens"))[1]["code"] == "T110"


async def test_a_session_reads_with_its_cookie_and_changes_with_its_csrf_token(running: Running) -> None:
    browser, csrf = await signed_in(running)
    assert (await browser.send("GET", "/tokens"))[0] == 200
    assert (await browser.send("GET", "/session"))[1]["csrf"] == csrf
    status, problem, _ = await browser.send("POST", "/tokens", value={"role": "viewer"})
    assert (status, problem["code"]) == (403, "T113")
    other = (await signed_in(running))[1]
    assert (await browser.send("POST", "/tokens", value={"role": "viewer"}, headers={CSRF_HEADER: other}))[0] == 403
    assert (await browser.send("POST", "/tokens", value={"role": "viewer"}, headers={CSRF_HEADER: csrf}))[0] == 200
    status, _, headers = await browser.send("DELETE", "/session", headers={CSRF_HEADER: csrf})
    assert (status, "Max-Age=0" in headers["Set-Cookie"]) == (204, True)
    assert (await browser.send("GET", "/tokens"))[1]["code"] == "T112"


async def test_each_change_is_one_line_of_the_audit_log(running: Running) -> None:
    admin = await caller(running, Role.ADMIN)
    made = (await admin.send("POST", "/tokens", value={"role": "viewer", "name": "x"}))[1]
    await admin.send("DELETE", f"/tokens/{made['token']['id']}")
    await admin.send("DELETE", f"/tokens/{made['token']['id']}")
    lines = [line.content for line in await running.parts.store.audit.lines(0, 10)]
    assert [(line.action, line.role) for line in lines] == [
        ("token.create", "admin"), ("token.create", "admin"), ("token.revoke", "admin"),
    ]  # fmt: skip
    assert lines[0].who == "local command"
    assert lines[1].who.startswith("token ")
    assert (lines[2].subject, lines[2].request != "") == (made["token"]["id"], True)


async def test_a_change_that_fails_leaves_no_line(running: Running) -> None:
    admin = running.parts.admin
    made = await tokens.create_token(admin, NewToken(role=Role.VIEWER))

    async def revoke_halfway() -> None:
        async with admin.change("token.revoke", made.token.id):
            await admin.store.tokens.revoke(made.token.id, 0)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        await revoke_halfway()
    assert await admin.store.audit.size() == 1
    assert (await tokens.list_tokens(admin)).tokens[0].state == "active"


async def test_one_address_cannot_ask_without_end(running: Running) -> None:
    stranger = Caller(running)
    answers = [(await stranger.send("GET", "/session"))[0] for _ in range(601)]
    assert set(answers[:600]) == {401}
    assert answers[600] == 429
