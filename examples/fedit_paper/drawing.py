"""The figures of experiments: losses with intervals, losses round by round, and what each category gains."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from fedit_client.evaluation.report import new_figure
from fedit_client.evaluation.statistics import Interval, pooled_interval

from .results import Model, pairs_of

_DOT, _MEAN, _REFERENCE = "#7aa6c2", "#234", "#c66"
_AROUND: Final = 0.6
"""Room above the first line and below the last, in lines."""


def drawn_losses(shown: Mapping[str, Sequence[Model]], references: Mapping[str, Sequence[Model]]) -> Any:
    """Return a figure with a panel for each set of rows and a line for each row of the table: a dot is a model.

    Where a model of the same seed stands among the set's `references`, the difference from it has its 95 % interval.
    """
    names = list(dict.fromkeys(line_of(model) for models in shown.values() for model in models))
    figure: Any = new_figure(8, 1.2 + 0.3 * len(names))
    panels: Any = figure.subplots(1, len(shown), sharey=True, squeeze=False)
    for axes, (on, models) in zip(panels[0], shown.items(), strict=True):
        for place, name in enumerate(names):
            if here := [model for model in models if line_of(model) == name]:
                _draw_line(axes, place, here, references[on])
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 1 + _AROUND, -_AROUND)
        if references[on]:
            axes.axvline(_mean(references[on]), color=_REFERENCE, linewidth=1)
        if len(shown) > 1:
            axes.set_title(on, fontsize=9)
    figure.supxlabel("loss, nats per answer token; red: FedIT; bars: 95 % of the difference from it", fontsize=9)
    return figure


def drawn_curves(models: Sequence[Model]) -> Any:
    """Return a figure with the loss on the test rows after each round."""
    figure: Any = new_figure(8, 4)
    axes = figure.subplots()
    for model in models:
        axes.plot(range(1, 1 + len(model.curve)), model.curve, label=f"{model.told['title']}, seed {model.seed}")
    axes.set_xlabel("round")
    axes.set_ylabel("loss")
    axes.legend(fontsize=7)
    return figure


def draw_categories(figure: Any, models: Sequence[Model], references: Sequence[Model]) -> bool:
    """Draw by how much the loss of each category is more than that of the reference of the same seed.

    Says whether there was anything to draw.
    """
    plain = {model.seed: model.by_category for model in references}
    models = [model for model in models if model.seed in plain]
    if not models:
        return False
    axes: Any = figure.subplots()
    names = list(plain[models[0].seed])
    for place, model in enumerate(models):
        shift = (place + 1) / (len(models) + 1) - 0.5
        known = [at for at, name in enumerate(names) if name in model.by_category]  # not every client may have run yet
        changes = [model.by_category[names[at]] - plain[model.seed][names[at]] for at in known]
        axes.barh([at + shift for at in known], changes, 0.8 / len(models), label=line_of(model))
    axes.axvline(0, color=_REFERENCE, linewidth=1)
    axes.set_yticks(range(len(names)), [f"{name} ({plain[models[0].seed][name]:.2f})" for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("nats per answer token more than FedIT, whose losses stand in brackets", fontsize=9)
    axes.legend(fontsize=7)
    return True


def line_of(model: Model) -> str:
    """Return the title of a model's line: the models of single clients share one."""
    return str(model.told["title"]).partition(", client")[0]


def _draw_line(axes: Any, place: int, models: Sequence[Model], references: Sequence[Model]) -> None:
    axes.plot([model.loss for model in models], [place] * len(models), "o", color=_DOT)
    axes.plot(_mean(models), place, "|", color=_MEAN, markersize=14)
    if found := _difference(models, references):
        middle = _mean(models) - found.change
        axes.plot([middle + found.low, middle + found.high], [place, place], color=_MEAN, linewidth=1)


def _difference(models: Sequence[Model], references: Sequence[Model]) -> Interval | None:
    """Over the seeds that both have; None where a seed has several models, or a model is its own reference."""
    theirs = {model.seed: model for model in references}
    ours = {model.seed: model for model in models if model.seed in theirs}
    if len(ours) < len(models) or any(ours[seed].told["name"] == theirs[seed].told["name"] for seed in ours):
        return None
    return pooled_interval([pairs_of(model, theirs[seed]) for seed, model in ours.items()])


def _mean(models: Sequence[Model]) -> float:
    return fmean(model.loss for model in models)
