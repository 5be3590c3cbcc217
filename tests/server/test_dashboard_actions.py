"""What pages change: only by a form of the session's own page, only with the right role, always in the audit log."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest
import pytest_asyncio

from fedit_protocol.catalogue import TaskState
from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role
from fedit_server.admin import tokens
from fedit_server.admin.models.tokens import NewToken
from fedit_server.dashboard.actions import picture
from fedit_server.storage.rows import ClientState

from .bases import make_base, small_task
from .conftest import Running, start
from .devices import RefusedError
from .histories import NOTES, add_clients
from .looking import Operator, Outline, sign_in
from .test_held_rounds import holding, is_over, played

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEVICE = f"{1:064x}"
FORMS = ("/invites", "/invites/00000000/revoke", "/tokens/link", "/tokens/00000000/revoke", f"/clients/{DEVICE}/block",
         f"/clients/{DEVICE}/unblock", "/tasks/notes/pause", "/tasks/notes/resume", "/tasks/notes/rounds/1/approve",
         "/tasks/notes/rounds/1/reject", "/tasks/notes/rounds/1/abort", "/tasks/notes/close",
         "/editor", "/editor/check", "/tasks/notes/adapters/0/rollback")  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp("actions")
    async with start(folder / "home", ManualClock(), small_task(make_base(folder / "base"))) as running:
        await add_clients(running.parts.store, 3)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def owner(running: Running) -> Operator:
    return await sign_in(running)


async def newest(running: Running) -> tuple[str, str]:
    """The newest line of the audit log: what was done, and to what."""
    (line,) = await running.parts.store.audit.newest(1)
    return line.content.action, line.content.subject


@pytest.mark.parametrize("path", FORMS)
async def test_a_form_from_elsewhere_changes_nothing(path: str, running: Running, owner: Operator) -> None:
    viewer, before = await sign_in(running, Role.VIEWER), await running.parts.store.audit.size()
    stranger = Operator(running, "", "")
    for somebody, csrf, status, code in (
        (owner, "", 403, "FEDIT-T113"),
        (owner, viewer.csrf, 403, "FEDIT-T113"),
        (viewer, None, 403, "FEDIT-T111"),
        (stranger, None, 401, "Sign in"),
    ):
        answered, text, _ = await somebody.post(path, csrf=csrf)
        assert (answered, code in text) == (status, True)
    assert await running.parts.store.audit.size() == before


async def test_a_bearer_token_is_for_programs_and_fills_in_no_form(running: Running) -> None:
    secret = (await tokens.create_token(running.parts.admin, NewToken(role=Role.ADMIN))).secret
    headers = {"Authorization": f"Bearer {secret}"}
    async with running.http.get("/overview.json", headers=headers) as reply:
        assert reply.status == 200
    async with running.http.post("/tasks/notes/pause", data={"csrf": ""}, headers=headers) as reply:
        assert reply.status == 401


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("multipart/form-data", b"no boundary", 415),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=link\r\n\r\nunended", 415),
        (f"{FORM}; charset=nonsense", b"link=%41", 401),
        (FORM, b"link=\xff", 400),
        (FORM, b"link=%ff", 400),
        (FORM, b"a=1&" * 101, 400),
        (FORM, b"a" * (1024 * 1024 + 1), 413),
    ],
)  # fmt: skip
async def test_what_is_no_form_is_refused_with_a_page(kind: str, content: bytes, status: int, running: Running) -> None:
    async with running.http.post("/sign-in", data=BytesIO(content), headers={"Content-Type": kind}) as reply:
        assert (reply.status, reply.content_type) == (status, "text/html")
        assert "<h1" in await reply.text()


async def test_an_invite_is_shown_once_as_a_line_and_as_a_picture(running: Running, owner: Operator) -> None:
    status, text, headers = await owner.post("/invites", uses="7", days="3")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    page = Outline.of(text)
    assert (page.inline, page.unbalanced) == ([], [])
    assert "fedit-client join --server" in page.text
    assert running.parts.identity.pin.removeprefix("sha256:") in page.text
    assert "<svg" in text
    invite = json.loads((await owner.get("/invites.json"))[1])["invites"][0]
    assert (invite["max_uses"], invite["uses"], invite["state"]) == (7, 0, "active")
    assert (await newest(running))[0] == "invite.create"
    status, _, headers = await owner.post(f"/invites/{invite['id']}/revoke")
    assert (status, headers["Location"]) == (303, "/invites?told=revoked")
    assert await newest(running) == ("invite.revoke", invite["id"])
    for wrong in ({"uses": "0", "days": "3"}, {"uses": "-1", "days": "3"}, {"uses": "٣", "days": "3"}, {"uses": "1"}):
        assert (await owner.post("/invites", **wrong))[0] == 422


async def test_a_picture_of_an_invite_is_a_qr_code_without_a_style_of_its_own() -> None:
    drawn = picture("fedit://example.org/j/AAAA#sha256:00")
    assert drawn.startswith("<svg")
    assert "style" not in drawn
    assert "example.org" not in drawn


async def test_a_task_is_paused_and_goes_on(running: Running, owner: Operator) -> None:
    for verb, state in (("pause", TaskState.PAUSED), ("resume", TaskState.ACTIVE)):
        status, _, headers = await owner.post(f"/tasks/notes/{verb}")
        assert (status, headers["Location"]) == (303, f"/tasks/notes?told={verb}")
        row = await running.parts.store.tasks.task(NOTES)
        assert row is not None
        assert row.state is state
        assert (await newest(running))[0] == f"task.{verb}"
        text = Outline.of((await owner.get(headers["Location"]))[1])
        assert f"/tasks/notes/{'resume' if verb == 'pause' else 'pause'}" in text.actions


async def test_a_device_is_kept_out_and_what_cannot_be_is_said(running: Running, owner: Operator) -> None:
    status, _, headers = await owner.post(f"/clients/{DEVICE}/block")
    assert (status, headers["Location"]) == (303, "/clients?told=blocked")
    (row,) = [row for row in await running.parts.store.members.clients() if row.client_id == DEVICE]
    assert row.state is ClientState.BLOCKED
    assert await newest(running) == ("client.block", DEVICE)
    status, text, _ = await owner.post(f"/clients/{DEVICE}/unblock")
    assert (status, "no valid certificate" in text) == (409, True), "this one never had one"


async def test_what_there_is_not_cannot_be_changed(owner: Operator) -> None:
    for path in ("/tasks/none/pause", "/tasks/notes/rounds/1/approve", "/invites/ffffffff/revoke"):
        status, text, _ = await owner.post(path)
        assert status in (404, 422), text
    status, text, _ = await owner.post("/tasks/notes/adapters/0/rollback")
    assert (status, "is what there is now" in text) == (409, True)


FILE = """
id = "notes"
title = "Notes"

