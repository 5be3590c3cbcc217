"""What the admin API shows and changes, over HTTP, and the audit log that remembers it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fedit_protocol.enrollment import InviteLink
from fedit_protocol.errors import StorageError
from fedit_protocol.ids import client_id
from fedit_protocol.testing import ManualClock
from fedit_server.access.roles import Role
from fedit_server.admin import audit
from fedit_server.admin.models.audit import AuditLineInfo, AuditSigners
from fedit_server.admin.operations import Admin
from fedit_server.commands.operations import LocalOperations
from fedit_server.config import ServerConfig

from .bases import small_task
from .callers import Caller, caller
from .conftest import start
from .devices import RefusedError
from .test_rounds import TASK, newest_round, play


async def test_tasks_rounds_and_adapters_over_http(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base, round={"rounds": 5})) as running:
        viewer, operator = await caller(running, Role.VIEWER), await caller(running, Role.OPERATOR)
        devices = await running.join(3)
        for _ in range(2):
            await play(running, devices, {})
            await asyncio.gather(*(device.result() for device in devices))
        status = await viewer.get("/status")
        task = await viewer.get(f"/tasks/{TASK}")
        first = await viewer.get(f"/tasks/{TASK}/rounds?limit=1")
        second = await viewer.get(f"/tasks/{TASK}/rounds?limit=1&after={first['next']}")
        one = await viewer.get(f"/tasks/{TASK}/rounds/1")
        versions = await viewer.get(f"/tasks/{TASK}/adapters?limit=2")
        detail = await viewer.get(f"/tasks/{TASK}/adapters/2")
        back = await operator.post(f"/tasks/{TASK}/adapters/1:rollback")
        again, problem, _ = await operator.send("POST", f"/tasks/{TASK}/adapters/1:rollback")
        paused = await operator.post(f"/tasks/{TASK}:pause", {"reason": "a fair"})
        dry = await edit(operator, {"round": {"rounds": 9}}, dry_run=True)
        made = await edit(operator, {"round": {"rounds": 9}})
        same, problem_of_same, _ = await operator.send("PATCH", f"/tasks/{TASK}", value={"changes": {}})
        wrong, _, _ = await operator.send("PATCH", f"/tasks/{TASK}", value={"changes": {"nonsense": 1}})
        content = {**task["task"], "id": "second"}
        draft = await operator.post("/tasks", {"task": content, "draft": True, "owner": "Ada"})
        twice, _, _ = await operator.send("POST", "/tasks", value={"task": content})
        ended, problem_of_round, _ = await operator.send("POST", f"/tasks/{TASK}/rounds/1:abort")
        listed = await viewer.get("/tasks")
        name = next(file for file in detail["files"] if file["name"].endswith(".safetensors"))
        part, content, headers = await viewer.send(
            "GET", f"/tasks/{TASK}/adapters/2/files/{name['name']}", headers={"Range": "bytes=0-7"}
        )
        missing, _, _ = await viewer.send("GET", f"/tasks/{TASK}/adapters/2/files/secret.key")
    assert (status["tasks"][0]["committed"], status["clients"]["enrolled"]) == (2, 3)
    assert task["task"]["id"] == TASK
    assert [(page["rounds"][0]["no"], page["next"]) for page in (first, second)] == [(2, 2), (1, None)]
    assert one == second["rounds"][0]
    assert ([row["version"] for row in versions["adapters"]], versions["next"]) == ([2, 1], 1)
    assert (back["version"], back["content_of"]) == (3, 1)
    assert (again, problem["code"]) == (409, "U025")
    assert (paused["state"], listed["tasks"][0]["state"]) == ("paused", "paused")
    assert (part, len(content), headers["Content-Range"]) == (206, 8, f"bytes 0-7/{name['size']}")
    assert missing == 404
    assert ((dry["published"], dry["version"]), (made["published"], made["version"])) == ((False, 2), (True, 2))
    assert made["changes"] == [{"name": "round.rounds", "old": "5", "new": "9"}]
    assert (same, problem_of_same["code"], wrong, twice) == (409, "U125", 422, 409)
    assert (draft["state"], draft["owner"]) == ("draft", "Ada")
    assert (ended, problem_of_round["code"]) == (409, "U124")


async def edit(operator: Caller, changes: dict[str, Any], **options: bool) -> Any:
    """Change a task's settings."""
    status, made, _ = await operator.send("PATCH", f"/tasks/{TASK}", value={"changes": changes, **options})
    assert status == 200, made
    return made


@pytest.mark.sqlite
async def test_devices_are_blocked_unblocked_revoked_and_forgotten(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base), long_poll_s=0.05) as running:
        operator, admin = await caller(running, Role.OPERATOR), await caller(running, Role.ADMIN)
        invite = await operator.post("/invites", {"uses": 2})
        code = InviteLink.parse(invite["link"]).code
        device, other = running.device(), running.device()
        await device.enroll(code, "desk")
        await other.enroll(code, "shelf")
        name = client_id(device.key.public)
        page = await operator.get("/clients?limit=1")
        rest = await operator.get(f"/clients?after={page['next']}")
        blocked = await operator.post(f"/clients/{name[:8]}:block")
        with pytest.raises(RefusedError):
            await device.check_in()
        shown = await operator.get(f"/clients/{name}")
        await operator.post(f"/clients/{name}:unblock")
        await device.check_in()
        seen = await operator.get(f"/clients/{name}")
        early, problem, _ = await admin.send("POST", f"/clients/{name}:forget")
        refused, _, _ = await operator.send("POST", f"/clients/{name}:revoke")
        await admin.send("PUT", f"/evaluators/{name[:8]}")
        appointed = await operator.get("/evaluators")
        revoked = await admin.post(f"/clients/{name}:revoke")
        back, _, _ = await operator.send("POST", f"/clients/{name}:unblock")
        forgotten = await admin.post(f"/clients/{name}:forget")
        used = await operator.get("/invites")
        unknown, _, _ = await operator.send("POST", "/clients/abcd:block")
    assert (len(page["clients"]), len(rest["clients"]), rest["next"]) == (1, 1, None)
    assert (blocked["state"], shown["label"], shown["last_seen"]) == ("blocked", "desk", "recently")
    assert (shown["client_version"], seen["client_version"]) == ("", "0.1.0")
    assert (early, problem["code"], refused) == (409, "U030", 403)
    assert [one["label"] for one in appointed["evaluators"]] == ["desk"]
    assert (revoked["state"], revoked["logged"], back, forgotten["state"]) == ("revoked", True, 409, "revoked")
    assert [(one["uses"], one["state"]) for one in used["invites"]] == [(2, "used")]
    assert unknown == 404


