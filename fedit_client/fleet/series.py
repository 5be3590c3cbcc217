"""The same fleet several times, each with a seed of its own: what holds over seeds, and what was one seed's luck."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

from fedit_client.evaluation.statistics import Gap, gap_interval
from fedit_client.evaluation.summary import Summary, gap_words, triples
from fedit_client.fleet.launching import TASK, Launch, launch
from fedit_client.fleet.plots import FOLDER as PLOTS
from fedit_client.fleet.plots import MISSING, can_plot, write_series_plots
from fedit_client.fleet.report import REPORT, SUMMARY, comparison
from fedit_client.fleet.settings import LOCAL, SETTINGS_FILE, FleetSettings
from fedit_client.fleet.tally import read_rounds
from fedit_client.home.durable import make_private, write_atomic
from fedit_protocol.errors import FleetError

_PUBLIC: Final = 0o644
_ROLES: Final = {"base": "base", "local": "alone, mean", "fed": "federation", "central": "central"}


async def launch_series(wanted: Launch, one: Callable[[Launch], Awaitable[dict[str, Any]]] = launch) -> dict[str, Any]:
    """Run a fleet for each seed, in folders `seed-N`, and return the summary of all; those that ended are kept.

    Raises FleetError F004 and F017, and what `launch` raises.
    """
    settings, folder = wanted.settings, wanted.folder
    if settings.server != LOCAL:
        raise FleetError("a server's task is run once, with one seed", code="F017", where="--seeds",
                         fix="fedit-client fleet --server local --seeds 3",
                         again="--server local --seeds 3")  # fmt: skip
    if not wanted.resume:
        _check_folder(folder)
    make_private(folder)
    settings.save(folder)
    wanted = replace(wanted, task=_kept_task(wanted))
    summaries = {}
    for seed in range(settings.seed, settings.seed + settings.seeds):
        place = folder / f"seed-{seed}"
        begun = (place / SETTINGS_FILE).exists()
        wanted.say(f"seed {seed}: {'goes on' if begun else 'begins'}")
        part = replace(settings, seed=seed, seeds=1)
        summaries[seed] = await one(replace(wanted, settings=_known(place, part), folder=place, resume=begun))
    summary, told = write_series(folder, settings, summaries)
    for line in told:
        wanted.say(line)
    return summary


def _check_folder(folder: Path) -> None:
    """Raise FleetError F004 for a folder with something in it; what a refused series has left is no hindrance."""
    inside = list(folder.iterdir()) if folder.is_dir() else []
    begun = any((path / SETTINGS_FILE).exists() for path in inside)
    if begun or any(path.name not in {SETTINGS_FILE, TASK} and not path.name.startswith("seed-") for path in inside):
        raise FleetError("the folder is not empty, and nothing is overwritten", code="F004", where=str(folder),
                         fix="fedit-client fleet --resume --out FOLDER, or --out NEW_FOLDER")  # fmt: skip


def _kept_task(wanted: Launch) -> Path | None:
    """Keep the task file for seeds that begin later: a series that goes on must not give them another task."""
    kept = wanted.folder / TASK
    if wanted.task is not None and wanted.task.is_file():
        write_atomic(kept, wanted.task.read_bytes())
    elif not wanted.resume:
        kept.unlink(missing_ok=True)
    return wanted.task or (kept if kept.is_file() else None)


def _known(place: Path, part: FleetSettings) -> FleetSettings:
    """What a fleet was begun with, when it was; its baselines may have been asked for later."""
    begun = (place / SETTINGS_FILE).exists()
    return replace(FleetSettings.load(place), baselines=part.baselines) if begun else part


def write_series(
    folder: Path, settings: FleetSettings, summaries: dict[int, dict[str, Any]]
) -> tuple[dict[str, Any], list[str]]:
    """Write and return what all seeds together say, for programs and for people; losses in nats per token."""
    compared = {seed: found for seed in summaries if (found := comparison(folder / f"seed-{seed}")) is not None}
    gap = _pooled([*compared.values()])
    held_out = [loss for one in summaries.values() if (loss := one["last_held_out_loss"]) is not None]
    summary = {
        "seeds": list(summaries),
        "rounds": sum(one["rounds"] for one in summaries.values()),
        "last_held_out_loss": _spread(held_out),
        "losses": {role: _spread([_of(one, role) for one in compared.values() if _has(one, role)]) for role in _ROLES},
        "gap_recovered": None if gap is None else vars(gap.whole),
        "of_each_seed": {str(seed): one for seed, one in summaries.items()},
    }
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=2, default=str).encode() + b"\n", _PUBLIC)
    both = any(_has(one, "local") and _has(one, "central") for one in compared.values())
    told = [f"over all seeds: {gap_words('the federation', 'central', gap)}"] if both else []
    plotted = write_series_plots(folder / PLOTS, {seed: read_rounds(folder / f"seed-{seed}") for seed in summaries})
    page = _page(settings, summaries, compared, told) + _drawn(plotted)
    write_atomic(folder / REPORT, page.encode(), _PUBLIC)
    return {**summary, "folder": str(folder)}, told


def _drawn(plotted: Sequence[str]) -> str:
    said = "Thin lines are single seeds, thick ones their mean as far as every seed has committed rounds."
    shown = [said, "", *(f"![{name}]({PLOTS}/{name})" for name in plotted)] if plotted else []
    return "\n".join(["", *(shown if can_plot() else [MISSING]), ""])


def _pooled(compared: Sequence[Summary]) -> Gap | None:
    """The share of the gap over all seeds, each on the test rows of its own partition; None without baselines."""
    found = [one for summary in compared for one in triples(summary)]
    return gap_interval(found) if found else None


def _has(summary: Summary, role: str) -> bool:
    return any(model.role == role for model in summary.models)


def _of(summary: Summary, role: str) -> float:
    return fmean(model.loss for model in summary.models if model.role == role)


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    if not values:
        return None
    return {"mean": fmean(values), "std": stdev(values) if len(values) > 1 else None}


def _page(
    settings: FleetSettings, summaries: dict[int, dict[str, Any]], compared: dict[int, Summary], told: Sequence[str]
) -> str:
    head = ["seed", "rounds", "held out, before the last round", *_ROLES.values()]
    said = (
        "Each seed deals, trains and drops out anew, and has test rows of its own; its folder has its own report. Loss "
        "is nats per answer token; a dash was not asked for."
    )
    title = f"# {len(summaries)} fleets of {settings.clients} virtual clients"
    lines = [title, "", said, "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for seed, one in summaries.items():
        beside = compared.get(seed)
        losses = [f"{_of(beside, role):.3f}" if beside and _has(beside, role) else "–" for role in _ROLES]
        held_out = "–" if one["last_held_out_loss"] is None else f"{one['last_held_out_loss']:.3f}"
        lines.append(f"| {seed} | {one['rounds']} | {held_out} | {' | '.join(losses)} |")
    return "\n".join([*lines, "", *told, ""])