[base]
model = "{base}"

[adapter]
rank = 2
target_modules = ["q_proj", "v_proj"]

[encoding]
value_range = 1.0
clip_norm = 100.0

[round]
cohort_min = 3
cohort_size = 3
rounds = {rounds}
"""


async def file_of(running: Running, rounds: int) -> str:
    row = await running.parts.store.tasks.task(NOTES)
    assert row is not None
    return FILE.format(base=row.document.task.base.model, rounds=rounds)


async def test_the_editor_says_what_devices_will_be_asked_and_publishes(running: Running, owner: Operator) -> None:
    _, text, _ = await owner.get("/editor?task=notes")
    assert "clip_norm = 100.0" in text
    longer = await file_of(running, 7)
    status, text, _ = await owner.post("/editor/check", task="notes", toml=longer)
    said = Outline.of(text)
    assert status == 200
    assert "notes@2 can be published" in said.text
    assert "Owners of devices will be asked about" in said.text
    assert "<del>2</del>" in text
    assert "<ins>7</ins>" in text
    status, _, headers = await owner.post("/editor", task="notes", toml=longer, do="publish")
    assert (status, headers["Location"]) == (303, "/tasks/notes?told=published")
    row = await running.parts.store.tasks.task(NOTES)
    assert row is not None
    assert (row.version, row.document.task.round.rounds) == (2, 7)
    assert await newest(running) == ("task.edit", "notes")
    assert "edited" in Outline.of((await owner.get("/tasks/notes"))[1]).text


WRONG = {
    "no TOML": ("id = ", "C011"),
    "an unknown key": ("hooks = 1\nid = 'a'\ntitle = 'a'\n[base]\nmodel = 'a'", "C013"),
    "an infeasible cohort": ("id='a'\ntitle='a'\n[base]\nmodel='a'\n[round]\ncohort_min=3\ncohort_size=3\nthreshold=9",
                             "C020"),
    "markup": ("id = '<script>'\ntitle = 'a'\n[base]\nmodel = 'a'", "C013"),
    "too much of it": ("#" * (257 * 1024), "C010"),
}  # fmt: skip


@pytest.mark.parametrize(("toml", "code"), WRONG.values(), ids=WRONG)
async def test_what_is_no_task_is_not_published_and_stays_in_the_editor(
    toml: str, code: str, running: Running, owner: Operator
) -> None:
    before = await running.parts.store.audit.size()
    status, text, _ = await owner.post("/editor", task="", toml=toml, do="publish")
    assert (status, f"FEDIT-{code}" in text) == (422, True)
    assert toml[:30].split("\n", maxsplit=1)[0].replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;") in text
    assert "<script>'" not in text
    assert await running.parts.store.audit.size() == before


async def test_a_new_task_is_kept_as_a_draft_then_opened_and_put_away(running: Running, owner: Operator) -> None:
    text = (await file_of(running, 3)).replace('"notes"', '"letters"')
    status, said, _ = await owner.post("/editor", task="", toml=text, do="check")
    assert (status, "letters@1 can be published" in said) == (200, True)
    status, _, headers = await owner.post("/editor", task="", toml=text, do="draft")
    assert (status, headers["Location"]) == (303, "/tasks/letters?told=kept")
    for verb, state in (("open", "active"), ("close", "finished"), ("archive", "archived")):
        status, told, headers = await owner.post(f"/tasks/letters/{verb}")
        assert (status, headers.get("Location")) == (303, f"/tasks/letters?told={verb}"), told
        assert json.loads((await owner.get("/tasks/letters.json"))[1])["state"] == state
    status, told, _ = await owner.post("/tasks/letters/open")
    assert (status, "FEDIT-U120" in told) == (409, True)


@pytest.mark.parametrize(("verb", "state"), [("approve", "committed"), ("reject", "failed")])
async def test_a_held_round_is_decided_on_its_page(
    verb: str, state: str, tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, holding(base)) as held:
        await played(held)
        operator = await sign_in(held, Role.OPERATOR)
        page = Outline.of((await operator.get("/tasks/notes/rounds/1"))[1])
        assert "would become adapter version 1" in page.text
        assert f"/tasks/notes/rounds/1/{verb}" in page.actions
        status, _, headers = await operator.post(f"/tasks/notes/rounds/1/{verb}", note="<b>too far</b>")
        assert (status, headers["Location"].partition("?")[0]) == (303, "/tasks/notes/rounds/1")
        await held.until(lambda: is_over(held))
        text = (await operator.get("/tasks/notes/rounds/1"))[1]
        assert state in Outline.of(text).text
        assert "<b>" not in text
        if verb == "reject":
            assert "rejected by the operator: <b>too far</b>" in Outline.of(text).text
        status, said, _ = await operator.post(f"/tasks/notes/rounds/1/{verb}")
        assert (status // 100, "FEDIT-U030" in said) == (4, True)


async def test_an_open_round_is_aborted_on_its_page(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        devices = await running.join(3)
        await asyncio.gather(*(device.offer() for device in devices))
        operator = await sign_in(running, Role.OPERATOR)
        assert "/tasks/notes/rounds/1/abort" in Outline.of((await operator.get("/tasks/notes/rounds/1"))[1]).actions
        sent = asyncio.create_task(operator.post("/tasks/notes/rounds/1/abort", note="wrong rows"))
        await running.until(lambda: is_over(running))
        status, _, headers = await sent
        assert (status, headers["Location"]) == (303, "/tasks/notes/rounds/1?told=aborted")
        round_ = json.loads((await operator.get("/tasks/notes/rounds/1.json"))[1])
    assert round_["state"] == "failed"
    assert "wrong rows" in round_["reason"]


async def test_a_device_waits_until_it_is_let_in_by_the_code_that_it_shows(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        operator = await sign_in(running, Role.OPERATOR)
        _, text, _ = await operator.post("/invites", uses="2", days="1", approve="yes")
        code = Outline.of(text).text.partition("/j/")[2].partition("#")[0].replace("-", "")
        device = running.device()
        with pytest.raises(RefusedError):
            await device.enroll(code, label="ward desk")
        (waiting,) = json.loads((await operator.get("/clients.json"))[1])["waiting"]
        assert waiting["label"] == "ward desk"
        page = Outline.of((await operator.get("/clients"))[1])
        assert "Waiting to be let in" in page.text
        path = f"/clients/waiting/{waiting['code']}/approve"
        assert path in page.actions
        status, _, headers = await operator.post(path)
        assert (status, headers["Location"]) == (303, "/clients?told=admitted")
        await device.enroll(code, label="ward desk")
        assert json.loads((await operator.get("/clients.json"))[1])["counts"]["active"] == 1
