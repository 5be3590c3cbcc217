"""What a fleet writes of its rounds: its own figures, and those that only its server knows."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedit_client.fleet.report import write_report
from fedit_client.fleet.settings import FleetSettings
from fedit_client.fleet.tally import ServersReport, Tally, read_rounds
from fedit_client.network.metering import Traffic
from fedit_client.records.round_notes import RoundFacts
from fedit_protocol.messages import Offer, RoundOutcome, RoundResult

REPORTS: dict[int, Mapping[str, Any]] = {
    1: {"train_loss": 2.0, "coverage": 0.75, "not_covered": ["poems"], "method": {"audit_error": 0.25}},
    3: {"coverage": 1.0, "not_covered": [], "method": {"audit_error": 0.125, "side_rank": 8.0}},
}


async def servers_report(number: int) -> Mapping[str, Any]:
    return REPORTS[number]


def ended(tally: Tally, number: int, outcome: RoundOutcome = RoundOutcome.COMMITTED) -> None:
    """Let the one client of a round end it."""
    result = RoundResult(outcome=outcome, reason="", adapter_version=number, adapter_digest=f"sha256:{'0' * 64}",
                         survivors=4, cohorts=1, sums_done=1)  # fmt: skip
    committed = outcome is RoundOutcome.COMMITTED
    known: dict[str, Any] = {"round_no": number}
    facts = RoundFacts(Offer.model_construct(**known), "committed" if committed else "lost",
                       "" if committed else "too few came", result if committed else None, None, ())  # fmt: skip
    tally.began(number, 0)
    tally.ended(0, facts, Traffic(), None)


def three_rounds(folder: Path, report: ServersReport | None, told: list[int]) -> Tally:
    tally = Tally(folder, lambda line: told.append(line["round"]), servers_report=report)
    ended(tally, 1)
    ended(tally, 2, RoundOutcome.FAILED)
    ended(tally, 3)
    tally.close()
    return tally


async def test_a_line_has_coverage_and_the_figures_of_the_method_that_the_server_reports(tmp_path: Path) -> None:
    told: list[int] = []
    tally = three_rounds(tmp_path, servers_report, told)
    assert (tally.committed, told, read_rounds(tmp_path)) == (2, [], [])
    await tally.complete()
    first, failed, third = read_rounds(tmp_path)
    assert told == [1, 2, 3]
    assert (first["coverage"], first["not_covered"], first["method"]) == (0.75, ["poems"], {"audit_error": 0.25})
    assert (failed["coverage"], failed["not_covered"], failed["method"]) == (None, [], {})
    assert (third["coverage"], third["method"]["side_rank"]) == (1.0, 8.0)
    await tally.complete()
    assert told == [1, 2, 3]


async def test_a_line_that_waits_for_the_server_is_not_lost_when_the_fleet_is_stopped_meanwhile(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def slow_once(number: int) -> Mapping[str, Any]:
        if not asked.is_set():
            asked.set()
            await asyncio.Event().wait()
        return REPORTS[number]

    tally = three_rounds(tmp_path, slow_once, [])
    writing = asyncio.create_task(tally.complete())
    await asked.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await tally.complete()
    assert [(line["round"], line["coverage"]) for line in read_rounds(tmp_path)] == [(1, 0.75), (2, None), (3, 1.0)]


def test_at_another_server_lines_are_written_at_once_without_them(tmp_path: Path) -> None:
    told: list[int] = []
    three_rounds(tmp_path, None, told)
    assert told == [1, 2, 3]
    assert {(line["coverage"], str(line["method"])) for line in read_rounds(tmp_path)} == {(None, "{}")}


async def test_the_report_and_the_summary_have_them(tmp_path: Path) -> None:
    await three_rounds(tmp_path, servers_report, []).complete()
    settings = FleetSettings("local", "rows", 5)
    summary = write_report(tmp_path, read_rounds(tmp_path), settings, {})
    page = (tmp_path / "report.md").read_text().splitlines()
    assert json.loads((tmp_path / "summary.json").read_text())["mean_coverage"] == summary["mean_coverage"] == 0.875
    assert summary["last_method"] == {"audit_error": 0.125, "side_rank": 8.0}
    head = page.index("| round | coverage | nobody has | `audit_error` | `side_rank` |")
    assert page[head + 2 : head + 5] == [
        "| 1 | 75% | poems | 0.25 | – |", "| 2 | – | – | – | – |", "| 3 | 100% | none | 0.125 | 8 |"
    ]  # fmt: skip
    (tmp_path / "rounds.jsonl").unlink()
    three_rounds(tmp_path, None, [])
    write_report(tmp_path, read_rounds(tmp_path), settings, {})
    assert "What the server reports" not in (tmp_path / "report.md").read_text()
