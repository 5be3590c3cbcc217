"""What a round's report keeps of the audits of averaging, what commands and the page say of them, and the advice."""

import json
from pathlib import Path
from typing import Any

from sqlalchemy import update

from fedit_protocol.task import Task
from fedit_protocol.testing import ManualClock
from fedit_server.commands.words import diversity_lines, method_lines, round_lines, status_lines
from fedit_server.rounds.audit_figures import audit_figures
from fedit_server.storage.tables import rounds

from .bases import small_task
from .conftest import start
from .histories import NOTES, add_clients, add_rounds, offer_of
from .looking import Outline, sign_in


def task_of(base: Path, **method: Any) -> Task:
    return Task.model_validate(small_task(base).model_dump(mode="json") | {"method": method})


def after(task: Task, *errors: float | None) -> dict[str, Any]:
    """The report of the last of several rounds; None is a round without an audit."""
    report: dict[str, Any] = {}
    for number, error in enumerate(errors, 1):
        report = audit_figures(task, number, {} if error is None else {"audit_error": error}, report)
    return report


def test_two_audits_above_two_percent_advise_the_sketch_and_stay_known_between_audits(base: Path) -> None:
    task = task_of(base, audit_every=2)
    report = after(task, None, 0.024, None, 0.028, None)
    assert [one["round"] for one in report["audits"]] == [4, 2]
    assert list(method_lines(report)) == [
        "  audit    round 4 lost 2.8% of its change by averaging A and B apart (2.4% in round 2)",
        "  advice   two audits above 2%: fedit_rs gives most of it back, with 8 devices or more to the end",
    ]
    assert [line.split()[0] for line in status_lines(status_of(report)) if line.split()[0] in ("audit", "advice")] == [
        "audit",
        "advice",
    ]
    assert round_lines({"report": report})[1:] == list(method_lines(report))


def test_one_audit_or_a_small_error_among_the_last_two_advises_nothing(base: Path) -> None:
    task = task_of(base, audit_every=1)
    for errors in ((0.03,), (0.03, 0.02), (0.019, 0.03), (0.03, 0.03, 0.01)):
        report = after(task, *errors)
        assert report["advised"] is None
        assert [line.split()[0] for line in method_lines(report)] == ["audit"]
    assert after(task, 0.01, 0.03, 0.03)["advised"]


def test_a_method_of_its_own_is_not_advised_to_leave_it(base: Path) -> None:
    report = after(task_of(base, name="ditto", audit_every=1), 0.03, 0.03)
    assert report["advised"] is None
    assert len(report["audits"]) == 2


def test_without_audits_nothing_is_said(base: Path) -> None:
    assert after(task_of(base), None, None) == {}
    assert after(task_of(base, audit_every=5), None) == {}
    assert audit_figures(task_of(base), 3, {}, {"audits": [{"round": 1, "error": 0.5, "left": None}]}) == {}
    assert list(method_lines({})) == list(method_lines(None)) == []


def test_what_a_sketch_gave_back_and_what_travels_since_is_said(base: Path) -> None:
    made = {"audit_error": 0.031, "left_error": 0.009, "side_rank": 16.0, "side_capped": 1.0}
    report = audit_figures(task_of(base, audit_every=0), 1, made, None) | {"method": made}
    audit, side = method_lines(report)
    assert audit.endswith(
        "round 1 lost 3.1% of its change by averaging A and B apart; 0.9% after what the sketch gave back"
    )
    assert side == (
        "  side     what was given back travels as a second adapter of rank 16; its last cut dropped more than it"
        " should, which comes back later"
    )
    made = {"audit_error": 0.009, "left_error": 0.009, "side_rank": 8.0, "side_capped": 0.0}
    audit, side = method_lines(audit_figures(task_of(base), 2, made, report) | {"method": made})
    assert "0.9% of its change by averaging A and B apart (3.1% in round 1); nothing was given back" in audit
    assert side.endswith("of rank 8")


def test_how_unlike_updates_were_is_said_with_its_scale() -> None:
    report = {"survivors": 8, "method": {"diversity": 1.947}}
    said = "  unlike   gradient diversity 1.95: 1 if all devices sent the same, about 8 if each went its own way,"
    assert [line.startswith(said) for line in diversity_lines(report)] == [True]
    assert list(diversity_lines({"method": {}})) == list(diversity_lines({})) == list(diversity_lines(None)) == []


async def test_the_page_of_a_round_says_the_same(tmp_path: Path, base: Path, clock: ManualClock) -> None:
    task = task_of(base, audit_every=1)
    async with start(tmp_path / "home", clock, task) as running:
        store = running.parts.store
        row = await store.tasks.task(NOTES)
        assert row is not None
        names = await add_clients(store, 12)
        await add_rounds(store, 2, names, offer_of(running.parts.identity, row.document))
        report = {"train_loss": 1.0, **after(task, 0.024, 0.028), "method": {"diversity": 1.947}}
        async with store.database.writing() as db:
            await db.execute(update(rounds).where(rounds.c.round_no == 2).values(report=json.dumps(report)))
        owner = await sign_in(running)
        _, text, _ = await owner.get("/tasks/notes/rounds/2")
        _, twin, _ = await owner.get("/tasks/notes/rounds/2.json")
        _, plain, _ = await owner.get("/tasks/notes/rounds/1")
    assert "<p>Round 2 lost 2.8% of its change by averaging A and B apart (2.4% in round 1).</p>" in text
    assert "<p>Two audits above 2%: fedit_rs gives most of it back" in text
    assert (Outline.of(text).unbalanced, Outline.of(text).open_tags) == ([], [])
    assert [line.split()[0] for line in json.loads(twin)["averaging"]] == ["round", "two"]
    assert ">Gradient diversity<" in text
    assert ">1.95<" in text
    assert json.loads(twin)["diversity"] == 1.947
    assert "Lost by averaging" not in plain
    assert "Gradient diversity" not in plain


def status_of(report: dict[str, Any]) -> dict[str, Any]:
    """The data of `status` for one task whose last round says this."""
    plain = {"train_loss": 1.0, "held_out_loss": None, "survivors": 3, "examples": 30}
    named = {"id": "notes", "version": 1, "title": "Notes", "mode": "masked", "state": "finished", "reason": ""}
    counts = {"committed": 5, "failed": 0, "rounds": 5, "adapter_version": 5}
    return {
        "server": {"running": False},
        "clients": {"enrolled": 3},
        "certificate": None,
        "apart": False,
        "last_backup": None,
        "authority": {"apart": False, "waiting": 0, "waiting_since": None},
        "tasks": [{**named, **counts, "last_report": plain | report, "round": None, "held": None, "suspects": []}],
    }
