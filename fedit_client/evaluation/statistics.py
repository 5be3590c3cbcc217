"""From losses of single rows to figures that may be claimed: means, spreads, gaps, and how sure each is. Pure numpy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from statistics import fmean
from typing import Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

DRAWS: Final = 2000
_DRAW_SEED: Final = 2023
_FEWEST_ROWS: Final = 4
_FEWEST_IN_CATEGORY: Final = 2
_COVERED: Final = (2.5, 97.5)
LEAST_GAP: Final = 0.01
"""Nats between local and centralised training below which a share of the gap says nothing."""


@dataclass(frozen=True)
class Interval:
    """A difference, or a share, with the 95 % interval of a bootstrap (Efron and Tibshirani 1993)."""

    change: float
    low: float
    high: float
    rows: int
    seeds: int = 1
    smallest: int = 2
    """Rows of the smallest category: of a single one nothing is known but itself."""

    @property
    def verdict(self) -> str:
        """What may be said of a loss: lower is better; drawing from one row over and over says nothing."""
        if self.rows < _FEWEST_ROWS or self.smallest < _FEWEST_IN_CATEGORY:
            return "too few rows to say"
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "no clear difference"


@dataclass(frozen=True)
class Pairs:
    """Two models on the same rows, all (rows,): `tokens` of each row, and the summed losses in nats of both models."""

    categories: Sequence[str]
    tokens: Doubles
    ours: Doubles
    theirs: Doubles


@dataclass(frozen=True)
class Triple:
    """Local, federated and centralised models of one seed on the same rows.

    `local` is (clients, rows), the other losses and `tokens` are (rows,); losses are summed nats of a row.
    """

    categories: Sequence[str]
    tokens: Doubles
    local: Doubles
    fed: Doubles
    central: Doubles


@dataclass(frozen=True)
class Gap:
    """Which share of the gap between local and centralised training a federation recovers: of the headline loss, and of
    each category whose gap is wide enough to speak of."""

    whole: Interval
    by_category: Mapping[str, Interval]

    @property
    def worst(self) -> tuple[str, Interval] | None:
        """The category with the least share, or None where no category has a gap."""
        return min(self.by_category.items(), key=lambda item: item[1].change, default=None)


def category_means(categories: Sequence[str], weights: Doubles, sums: Doubles) -> dict[str, float]:
    """Return each category's sums over its weights: nats per token from a row's tokens and its summed loss."""
    return {
        name: float(sums[inside].sum() / weights[inside].sum())
        for name, inside in _insides(categories, weights).items()
    }


def headline(by_category: Mapping[str, float]) -> float:
    """Return the mean over categories, each with the same say however many rows it has."""
    return fmean(by_category.values())


def jain(values: Sequence[float]) -> float:
    """Return Jain's fairness index of values above 0: 1 where all are equal, 1/n where one has everything."""
    found = np.asarray(values, dtype=np.float64)
    return float(found.sum() ** 2 / (len(found) * (found**2).sum())) if found.any() else 1.0


def relative_score(base: float, model: float) -> float:
    """Return exp(L_base − L_model): above 1 is better than the base, as a judge's ratio would be."""
    return exp(base - model)


def gap_recovered(local: float, fed: float, central: float) -> float | None:
    """Return (L_local − L_fed) / (L_local − L_central), or None where the whole gap is below LEAST_GAP."""
    return (local - fed) / (local - central) if local - central >= LEAST_GAP else None


def paired_interval(pairs: Pairs, *, draws: int = DRAWS) -> Interval:
    """Return how our headline loss differs from theirs, rows drawn anew inside each category, the same for both."""
    return pooled_interval([pairs], draws=draws)


def pooled_interval(seeds: Sequence[Pairs], *, draws: int = DRAWS) -> Interval:
    """Return the same over several seeds: seeds are drawn anew, then rows inside categories.

    Seeds that were measured on the same rows get the same draw of them, for the rows are no part of a seed's luck.
    """
    losses = [np.stack([pairs.ours, pairs.theirs]) for pairs in seeds]
    drawn = np.stack(
        [
            _differences(_drawn(pairs.categories, pairs.tokens, both, draws))
            for pairs, both in zip(seeds, losses, strict=True)
        ]
    )  # (seeds, draws)
    seen = fmean(
        float(np.subtract(*_headlines(pairs.categories, pairs.tokens, both)))
        for pairs, both in zip(seeds, losses, strict=True)
    )
    return _interval(seen, (_seed_shares(len(seeds), draws) * drawn).sum(axis=0), seeds[0].categories, len(seeds))


