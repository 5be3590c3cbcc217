"""The results of a folder: found by row, variant, client and seed, and put side by side row of data by row of data."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedit_client.evaluation.statistics import (
    Gap,
    Interval,
    Pairs,
    Triple,
    category_means,
    gap_interval,
    headline,
    pooled_interval,
)

from .runner import RESULT

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """One measured model: what its run told, and its figures on one set of rows."""

    told: Mapping[str, Any] = field(repr=False)
    measured_on: str = "test"

    def on(self, rows: str) -> "Model":
        """Return the same model on another set of rows."""
        return Model(self.told, rows)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.told["seed"])

    @cached_property
    def figures(self) -> Mapping[str, Any]:
        """Per row of data: categories, tokens, losses, right."""
        found: Mapping[str, Any] = self.told["figures"][self.measured_on]
        return found

    @property
    def categories(self) -> Sequence[str]:
        """The category of each row."""
        found: Sequence[str] = self.figures["categories"]
        return found

    @cached_property
    def losses(self) -> Doubles:
        """Nats of each row, summed over its answer."""
        return np.array(self.figures["losses"], np.float64)

    @cached_property
    def tokens(self) -> Doubles:
        """Answer tokens of each row."""
        return np.array(self.figures["tokens"], np.float64)

    @cached_property
    def by_category(self) -> dict[str, float]:
        """Nats per answer token of each category."""
        return category_means(self.categories, self.tokens, self.losses)

    @property
    def loss(self) -> float:
        """The mean over categories."""
        return headline(self.by_category)

    @property
    def worst(self) -> tuple[str, float]:
        """The category with the highest loss."""
        return max(self.by_category.items(), key=lambda item: item[1])

    @property
    def exact(self) -> float:
        """The share of rows whose every answer token is the likeliest: greedy decoding gives this very answer."""
        right = np.array(self.figures["right"], np.int64)
        return float((right == self.tokens).mean())

    @property
    def curve(self) -> list[float]:
        """The loss on the test rows after each round, where that was measured."""
        return [headline(note["test"]) for note in self.told["rounds"] if "test" in note]


@dataclass(frozen=True)
class Results:
    """All results of one folder."""

    all: Sequence[Mapping[str, Any]] = field(repr=False)

    @classmethod
    def of(cls, out: Path, besides: Iterable[Mapping[str, Any]] = ()) -> "Results":
        """Read what is there, and take what else is known `besides`: a run of this folder stands before it."""
        files = sorted((out / "runs").glob(f"*/{RESULT}"))
        here = [json.loads(file.read_text("utf-8")) for file in files]
        names = {told["name"] for told in here}
        return cls(here + [told for told in besides if told["name"] not in names])

    def models(self, row: str, variant: str | None = "", on: str = "test") -> list[Model]:
        """Return the models of a row that were measured on these rows of data, by seed and client.

        With None as the variant, those of all its variants.
        """
        found = [told for told in self.all if told["row"] == row and variant in (None, told["variant"])]
        found = [told for told in found if on in told["figures"]]
        found.sort(key=lambda told: (told["seed"], told["client"] or 0))
        return [Model(told, on) for told in found]

    def found(self, row: str) -> Mapping[str, Any]:
        """Return what a check has found; nothing where it was not made."""
        for told in self.all:
            if told["row"] == row:
                found: Mapping[str, Any] = told["found"]
                return found
        return {}

    def against(self, row: str, variant: str, other: str, other_variant: str = "") -> Interval | None:
        """Return how a row's loss differs from another's, over the seeds that both have; None without any."""
        ours = {model.seed: model for model in self.models(row, variant)}
        theirs = {model.seed: model for model in self.models(other, other_variant)}
        both = sorted(ours.keys() & theirs.keys())
        pairs = [pairs_of(ours[seed], theirs[seed]) for seed in both]
        return pooled_interval(pairs) if pairs else None

    def gap(self, fed: str, central: str, alone: str = "alone", variant: str = "") -> Gap | None:
        """Return the share of the gap between clients alone and `central` that `fed` recovers, over common seeds."""
        seeds = [
            Triple(one.categories, one.tokens, np.stack([model.losses for model in locals_]), one.losses, best.losses)
            for one in self.models(fed, variant)
            for best in self.models(central)
            if best.seed == one.seed and (locals_ := [m for m in self.models(alone) if m.seed == one.seed])
        ]
        return gap_interval(seeds) if seeds else None

    def preferred(self, row: str) -> str:
        """Return the variant of a row that has the least loss on validation rows, by its first seed; "" without any."""
        found = [model for model in self.models(row, None, "validation") if model.seed == 1]
        return min(found, key=lambda model: model.loss).told["variant"] if found else ""

    def beaten(self, fed: str, alone: str, variant: str = "", on: str = "test") -> dict[int, tuple[int, int]]:
        """Return, for each seed, how many clients alone have a higher loss than `fed`, and out of how many."""
        found: dict[int, tuple[int, int]] = {}
        for one in self.models(fed, variant, on):
            others = [model for model in self.models(alone, "", on) if model.seed == one.seed]
            if others:
                found[one.seed] = (sum(model.loss > one.loss for model in others), len(others))
        return found


def pairs_of(ours: Model, theirs: Model) -> Pairs:
    """Return two models on the rows that both were measured on."""
    places = {name: place for place, name in enumerate(theirs.figures["rows"])}
    mine = [place for place, name in enumerate(ours.figures["rows"]) if name in places]
    other = [places[ours.figures["rows"][place]] for place in mine]
    categories = [ours.categories[place] for place in mine]
    return Pairs(categories, ours.tokens[mine], ours.losses[mine], theirs.losses[other])


def mean_loss(models: Iterable[Model]) -> float:
    """Return the mean over models."""
    return fmean(model.loss for model in models)


def rounds_to(curve: Sequence[float], target: float) -> int | None:
    """Return the first round, from 1, whose loss is at most the target."""
    return next((number for number, loss in enumerate(curve, 1) if loss <= target), None)
