"""Several results side by side: means over seeds, differences that are sure, and which share of the gap is closed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np

from fedit_client.evaluation.results import ModelResult, Role, aligned
from fedit_client.evaluation.statistics import (
    Gap,
    Interval,
    Pairs,
    Triple,
    gap_interval,
    pooled_interval,
    relative_score,
)
from fedit_protocol.errors import EvaluationError
from fedit_protocol.words import counted

_FACTS: Final = {"seconds": ("s to measure", 1.0), "peak_bytes": ("peak GB", 1e9)}
"""Facts that a table shows where a result has them: the head of their column, and its unit."""


@dataclass(frozen=True)
class ModelSummary:
    """One model over its seeds; figures are means over them."""

    name: str
    results: tuple[ModelResult, ...]

    @property
    def role(self) -> Role:
        """What the model is to the others."""
        return self.results[0].role

    @property
    def seeds(self) -> int:
        """How many runs are behind the figures."""
        return len(self.results)

    @property
    def loss(self) -> float:
        """The headline loss, mean over categories."""
        return fmean(result.loss for result in self.results)

    @property
    def loss_std(self) -> float | None:
        """Its standard deviation over seeds; None for one seed."""
        return stdev(result.loss for result in self.results) if self.seeds > 1 else None

    @property
    def by_category(self) -> dict[str, float]:
        """The loss of each category."""
        return {name: fmean(result.by_category[name] for result in self.results) for name in self._names}

    @property
    def worst(self) -> tuple[str, float]:
        """The category with the highest loss."""
        return max(self.by_category.items(), key=lambda item: item[1])

    @property
    def rouge_l(self) -> float | None:
        """Mean ROUGE-L F1, None unless every seed has it."""
        scores = [score for result in self.results if (score := result.rouge_l) is not None]
        return fmean(scores) if len(scores) == self.seeds else None

    @property
    def facts(self) -> dict[str, float]:
        """Seconds and bytes of the measuring where every seed has them."""
        found = {}
        for name in _FACTS:
            values = [value for result in self.results if isinstance(value := result.facts.get(name), float | int)]
            if len(values) == self.seeds:
                found[name] = fmean(values)
        return found

    def as_data(self, base: float | None) -> dict[str, Any]:
        """The figures, for programs; `base` is the base's loss, if it was measured."""
        worst, worst_loss = self.worst
        return {
            "role": self.role,
            "seeds": [result.seed for result in self.results],
            "loss": self.loss,
            "loss_std": self.loss_std,
            "perplexity": fmean(result.perplexity for result in self.results),
            "token_accuracy": fmean(result.accuracy for result in self.results),
            "relative_score": None if base is None else relative_score(base, self.loss),
            "worst": {"category": worst, "loss": worst_loss},
            "std": fmean(result.std for result in self.results),
            "jain": fmean(result.jain for result in self.results),
            "rouge_l": self.rouge_l,
            "by_category": self.by_category,
            "facts": self.facts,
        }

    @property
    def _names(self) -> list[str]:
        return sorted(self.results[0].by_category)


@dataclass(frozen=True)
class Summary:
    """All models, how each differs from the one that they are set against, and the gaps that were closed."""

    models: tuple[ModelSummary, ...]
    against: str
    differences: Mapping[str, Interval]
    by_seed: Mapping[str, tuple[Interval, ...]]
    gaps: Mapping[tuple[str, str], Gap | None]
    """(federated, centralised) → the share recovered; None where the gap is too small to speak of."""

    @property
    def rows(self) -> int:
        """How many rows are behind the figures."""
        return len(self.models[0].results[0].rows)

    @property
    def tokens(self) -> int:
        """How many answer tokens are behind the figures."""
        return sum(self.models[0].results[0].tokens)

    @property
    def left_out(self) -> int:
        """Rows whose whole answer the cutoff took."""
        return max(result.left_out for model in self.models for result in model.results)

    @property
    def categories(self) -> list[str]:
        """The categories by name."""
        return sorted(self.models[0].by_category)

    @property
    def base_loss(self) -> float | None:
        """The loss of the base alone, where it was measured."""
        return next((model.loss for model in self.models if model.role == "base"), None)

    def as_data(self) -> dict[str, Any]:
        """The figures, for programs."""
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "left_out": self.left_out,
            "models": {model.name: model.as_data(self.base_loss) for model in self.models},
            "against": self.against,
            "differences": {
                name: {**asdict(found), "verdict": found.verdict,
                       "by_seed": [one.verdict for one in self.by_seed[name]]}
                for name, found in self.differences.items()
            },
            "gap_recovered": [
                {"federated": fed, "central": central,
                 "whole": asdict(gap.whole) if gap else None,
                 "by_category": {name: asdict(share) for name, share in gap.by_category.items()} if gap else {}}
                for (fed, central), gap in self.gaps.items()
            ],
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The figures, for people."""
        categories = counted(len(self.categories), "category", "categories")
        left = f"; {self.left_out} more left out, whose answer the cutoff took" if self.left_out else ""
        return [
            f"on {counted(self.rows, 'row', 'rows')} of {categories}, {counted(self.tokens, 'answer token')}{left}",
            *columns(*self.table()),
            *(f"{name} against {self.against}: {_words(found)}" for name, found in self.differences.items()),
            *(gap_words(fed, central, gap) for (fed, central), gap in self.gaps.items()),
        ]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head and one row a model, as texts."""
        shown = [model.as_data(self.base_loss) for model in self.models]
        rouge = any(data["rouge_l"] is not None for data in shown)
        facts = [name for name in _FACTS if any(name in data["facts"] for data in shown)]
        head = ["model", "seeds", "loss", "perplexity", "right tokens", "relative", "worst category", "std", "Jain"]
        head += ["ROUGE-L"] * rouge + [_FACTS[name][0] for name in facts]
        rows = []
        for model, data in zip(self.models, shown, strict=True):
            spread = "" if data["loss_std"] is None else f" ± {data['loss_std']:.3f}"
            relative = "–" if data["relative_score"] is None else f"{data['relative_score']:.3f}"
            worst = f"{data['worst']['loss']:.3f} {data['worst']['category'] or '(none)'}"
            row = [model.name, str(model.seeds), f"{data['loss']:.3f}{spread}", f"{data['perplexity']:.2f}",
                   f"{100 * data['token_accuracy']:.1f} %", relative, worst, f"{data['std']:.3f}",
                   f"{data['jain']:.3f}"]  # fmt: skip
            if rouge:
                row.append("–" if data["rouge_l"] is None else f"{data['rouge_l']:.3f}")
            row += [f"{data['facts'][name] / _FACTS[name][1]:.2f}" if name in data["facts"] else "–" for name in facts]
            rows.append(row)
        return head, rows


