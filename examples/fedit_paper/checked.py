"""What the checks of partitions and judges have found, as tables, sentences and figures."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from .evenness import Table
from .results import Results

REFERENCE: Final = {"shards": 0.652, "dirichlet": 0.459}
"""Mean total variation of the form behind a published partition, over 20 seeds (`bench methods --only partition`)."""


def partition_table(results: Results) -> Table | None:
    """Return head and lines: what each partition is like, beside the reference of its form."""
    found = results.found("check_partition").get("partitions", {})
    lines = [
        [
            name,
            f"{told['mean_tv']:.3f}",
            f"{REFERENCE[name]:.3f}" if name in REFERENCE else "",
            f"{told['size_cv']:.2f}",
            f"{told['size_gini']:.2f}",
        ]
        for name, told in found.items()
    ]
    head = ("partition", "mean total variation", "of its form, over 20 seeds", "size CV", "size Gini")
    return (head, lines) if lines else None


def partition_findings(results: Results) -> Iterator[str]:
    """Yield how many categories a client of each partition knows."""
    found = results.found("check_partition").get("partitions", {})
    for name, told in found.items():
        known = (np.array(told["table"]) > 0).sum(axis=1)
        yield f"{name}: a client has rows of {known.min()} to {known.max()} categories, {known.mean():.1f} on average"


def judge_table(results: Results) -> Table | None:
    """Return head and lines: agreement, Cohen's kappa and position consistency of each judge on each set."""
    lines = [
        [
            name,
            f"{told['agree']:g} of {told['pairs']}",
            f"{told['agreement']:.1%}",
            "" if told["kappa"] is None else f"{told['kappa']:.2f}",
            "" if told["position_consistency"] is None else f"{told['position_consistency']:.1%}",
        ]
        for name, told in results.found("check_judge").items()
    ]
    head = ("set · judge", "agrees on", "agreement", "kappa", "same verdict in both orders")
    return (head, lines) if lines else None


def judge_findings(results: Results) -> Iterator[str]:
    """Yield how many judges are as sure of themselves as a ranking needs."""
    both = [told for told in results.found("check_judge").values() if told["position_consistency"] is not None]
    if both:
        steady = [told for told in both if told["position_consistency"] >= 0.7 and told["agreement"] >= 0.65]
        yield (
            f"of {len(both)} judges of a set that were asked in both orders, {len(steady)} agree with people on at "
            "least 65 % of it and give the same verdict in both orders on at least 70 %"
        )


def draw_partition(results: Results, figure: Any) -> bool:
    """Draw every client's categories as stacked bars, a panel for each partition; say whether there was anything."""
    found = results.found("check_partition")
    if not found:
        return False
    panels = figure.subplots(1, len(found["partitions"]), sharey=True)
    for axes, (name, told) in zip(panels, found["partitions"].items(), strict=True):
        table = np.array(told["table"])
        bottom = np.zeros(len(table))
        for category, counts in zip(found["categories"], table.T, strict=True):
            axes.bar(np.arange(len(table)), counts, bottom=bottom, label=category)
            bottom += counts
        axes.set_title(f"{name}: total variation {told['mean_tv']:.2f}", fontsize=9)
        axes.set_xlabel("client")
    panels[0].set_ylabel("rows")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    return True


def draw_judge(results: Results, figure: Any) -> bool:
    """Draw agreement and position consistency of every judge; say whether there was anything."""
    found = list(results.found("check_judge").items())[::-1]
    if not found:
        return False
    axes = figure.subplots()
    for key, label, mark in (("agreement", "agrees with people", "o"), ("position_consistency", "with itself", "x")):
        seen = [(told[key], place) for place, (_, told) in enumerate(found) if told[key] is not None]
        axes.plot(*zip(*seen, strict=True), mark, label=label)
    axes.set_yticks(range(len(found)), [name for name, _ in found], fontsize=7)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of pairs")
    axes.legend(fontsize=7)
    return True
