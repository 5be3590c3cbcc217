"""What a fleet leaves behind: versions, figures, plots, and one page for people."""

import importlib.metadata
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from fedit_client.consent.terms import size_text
from fedit_client.evaluation.results import read_results
from fedit_client.evaluation.summary import Summary, summarise
from fedit_client.fleet.baselines import FOLDER, MOST_ALONE, RESULTS
from fedit_client.fleet.plots import FOLDER as PLOTS
from fedit_client.fleet.plots import MISSING, write_plots
from fedit_client.fleet.settings import FleetSettings
from fedit_client.home.durable import write_atomic
from fedit_client.installed import installed_version

REPORT: Final = "report.md"
SUMMARY: Final = "summary.json"
_COLUMNS: Final = (
    "round", "outcome", "clients", "dropped", "in the sum", "loss in training", "held out, before", "wall s",
    "training s",
)  # fmt: skip
_PUBLIC: Final = 0o644
_LIBRARIES: Final = ("torch", "transformers", "peft", "bitsandbytes", "numpy", "cryptography", "aiohttp", "ray")


def write_versions(folder: Path) -> None:
    """Write what ran here: FedIT, the libraries, Python and the platform."""
    found: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    versions = {"fedit": installed_version(), "python": sys.version.split()[0], "platform": platform.platform(),
                "machine": platform.machine(), "libraries": found}  # fmt: skip
    write_atomic(folder / "versions.json", json.dumps(versions, indent=2).encode() + b"\n", _PUBLIC)


def summary_of(rounds: Sequence[dict[str, Any]], settings: FleetSettings, out: dict[str, str]) -> dict[str, Any]:
    """Return the figures of all rounds together; losses in nats per token, times in seconds, sizes in bytes."""
    committed = [line for line in rounds if line["outcome"] == "committed"]
    losses = [line["held_out_loss"] for line in committed if line["held_out_loss"] is not None]
    coverages = [share for line in committed if (share := line.get("coverage")) is not None]
    dropped: dict[str, int] = {}
    for line in rounds:
        for step, count in line["dropped"].items():
            dropped[step] = dropped.get(step, 0) + count
    return {
        "clients": settings.clients,
        "rounds": len(committed),
        "failed_rounds": len(rounds) - len(committed),
        "adapter_version": committed[-1]["adapter_version"] if committed else None,
        "first_held_out_loss": losses[0] if losses else None,
        "last_held_out_loss": losses[-1] if losses else None,
        "last_train_loss": committed[-1]["train_loss"] if committed else None,
        "mean_coverage": fmean(coverages) if coverages else None,
        "last_method": committed[-1].get("method", {}) if committed else {},
        "dropped": dropped,
        "train_s": round(sum(line["train_s"] for line in rounds), 3),
        "wall_s": round(sum(line["wall_s"] for line in rounds), 3),
        "bytes_up": sum(line["bytes_up"] for line in rounds),
        "bytes_down": sum(line["bytes_down"] for line in rounds),
        "out": out,
    }


def round_words(line: dict[str, Any], rounds: int) -> str:
    """Return one round's line in words."""
    dropped = sum(line["dropped"].values())
    gone = f", {dropped} dropped" if dropped else ""
    if line["outcome"] != "committed":
        return f"round {line['round']} came to nothing: {line['reason'] or 'no reason is known'}{gone}"
    losses = [
        f"{name} {line[key]:.3f}"
        for name, key in (
            ("loss", "train_loss"), ("held out, before it", "held_out_loss"), ("own adapters", "personal_loss"),
        )
        if line[key] is not None
    ]  # fmt: skip
    if line["domain_losses"]:
        worst, loss = max(line["domain_losses"].items(), key=lambda item: item[1])
        losses.append(f"worst domain {worst} {loss:.3f}")
    if line.get("coverage") is not None:
        losses.append(f"coverage {line['coverage']:.0%}")
    losses += [f"{name} {value:.3g}" for name, value in line.get("method", {}).items()]
    parts = [
        _place_words(line["round"], line["adapter_version"], rounds),
        f"{line['clients']} clients{gone}, {line['survivors']} summed",
        *losses,
        f"{line['wall_s']:.0f} s, {line['train_s']:.0f} s of it steps",
        f"{size_text(line['bytes_up'])} up",
    ]
    return " · ".join(parts)


def _place_words(number: int, version: int | None, rounds: int) -> str:
    """Where the fleet is: rounds that came to nothing have numbers too, and do not count."""
    return f"round {number}/{rounds}" if version == number else f"round {number}, {version} of {rounds} committed"


