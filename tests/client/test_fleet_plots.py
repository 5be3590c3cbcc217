"""A series' plot: each seed's losses and their mean."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fedit_client.fleet.plots import curve, mean_curve, write_plots, write_series_plots
from fedit_client.fleet.series import write_series
from fedit_client.fleet.settings import FleetSettings
from fedit_client.fleet.tally import ROUNDS_FILE

needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason='needs matplotlib: pip install "fedit[eval]"'
)


def line(number: int, version: int | None, train: float | None, held_out: float | None = None) -> dict[str, Any]:
    """A round's line, as far as plots look at it."""
    return {
        "round": number, "outcome": "failed" if version is None else "committed", "adapter_version": version,
        "train_loss": train, "held_out_loss": held_out, "clients": 5, "survivors": 4,
    }  # fmt: skip


ONE = [line(1, 1, 4.0, 5.0), line(2, None, 3.9), line(3, 2, 3.0, 4.0), line(4, 3, 2.0, 3.0)]
TWO = [line(1, 1, 2.0, 3.0), line(2, 2, 1.0)]


def test_seeds_are_set_beside_each_other_by_committed_rounds_and_the_mean_is_over_all_of_them() -> None:
    committed = [one for one in ONE if one["outcome"] == "committed"]
    curves = [curve(committed, "train_loss"), curve(TWO, "train_loss")]
    assert curves == [{1: 4.0, 2: 3.0, 3: 2.0}, {1: 2.0, 2: 1.0}]
    assert mean_curve(curves) == {1: 3.0, 2: 2.0}
    assert curve(TWO, "held_out_loss") == {1: 3.0}
    assert mean_curve([]) == {}


@needs_matplotlib
def test_a_series_has_a_plot_of_its_own_in_its_report(tmp_path: Path) -> None:
    for seed, rounds in ((7, ONE), (8, TWO)):
        (tmp_path / f"seed-{seed}").mkdir()
        lines = "".join(json.dumps(one) + "\n" for one in rounds)
        (tmp_path / f"seed-{seed}" / ROUNDS_FILE).write_text(lines)
    summaries = {seed: {"rounds": 2, "last_held_out_loss": 3.0} for seed in (7, 8)}
    write_series(tmp_path, FleetSettings("local", "rows", 5, seeds=2), summaries)
    assert (tmp_path / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "![loss.png](plots/loss.png)" in (tmp_path / "report.md").read_text()


@needs_matplotlib
@pytest.mark.parametrize("of_each", [{}, {7: []}, {7: [line(1, None, 3.0)]}])
def test_a_series_without_a_committed_round_has_none(of_each: dict[int, list[dict[str, Any]]], tmp_path: Path) -> None:
    assert write_series_plots(tmp_path / "plots", of_each) == []
    assert not (tmp_path / "plots").exists()


def test_without_matplotlib_the_report_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert write_plots(tmp_path / "plots", ONE) == []
    write_series(tmp_path, FleetSettings("local", "rows", 5, seeds=2), {7: {"rounds": 2, "last_held_out_loss": 3.0}})
    assert "Plots need matplotlib" in (tmp_path / "report.md").read_text()
