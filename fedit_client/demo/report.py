"""What the demo found out, as a table and in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

from fedit_client.evaluation import CategoryLosses

BASE, TOGETHER = "base", "federation"


@dataclass(frozen=True)
class DemoReport:
    """Held-out losses in nats per answer token: name → losses per category; `base` and `federation` are two names."""

    losses: Mapping[str, CategoryLosses]
    rounds: int
    steps: int
    shortened: bool
    prompt: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)

    @property
    def together_is_best(self) -> bool:
        """Whether the federation's mean lies below the base's and below that of every client alone."""
        others = [losses.mean for name, losses in self.losses.items() if name != TOGETHER]
        return self.losses[TOGETHER].mean < min(others)

    def show(self, console: RichConsole) -> None:
        """Print the table; the lowest loss of each row stands out."""
        table = Table(title="held-out loss (nats per answer token, lower is better)", title_style="")
        table.add_column("category")
        for name in self.losses:
            table.add_column(name if name in (BASE, TOGETHER) else f"{name} alone", justify="right")
        categories = list(self.losses[BASE].by_category)
        for category in categories:
            row = [losses.by_category[category] for losses in self.losses.values()]
            table.add_row(category or "all rows", *_cells(row))
        table.add_section()
        table.add_row("mean", *_cells([losses.mean for losses in self.losses.values()]))
        console.print(table)

    def verdict(self) -> str:
        """The result in one sentence."""
        mean = self.losses[TOGETHER].mean
        alone = {name: losses.mean for name, losses in self.losses.items() if name not in (TOGETHER, BASE)}
        best = min(alone, key=lambda name: alone[name])
        facts = (
            f"{mean:.3f} together, {self.losses[BASE].mean:.3f} before, {alone[best]:.3f} for the best alone ({best})"
        )
        if self.together_is_best:
            return f"together they learned more than any of them alone, and no row left its client: {facts}"
        return f"this time the federation is not ahead: {facts}"

    def as_data(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "rounds": self.rounds,
            "local_steps": self.steps,
            "shortened": self.shortened,
            "together_is_best": self.together_is_best,
            "losses": {
                name: {"mean": losses.mean, "by_category": dict(losses.by_category), "tokens": dict(losses.tokens)}
                for name, losses in self.losses.items()
            },
            "prompt": self.prompt,
            "answers": dict(self.answers),
        }


def _cells(values: list[float]) -> list[Text]:
    least = min(values)
    return [Text(f"{value:.3f}", style="bold" if value == least else "") for value in values]
