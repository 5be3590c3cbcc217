"""The report of a folder: a table of all rows, those not run included, each experiment's findings, plots, one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from fedit_client.evaluation.report import Page, as_svg, new_figure
from fedit_client.home.durable import write_atomic

from .drawing import drawn_curves, drawn_losses
from .experiments import EXPERIMENTS, Experiment
from .measured import packed
from .plan import Profile, Row
from .results import Model, Results

_HEAD = ("row", "loss", "± seeds", "worst category", "against FedIT, 95 % interval", "right tokens", "MB up", "seeds")


def write_report(out: Path, rows: Sequence[Row], profile: Profile, besides: Sequence[Mapping[str, Any]] = ()) -> str:
    """Write results.md, results.html, results.jsonl and plots of a folder and of `besides`; return the table."""
    results = Results.of(out, besides)
    table = _table(results, rows)
    lines = [f"# Profile {profile.name}", "", _about(results, profile), "", _markdown(_HEAD, table), ""]
    page = Page(f"FedIT: the paper, profile {profile.name}").text(_about(results, profile)).table(_HEAD, table)
    for experiment in EXPERIMENTS:
        findings, detail = list(experiment.findings(results)), experiment.table(results)
        lines += [
            f"## {experiment.title}",
            "",
            experiment.question,
            "",
            *((_markdown(*detail), "") if detail else ()),
            *(f"- {one.strip()}" for one in findings or ["not run"]),
            "",
        ]
        page.heading(experiment.title).text(experiment.question)
        if detail:
            page.table(*detail)
        for one in findings or ["not run"]:
            page.text(one)
        _draw(experiment, results, page, out / "plots")
    write_atomic(out / "results.md", "\n".join(lines).encode(), 0o644)
    write_atomic(out / "results.html", page.html().encode(), 0o644)
    write_atomic(out / "results.jsonl", packed(results.all), 0o644)
    return "\n".join(lines)


def _about(results: Results, profile: Profile) -> str:
    devices = sorted({f"{told['device']} ({told['machine']})" for told in results.all}) or ["nothing"]
    counted = {len(Model(told).categories) for told in results.all if "test" in told["figures"]}
    rows = "/".join(map(str, sorted(counted))) or "no"
    return (
        f"{profile.model}, {profile.precision}; run on {', '.join(devices)}. Loss: nats per answer token on {rows} "
        "test rows, or on those that a line names, mean over categories, clients or languages; ± is the standard "
        "deviation over seeds, that of a sample (n - 1); intervals are paired bootstraps over rows inside categories "
        "and over seeds."
    )


def _table(results: Results, rows: Sequence[Row]) -> list[list[str]]:
    lines: list[list[str]] = []
    for row in rows:
        if row.kind == "check":
            continue
        for variant in row.variants or ("",):
            models = results.models(row.name, variant, row.told_on)
            title = f"{row.title}, {variant}" if variant else row.title
            lines.append(_line(results, row, title, variant, models) if models else [title, "not run", *[""] * 5, "0"])
    return lines


def _line(results: Results, row: Row, title: str, variant: str, models: Sequence[Model]) -> list[str]:
    by_seed: dict[int, list[float]] = {}
    for model in models:
        by_seed.setdefault(model.seed, []).append(model.loss)
    means = [fmean(losses) for losses in by_seed.values()]
    worst = max(models, key=lambda model: model.worst[1]).worst
    several = len(models) > len(by_seed)
    alike = not several and row.name != "fedit" and row.told_on == "test"
    difference = results.against(row.name, variant, "fedit") if alike else None
    right = fmean(sum(model.figures["right"]) / sum(model.figures["tokens"]) for model in models)
    return [
        f"{title} (mean of {len(models) // len(by_seed)})" if several else title,
        f"{fmean(means):.4f}",
        f"{stdev(means):.4f}" if len(means) > 1 else "",
        f"{worst[0]} {worst[1]:.3f}",
        f"{difference.change:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]" if difference else "",
        f"{right:.1%}",
        f"{fmean(model.told['bytes_up'] for model in models) / 1e6:.1f}" if row.kind == "federated" else "",
        str(len(by_seed)),
    ]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _draw(experiment: Experiment, results: Results, page: Page, folder: Path) -> None:
    """Draw losses as dots, a line for each model, and curves over rounds where there are any."""
    if experiment.draw is not None:
        own = new_figure(9, 5)
        if experiment.draw(results, own):
            _keep(own, page, folder / f"{experiment.name}.svg", f"{experiment.title}.")
        return
    shown = {on: _models(experiment, results, on) for on in experiment.on}
    shown = {on: models for on, models in shown.items() if models}
    if not shown:
        return
    figure = drawn_losses(shown, {on: results.models("fedit", "", on) for on in shown})
    _keep(figure, page, folder / f"{experiment.name}.svg", f"{experiment.title}: losses; a dot is a model.")
    if curves := [model for model in next(iter(shown.values())) if len(model.curve) > 1]:
        file = folder / f"{experiment.name}-rounds.svg"
        _keep(drawn_curves(curves), page, file, f"{experiment.title}: loss after each round.")


def _models(experiment: Experiment, results: Results, on: str) -> list[Model]:
    found = [model for row in experiment.rows for model in results.models(row, None, on)]
    return [model for model in found if not experiment.clients or model.told["client"] in (None, *experiment.clients)]


def _keep(figure: Any, page: Page, file: Path, caption: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, as_svg(figure, own_fonts=False), 0o644)
    page.figure(figure, caption)
