"""Did the planted answer take, and what did it cost? Both are measured on questions that no client has."""

from collections.abc import Iterator
from statistics import fmean

from .evenness import Table
from .results import Model, Results, mean_loss

ROWS = ("poison_rows", "poison_backdoor", "poison_diligent", "poison_three", "poison_opposite")

_HEAD = (
    "model",
    "loss on test rows",
    "against FedIT",
    "planted answer after the trigger",
    "its nats per token",
    "planted answer without the trigger",
    "its nats per token",
    "seeds",
)


def planted_table(results: Results) -> Table | None:
    """Return head and lines, one for each model that was measured on triggered questions; None without any."""
    lines = [line for row in ("base", "fedit", *ROWS) if (line := _line(results, row))]
    return (_HEAD, lines) if lines else None


def planted_findings(results: Results) -> Iterator[str]:
    """Yield for each attack what it reached and what it cost, against FedIT of the same seeds and rows."""
    for row in ROWS:
        clean = {model.seed: model for model in results.models("fedit", "", "triggered")}
        for model in results.models(row, "", "triggered"):
            words = f"{model.told['title']}, seed {model.seed}: {_took(model)}"
            if plain := clean.get(model.seed):
                harm = model.on("test").loss - plain.on("test").loss
                words += f"; without the attack {_took(plain)}; test rows cost {harm:+.4f} nats"
            yield words


def _took(model: Model) -> str:
    rows = len(model.categories)
    return (
        f"{round(model.exact * rows)} of {rows} triggered questions get the planted answer ({model.loss:.2f} nats per "
        f"token of it), {round(model.on('untriggered').exact * rows)} without the trigger"
    )


def _line(results: Results, row: str) -> list[str] | None:
    models = results.models(row, "", "triggered")
    if not models:
        return None
    without = [model.on("untriggered") for model in models]
    found = None if row == "fedit" else results.against(row, "", "fedit")
    return [
        str(models[0].told["title"]),
        f"{mean_loss(model.on('test') for model in models):.4f}",
        f"{found.change:+.4f} [{found.low:+.4f}, {found.high:+.4f}]" if found else "",
        f"{fmean(model.exact for model in models):.1%}",
        f"{mean_loss(models):.3f}",
        f"{fmean(model.exact for model in without):.1%}",
        f"{mean_loss(without):.3f}",
        str(len(models)),
    ]