def write_report(folder: Path, rounds: Sequence[dict[str, Any]], settings: FleetSettings,
                 out: dict[str, str]) -> dict[str, Any]:  # fmt: skip
    """Write summary, plots and page; return the summary. The plots need matplotlib, and are left out without it."""
    summary, compared = summary_of(rounds, settings, out), comparison(folder)
    if compared is not None:
        summary["comparison"] = compared.as_data()
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=2).encode() + b"\n", _PUBLIC)
    plotted = write_plots(folder / PLOTS, rounds)
    page = _page(rounds, settings, summary, plotted) + _beside(compared)
    write_atomic(folder / REPORT, page.encode(), _PUBLIC)
    return summary


def comparison(folder: Path) -> Summary | None:
    """Return the federation beside its baselines, where they were asked for and are measured."""
    return summarise(read_results([folder / RESULTS])) if (folder / RESULTS).exists() else None


def _beside(compared: Summary | None) -> str:
    if compared is None:
        return ""
    said = (
        f"Every model starts from the same adapter and takes as many steps as the rounds have one after another. At "
        f"most {MOST_ALONE} clients were trained alone, drawn by the seed; the central model's steps use the rows of a "
        "whole cohort. Loss is nats per answer token on rows that no client has, the mean over categories. Row by row: "
        f"`{RESULTS}`; the models: `{FOLDER}/`."
    )
    return "\n".join(["", "## Beside its baselines", "", said, "", "```", *compared.lines(), "```", ""])


def _page(
    rounds: Sequence[dict[str, Any]], settings: FleetSettings, summary: dict[str, Any], plotted: Sequence[str]
) -> str:
    wall, train, dropped = summary["wall_s"], summary["train_s"], sum(summary["dropped"].values())
    asked = (
        f"Partition `{settings.partition}` of `{Path(settings.data).name}`, seed {settings.seed}, dropout "
        f"{settings.dropout:g}, availability `{settings.availability}`, speeds `{settings.speeds}`. Task: `task.toml`. "
        "Versions: `versions.json`. The partition with its meters: `partition/manifest.json`. "
        "`fleet.toml` repeats it; every line below is from `rounds.jsonl`."
    )
    came = (
        f"{summary['rounds']} rounds were committed, {summary['failed_rounds']} came to nothing; {dropped} times a "
        f"client vanished. Training took {train:.0f} s of optimizer steps, the rounds {wall:.0f} s. "
        f"{size_text(summary['bytes_up'])} went up, {size_text(summary['bytes_down'])} down."
    )
    lines = [
        *(f"# A fleet of {settings.clients} virtual clients", "", asked, "", came, ""),
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *(_row(line) for line in rounds),
        "",
        *_reported(rounds),
        *(f"![{name}]({PLOTS}/{name})\n" for name in plotted),
    ]
    if not plotted:
        lines += [MISSING, ""]
    if summary["out"]:
        lines += ["Clients that ended early:", "", *(f"- {name}: {why}" for name, why in summary["out"].items()), ""]
    return "\n".join(lines)


def _reported(rounds: Sequence[dict[str, Any]]) -> list[str]:
    """The table of what the server reports besides; nothing where no round has any of it."""
    names = list(dict.fromkeys(name for line in rounds for name in line.get("method", {})))
    covers = any(line.get("coverage") is not None for line in rounds)
    if not covers and not names:
        return []
    coverage = ("coverage", "nobody has") if covers else ()
    head = ["round", *coverage, *(f"`{name}`" for name in names)]
    what = ["how many of the task's categories some client of it has"] * covers + ["the method's figures"] * bool(names)
    lines = [f"What the server reports of each round: {', and '.join(what)}.", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for line in rounds:
        share, found = line.get("coverage"), line.get("method", {})
        missing = "–" if share is None else ", ".join(line["not_covered"]) or "none"
        covered = ["–" if share is None else f"{share:.0%}", missing] if covers else []
        figures = [f"{found[name]:.4g}" if name in found else "–" for name in names]
        lines.append(f"| {' | '.join([str(line['round']), *covered, *figures])} |")
    return [*lines, ""]


def _row(line: dict[str, Any]) -> str:
    losses = [f"{value:.3f}" if value is not None else "–" for value in (line["train_loss"], line["held_out_loss"])]
    dropped, times = sum(line["dropped"].values()), [f"{line[name]:.0f}" for name in ("wall_s", "train_s")]
    cells = (line["round"], line["outcome"], line["clients"], dropped, line["survivors"], *losses, *times)
    return f"| {' | '.join(map(str, cells))} |"
