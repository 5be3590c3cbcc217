"""A fleet's plots, and a series' own: losses, and who was there, over the rounds. They need matplotlib."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

FOLDER: Final = "plots"
LOSS: Final = "loss.png"
CLIENTS: Final = "clients.png"
MISSING: Final = 'Plots need matplotlib: `pip install "fedit[eval]"`, then the same command with `--resume`.'
_LOSSES: Final = (
    ("train_loss", "training, mean over clients", "o", "tab:blue"),
    ("held_out_loss", "clients' held-out rows, before the round", "s", "tab:orange"),
)

Rounds = Sequence[dict[str, Any]]
"""The lines of a fleet's rounds."""


def write_plots(folder: Path, rounds: Rounds) -> list[str]:
    """Draw losses, and who was there, over the rounds; return the files' names, none without matplotlib."""
    if not can_plot() or not rounds:
        return []
    numbers = [line["round"] for line in rounds]
    loss, axes = _figure("round", "nats per token")
    for name, label, marker, colour in _LOSSES:
        axes.plot(numbers, [_or_gap(line[name]) for line in rounds], marker=marker, color=colour, label=label)
    axes.legend()
    there, axes = _figure("round", "clients")
    axes.bar(numbers, [line["survivors"] for line in rounds], label="in the sum")
    gone = [line["clients"] - line["survivors"] for line in rounds]
    axes.bar(numbers, gone, bottom=[line["survivors"] for line in rounds], label="not in the sum")
    axes.legend()
    return _saved(folder, {LOSS: loss, CLIENTS: there})


def write_series_plots(folder: Path, of_each_seed: Mapping[int, Rounds]) -> list[str]:
    """Draw each seed's losses thinly, and their mean; return the files' names, none without matplotlib."""
    committed = {seed: _committed(rounds) for seed, rounds in of_each_seed.items()}
    if not can_plot() or not any(committed.values()):
        return []
    loss, axes = _figure("committed round", "nats per token")
    for name, label, marker, colour in _LOSSES:
        curves = [one for rounds in committed.values() if (one := curve(rounds, name))]
        for number, one in enumerate(curves):
            each = None if number else f"{label}: each seed"
            axes.plot([*one], [*one.values()], color=colour, linewidth=0.8, alpha=0.4, label=each)
        if mean := mean_curve(curves):
            axes.plot([*mean], [*mean.values()], marker=marker, color=colour, linewidth=2, label="their mean")
    axes.legend()
    return _saved(folder, {LOSS: loss})


def can_plot() -> bool:
    """Say whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def curve(rounds: Rounds, name: str) -> dict[int, float]:
    """Return a loss by the version that its round made: rounds that came to nothing shift no seed against another."""
    return {line["adapter_version"]: line[name] for line in rounds if line[name] is not None}


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Return the mean of all curves where each of them has a value: a mean of fewer would jump where one ends."""
    shared = set.intersection(*map(set, curves)) if curves else set()
    return {number: fmean(one[number] for one in curves) for number in sorted(shared)}


def _committed(rounds: Rounds) -> Rounds:
    return [line for line in rounds if line["outcome"] == "committed"]


def _figure(across: str, upwards: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=upwards)
    axes.locator_params(axis="x", integer=True)
    return figure, axes


def _saved(folder: Path, figures: Mapping[str, Any]) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=120)
    return [*figures]


def _or_gap(value: float | None) -> float:
    return float("nan") if value is None else value
