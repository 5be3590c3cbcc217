"""The picture of a partition: which client has how many rows of what. matplotlib, loaded when a plot is drawn."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

_MOST_BARS: Final = 60
_MOST_NAMES: Final = 20


def can_plot() -> bool:
    """Whether matplotlib is installed (extra eval)."""
    return find_spec("matplotlib") is not None


def plot_partition(manifest: Mapping[str, Any], path: Path) -> None:
    """Draw a manifest's clients as stacked bars and save them as PNG; the smaller categories of many are one colour."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    names, table = _stacks(manifest)
    clients = np.arange(table.shape[1])
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    colours = [colormaps["tab20"](place) for place in range(len(names))]
    if len(clients) <= _MOST_BARS:
        bottom = np.zeros(len(clients))
        for name, counts, colour in zip(names, table, colours, strict=True):
            axes.bar(clients, counts, bottom=bottom, color=colour, label=name, width=0.85)
            bottom += counts
        if len(clients) <= _MOST_NAMES:
            axes.set_xticks(clients, [client["name"] for client in manifest["clients"]], rotation=45, ha="right")
    else:
        axes.stackplot(clients, table, labels=names, colors=colours, step="mid")
        axes.set_xlabel(f"{len(clients):,} clients, the largest first")
    axes.set_ylabel("rows")
    axes.margins(x=0.01)
    told = manifest["meters"]
    axes.set_title(f"{manifest['form']}: total variation {told['mean_tv']:.2f}, size CV {told['size_cv']:.2f}")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="small"
    )
    figure.savefig(path, format="png", dpi=120, metadata={"Software": ""})


def _stacks(manifest: Mapping[str, Any]) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Return category names and a table (names, clients), the largest clients first where they are many."""
    clients = list(manifest["clients"])
    if len(clients) > _MOST_BARS:
        clients.sort(key=lambda client: -int(client["count"]))
    totals: dict[str, int] = {}
    for client in clients:
        for name, count in client["categories"].items():
            totals[name] = totals.get(name, 0) + count
    names = sorted(totals, key=lambda name: -totals[name])
    kept, others = names[: _MOST_NAMES - 1], names[_MOST_NAMES - 1 :]
    rows = [[client["categories"].get(name, 0) for client in clients] for name in kept]
    if others:
        rows.append([sum(client["categories"].get(name, 0) for name in others) for client in clients])
    shown = [name or "(no category)" for name in kept] + [f"{len(others)} others"] * bool(others)
    return shown, np.array(rows)