def summarise(results: Sequence[ModelResult], against: str | None = None) -> Summary:
    """Put results side by side; those of one name are its seeds.

    Without `against` all are set against the base, or else the first. Raises EvaluationError V002 if rows differ, V004
    if no model is called `against`.
    """
    first = results[0]
    by_name: dict[str, list[ModelResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(aligned(first, result))
    models = tuple(ModelSummary(name, tuple(found)) for name, found in by_name.items())
    named = {model.name: model for model in models}
    base = next((model.name for model in models if model.role == "base"), models[0].name)
    if against is not None and against not in named:
        raise EvaluationError(f"no model is called {against}: {', '.join(named)}", code="V004",
                              fix=f"--against {base}", again=f"--against {base}")  # fmt: skip
    reference = named[against or base]
    pairs = {model.name: _pairs(model, reference) for model in models if model is not reference}
    return Summary(
        models,
        reference.name,
        {name: pooled_interval(found) for name, found in pairs.items() if found},
        {name: tuple(pooled_interval([one]) for one in found) for name, found in pairs.items() if found},
        _gaps(models),
    )


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table as lines, each column as wide as its widest text, the first one to the left."""
    table = [head, *rows]
    widths = [max(len(row[place]) for row in table) for place in range(len(head))]
    return [
        "  "
        + "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def gap_words(fed: str, central: str, gap: Gap | None) -> str:
    """Return in a sentence what a federation recovers of the gap."""
    if gap is None:
        return f"{fed}: alone and {central} are too close to speak of a gap between them"
    told = f"{fed} recovers {_percent(gap.whole)} of the gap between alone and {central}"
    return told if gap.worst is None else f"{told}; worst category {gap.worst[0]} {_percent(gap.worst[1])}"


def _percent(share: Interval) -> str:
    return f"{100 * share.change:.0f} % (95 % interval {100 * share.low:.0f} to {100 * share.high:.0f} %)"


def _words(found: Interval) -> str:
    over = f", {found.seeds} seeds" if found.seeds > 1 else ""
    return f"loss {found.change:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}{over}): {found.verdict}"


def _pairs(model: ModelSummary, reference: ModelSummary) -> list[Pairs]:
    found = []
    for result in model.results:
        other = _of_seed(reference.results, result.seed)
        if other is not None:
            found.append(
                Pairs(
                    result.categories, np.array(result.tokens, float), np.array(result.losses), np.array(other.losses)
                )
            )
    return found


def _of_seed(results: Sequence[ModelResult], seed: int | None) -> ModelResult | None:
    """The result of the same seed, or the only one there is, such as the base's."""
    same = next((result for result in results if result.seed == seed), None)
    return same or (results[0] if len(results) == 1 else None)


def _gaps(models: Sequence[ModelSummary]) -> dict[tuple[str, str], Gap | None]:
    by_role: dict[str, list[ModelSummary]] = {}
    for model in models:
        by_role.setdefault(model.role, []).append(model)
    found = {}
    for fed in by_role.get("fed", []):
        for central in by_role.get("central", []):
            if seeds := _triples(fed, central, by_role.get("local", [])):
                found[fed.name, central.name] = gap_interval(seeds)
    return found


def triples(summary: Summary) -> list[Triple]:
    """Return clients alone, the federation and central training, row by row, of the first of each that is there."""
    of = {role: [model for model in summary.models if model.role == role] for role in ("fed", "central", "local")}
    return _triples(of["fed"][0], of["central"][0], of["local"]) if of["fed"] and of["central"] else []


def _triples(fed: ModelSummary, central: ModelSummary, clients: Sequence[ModelSummary]) -> list[Triple]:
    found = []
    for result in fed.results:
        other = _of_seed(central.results, result.seed)
        local = [one for client in clients if (one := _of_seed(client.results, result.seed)) is not None]
        if other is not None and local:
            found.append(
                Triple(
                    result.categories,
                    np.array(result.tokens, float),
                    np.array([one.losses for one in local]),
                    np.array(result.losses),
                    np.array(other.losses),
                )
            )
    return found