@pytest.mark.sqlite
async def test_a_held_round_is_decided_over_http(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    gates: dict[str, object] = {"gates": {"max_coordinate": 0.1, "hold": ["max_coordinate"]}}
    async with start(tmp_path / "home", clock, small_task(base, top=gates), long_poll_s=0.05) as running:
        operator = await caller(running, Role.OPERATOR)
        devices = await running.join(3)
        await play(running, devices, {})
        await asyncio.gather(*(device.result() for device in devices))
        held = (await operator.get("/status"))["tasks"][0]["held"]
        decided = await operator.post(f"/tasks/{TASK}/rounds/1:reject", {"reason": "too far"})
        twice, problem, _ = await operator.send("POST", f"/tasks/{TASK}/rounds/1:approve")

        async def is_over() -> bool:
            return (await newest_round(running)).reason.endswith(": too far")

        await running.until(is_over)
    assert (held["no"], held["decision"], decided["decision"]) == (1, "", "reject")
    assert (twice, problem["code"]) == (409, "U030")


async def whole(auditor: Caller) -> tuple[AuditSigners, list[dict[str, Any]]]:
    """Return the log as an auditor reads it, page by page."""
    rows, after = [], 0
    while after is not None:
        page = await auditor.get(f"/audit?limit=2&after={after}")
        rows += page["lines"]
        after = page["next"]
    return AuditSigners.model_validate_json(json.dumps(await auditor.get("/audit/signers"))), rows


def checked(signers: AuditSigners, rows: list[dict[str, Any]]) -> audit.Checked:
    return audit.check_log(signers, [AuditLineInfo(**row) for row in rows])


@pytest.mark.sqlite
async def test_the_audit_log_shows_every_change_and_every_tampering(
    tmp_path: Path, base: Path, clock: ManualClock
) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        admin, auditor = await caller(running, Role.ADMIN), await caller(running, Role.AUDITOR)
        await admin.post(f"/tasks/{TASK}:pause")
        await admin.post("/invites", {})
        async with Admin.open(ServerConfig.load({"home": tmp_path / "home"}, {})) as beside:
            await LocalOperations(beside).ask("POST", f"/tasks/{TASK}:resume")
        signers, rows = await whole(auditor)
        pin = running.parts.identity.pin
    assert [(row["action"], row["who"].partition(" ")[0]) for row in rows] == [
        ("token.create", "local"), ("token.create", "local"), ("task.pause", "token"),
        ("invite.create", "token"), ("task.resume", "local"),
    ]  # fmt: skip
    assert (checked(signers, rows).size, checked(signers, rows).pin) == (5, pin)
    changes = {
        "another who": [*rows[:2], {**rows[2], "who": "nobody"}, *rows[3:]],
        "an entry cut out": [*rows[:2], *rows[3:]],
        "two swapped": [rows[1], rows[0], *rows[2:]],
        "a head of another length": [*rows[:4], {**rows[4], "head": rows[3]["head"]}],
    }
    for name, changed in changes.items():
        with pytest.raises(StorageError) as found:
            checked(signers, changed)
        assert found.value.code == "S110", name
    assert checked(signers, rows[:3]).size == 3  # cut at the end it still holds together …
    with pytest.raises(StorageError, match="does not continue"):  # … so an earlier export is what shows it
        audit.check_grown([AuditLineInfo(**row) for row in rows], [AuditLineInfo(**row) for row in rows[:3]])
    with pytest.raises(StorageError, match="another federation"):
        checked(signers.model_copy(update={"pin": "sha256:" + "0" * 64}), rows)


@pytest.mark.sqlite
async def test_events_follow_a_round_and_end_with_the_token(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    async with start(tmp_path / "home", clock, small_task(base)) as running:
        viewer, metrics = await caller(running, Role.VIEWER), await caller(running, Role.METRICS)
        refused, _, _ = await metrics.send("GET", "/events")
        devices = await running.join(3)
        async with running.http.get("/api/v1/events", headers=viewer.headers) as stream:
            quiet = await stream.content.readuntil(b"\n\n")
            await asyncio.gather(*(device.offer() for device in devices))
            told = await stream.content.readuntil(b"\n\n")
            clock.advance(seconds=3600)
            running.parts.coordinator.look_again()
            rest = await stream.content.read()  # to its end
    event = json.loads(told.partition(b"data: ")[2])
    assert (stream.content_type, quiet, refused) == ("text/event-stream", b": alive\n\n", 403)
    assert told.startswith(b"event: round\n")
    assert (event["task"], event["round"], event["state"]) == (TASK, 1, "open")
    assert all(client_id(device.key.public).encode() not in told + rest for device in devices)
