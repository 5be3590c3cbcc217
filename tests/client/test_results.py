"""Results of evaluations as lines of files: written, read, paired, summarised, and shown on one page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedit_client.data import records_from
from fedit_client.evaluation import Measured, RowFigures
from fedit_client.evaluation.results import ModelResult, aligned, read_results, results_of, write_results
from fedit_client.evaluation.summary import summarise
from fedit_protocol.errors import EvaluationError

ROWS = ("r1", "r2", "r3", "r4")
LOSSES = {"base": 3.0, "client 1": 2.6, "client 2": 2.4, "FedIT": 2.42, "central": 2.4}
ROLES = {"base": "base", "client 1": "local", "client 2": "local", "FedIT": "fed", "central": "central"}


def result(name: str, loss: float, seed: int | None = None, **fields: Any) -> ModelResult:
    values = {"name": name, "seed": seed, "rows": ROWS, "categories": ("a", "a", "b", "b"), "tokens": (10,) * 4,
              "losses": tuple(10 * loss * scale for scale in (0.9, 1.1, 1.0, 1.0)), "right": (5, 5, 2, 2),
              "role": ROLES.get(name, ""), **fields}  # fmt: skip
    return ModelResult.model_validate(values)


def federation() -> list[ModelResult]:
    found = [result("base", LOSSES["base"])]
    for seed in (1, 2, 3):
        found += [result(name, loss + seed / 1000, seed) for name, loss in LOSSES.items() if name != "base"]
    return found


def test_a_result_is_its_figures() -> None:
    found = result("FedIT", 2.0, rouge=(1.0, 0.0, None, None))
    assert found.by_category == pytest.approx({"a": 2.0, "b": 2.0})
    assert found.loss == pytest.approx(2.0)
    assert found.perplexity == pytest.approx(7.389, abs=1e-3)
    assert found.accuracy == pytest.approx(0.35)
    assert (found.std, found.jain, found.rouge_l) == pytest.approx((0.0, 1.0, 0.5))


def test_results_come_back_from_files_and_the_last_of_a_name_and_seed_counts(tmp_path: Path) -> None:
    write_results(tmp_path / "new" / "a.jsonl", [result("FedIT", 2.0, 1), result("FedIT", 2.1, 2)])
    write_results(tmp_path / "b.jsonl", [result("FedIT", 1.9, 1)])
    found = read_results([tmp_path / "new" / "a.jsonl", tmp_path / "b.jsonl"])
    assert {one.seed: round(one.loss, 6) for one in found} == {1: 1.9, 2: 2.1}


BROKEN = {
    "no JSON": b"{",
    "another file": b'{"instruction": "a"}',
    "rows that differ in number": result("x", 1.0).line().replace(b'"r1",', b""),
    "a row without tokens": result("x", 1.0).line().replace(b"[10,", b"[0,"),
    "nothing": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_no_result_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(EvaluationError) as refused:
        read_results([tmp_path / "file"])
    assert (refused.value.code, refused.value.exit_code) == ("V001", 13)


def test_rows_in_another_order_are_paired_and_other_rows_refused() -> None:
    ours = result("a", 2.0)
    turned = result("b", 2.0, rows=ROWS[::-1], categories=("b", "b", "a", "a"), losses=(4.0, 3.0, 2.0, 1.0))
    assert aligned(ours, turned).losses == (1.0, 2.0, 3.0, 4.0)
    for other in ({"rows": ("r1", "r2", "r3", "r5")}, {"tokens": (10, 10, 10, 11)}):
        with pytest.raises(EvaluationError) as refused:
            aligned(ours, result("b", 2.0, **other))
        assert refused.value.code == "V002"


def test_a_row_that_is_there_twice_is_paired_twice() -> None:
    ours = result("a", 2.0, rows=("r1", "r1", "r2", "r3"))
    theirs = result("b", 2.0, rows=("r1", "r2", "r1", "r3"), losses=(1.0, 2.0, 3.0, 4.0))
    assert aligned(ours, theirs).losses == (1.0, 3.0, 2.0, 4.0)


def test_records_that_were_measured_become_results_in_the_order_of_the_file() -> None:
    rows = [{"instruction": f"Say {n}", "response": "ok", "category": "ab"[n % 2]} for n in range(3)]
    records = records_from(rows).records
    figures = {"base": RowFigures(np.array([3.0, 1.0, 2.0]), np.ones(3))}
    measured = Measured(("a", "a", "b"), np.array([3.0, 1.0, 2.0]), figures, 0, (2, 0, 1))
    (found,) = results_of(measured, records, roles={"base": "base"}, rouge={"base": [None, 0.5, None]})
    assert (found.losses, found.categories, found.tokens) == ((1.0, 2.0, 3.0), ("a", "b", "a"), (1, 2, 3))
    assert (found.rouge_l, found.role, len(set(found.rows))) == (0.5, "base", 3)
    assert ("numpy" in found.versions, found.facts) == (True, {})  # nobody has measured what the measuring costs


def test_what_measuring_a_model_costs_stands_beside_it_over_its_seeds() -> None:
    records = records_from([{"instruction": "Say", "response": "ok"}]).records
    found = []
    for seed, seconds in ((1, 2.0), (2, 3.0)):
        figures = {
            "base": RowFigures(np.ones(1), np.ones(1), 4.0), "FedIT": RowFigures(np.ones(1), np.ones(1), seconds)
        }  # fmt: skip
        measured = Measured(("",), np.ones(1), figures, places=(0,), peak_bytes=1_500_000_000)
        found += results_of(measured, records, facts={"FedIT": {"precision": "nf4"}}, seed=seed)
    assert found[1].facts == {"precision": "nf4", "seconds": 2.0, "peak_bytes": 1.5e9}
    head, (base, fedit) = summarise(found).table()
    assert head[-2:] == ["s to measure", "peak GB"]
    assert (base[-2:], fedit[-2:]) == (["4.00", "1.50"], ["2.50", "1.50"])
    unmeasured = found[0].model_copy(update={"name": "other", "facts": {}})
    assert summarise([*found, unmeasured]).table()[1][2][-2:] == ["–", "–"]


def test_a_summary_says_what_is_better_over_seeds_and_how_much_of_the_gap_is_closed() -> None:
    found = summarise(federation())
    data = found.as_data()
    assert data["models"]["FedIT"]["seeds"] == [1, 2, 3]
    assert data["models"]["FedIT"]["loss_std"] == pytest.approx(0.001)
    assert data["models"]["FedIT"]["relative_score"] == pytest.approx(np.exp(3.0 - 2.422))
    assert data["differences"]["FedIT"]["verdict"] == "better"
    assert data["differences"]["FedIT"]["by_seed"] == ["better"] * 3
    (gap,) = data["gap_recovered"]
    assert gap["whole"]["change"] == pytest.approx(0.8)
    assert any(
        line.startswith("FedIT recovers 80 % (95 % interval 80 to 80 %) of the gap between alone and central")
        for line in found.lines()
    )
    against = summarise(federation(), "client 2")
    assert against.differences["client 1"].verdict == "worse"
    with pytest.raises(EvaluationError) as refused:
        summarise(federation(), "absent")
    assert refused.value.code == "V004"


class Links(HTMLParser):
    """Every address that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_report_is_one_page_that_needs_nothing_else() -> None:
    pytest.importorskip("matplotlib")
    from fedit_client.evaluation.report import Page, add_losses

    hostile = result("<script>alert(1)</script>", 2.0)
    pages = []
    for _ in range(2):
        page = Page("Evaluation")
        add_losses(page, summarise([*federation(), hostile]))
        pages.append(page.html())
    assert pages[0] == pages[1]
    links = Links()
    links.feed(pages[0])
    assert len(links.found) == 3
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links.found)
    assert "<script" not in pages[0]
    assert re.search(r"FedIT recovers 80 %", pages[0])


def test_lines_are_published_json(tmp_path: Path) -> None:
    write_results(tmp_path / "a.jsonl", [result("FedIT", 2.0, 1)])
    assert json.loads((tmp_path / "a.jsonl").read_text())["schema"] == "fedit.evaluation/1"