def gap_interval(seeds: Sequence[Triple], *, draws: int = DRAWS) -> Gap | None:
    """Return the share of the gap that is recovered, over seeds the mean gain over the mean gap; None without a gap."""
    whole = _share(seeds, draws)
    if whole is None:
        return None
    found = {name: _share([_inside(seed, name) for seed in seeds], draws) for name in sorted(set(seeds[0].categories))}
    return Gap(whole, {name: share for name, share in found.items() if share is not None})


def _share(seeds: Sequence[Triple], draws: int) -> Interval | None:
    losses = [np.vstack([seed.local, seed.fed, seed.central]) for seed in seeds]  # (clients + 2, rows)
    seen = np.stack(
        [_gains(_headlines(seed.categories, seed.tokens, stacked)) for seed, stacked in zip(seeds, losses, strict=True)]
    ).mean(axis=0)
    if seen[1] < LEAST_GAP:
        return None
    drawn = np.stack(
        [
            _gains(_drawn(seed.categories, seed.tokens, stacked, draws))
            for seed, stacked in zip(seeds, losses, strict=True)
        ]
    )  # (seeds, draws, 2)
    gain, gap = (_seed_shares(len(seeds), draws)[..., None] * drawn).sum(axis=0).T
    return _interval(float(seen[0] / seen[1]), gain / gap, seeds[0].categories, len(seeds))


def _gains(headlines: Doubles) -> Doubles:
    """(…, clients + 2) losses → (…, 2): what the federation gains on the mean client, and what there is to gain."""
    local = headlines[..., :-2].mean(axis=-1)
    return np.stack([local - headlines[..., -2], local - headlines[..., -1]], axis=-1)


def _inside(seed: Triple, category: str) -> Triple:
    inside = np.array([name == category for name in seed.categories])
    return Triple([category] * int(inside.sum()), seed.tokens[inside], seed.local[:, inside], seed.fed[inside],
                  seed.central[inside])  # fmt: skip


def _interval(seen: float, drawn: Doubles, categories: Sequence[str], seeds: int) -> Interval:
    low, high = np.percentile(drawn, _COVERED)
    return Interval(seen, float(low), float(high), len(categories), seeds, min(Counter(categories).values()))


def _differences(headlines: Doubles) -> Doubles:
    return np.asarray(headlines[:, 0] - headlines[:, 1])


def _headlines(categories: Sequence[str], tokens: Doubles, losses: Doubles) -> Doubles:
    """(models, rows) summed losses → (models,) headline losses."""
    parts = [losses[:, inside].sum(axis=1) / tokens[inside].sum() for inside in _insides(categories, tokens).values()]
    return np.asarray(np.mean(parts, axis=0))


def _drawn(categories: Sequence[str], tokens: Doubles, losses: Doubles, draws: int) -> Doubles:
    """(models, rows) summed losses → (draws, models) headline losses of rows drawn anew inside each category."""
    random = np.random.default_rng(_DRAW_SEED)
    parts = []
    for inside in _insides(categories, tokens).values():
        rows = int(inside.sum())
        counts = random.multinomial(rows, np.full(rows, 1 / rows), draws)  # (draws, rows)
        parts.append(counts @ losses[:, inside].T / (counts @ tokens[inside])[:, None])
    return np.asarray(np.mean(parts, axis=0))


def _seed_shares(seeds: int, draws: int) -> Doubles:
    """(seeds, draws): how much each seed counts in each draw."""
    random = np.random.default_rng(_DRAW_SEED + 1)
    return np.asarray(random.multinomial(seeds, np.full(seeds, 1 / seeds), draws).T / seeds)


def _insides(categories: Sequence[str], weights: Doubles) -> dict[str, NDArray[np.bool_]]:
    names = np.asarray(categories)
    if len(names) != len(weights):
        raise ValueError(f"{len(names)} categories for {len(weights)} rows")
    return {str(name): names == name for name in np.unique(names)}
