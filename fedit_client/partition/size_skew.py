"""Deals at random: equal sizes, or sizes after a law; and those that follow a natural id or an order of rows."""

from typing import Final

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from fedit_client.partition.corpus import Indices, Labels
from fedit_client.partition.label_skew import grouped
from fedit_client.partition.refusals import too_few

BINS: Final = 8
_LARGEST_OVER_SMALLEST: Final = 100.0
_SIGMA: Final = 1.0


def iid(rows: int, clients: int, rng: RandomState) -> list[Indices]:
    """Deal rows at random into equal parts."""
    return [part.astype(np.int64) for part in np.array_split(rng.permutation(rows), clients)]


def by_size(rows: int, clients: int, law: str, rng: RandomState) -> list[Indices]:
    """Deal rows at random into parts whose sizes are as 1 : 2 : 3 … (linear), as powers with the largest 100 times the
    smallest (exponential), or as exp of a standard normal variate (lognormal). Everybody gets a row.
    """
    steps = np.arange(clients) / max(clients - 1, 1)
    shares = {
        "linear": np.arange(1, clients + 1) / 1.0,
        "exponential": _LARGEST_OVER_SMALLEST**steps,
        "lognormal": np.exp(_SIGMA * rng.standard_normal(clients)),
    }[law]
    sizes = 1 + _apportioned(shares, rows - clients)
    return [part.astype(np.int64) for part in np.split(rng.permutation(rows), np.cumsum(sizes)[:-1])]


def _apportioned(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Split a whole number by these shares; what rounding leaves goes to the largest fractions."""
    exact = shares / shares.sum() * total
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def by_users(labels: Labels, clients: int, min_rows: int, rng: RandomState) -> list[Indices]:
    """Draw persons who have `min_rows` or more; each is one client with all of its rows. Raises DataError D041."""
    enough = np.flatnonzero(labels.counts(np.arange(len(labels.codes))) >= min_rows)
    if len(enough) < clients:
        raise too_few(f"{len(enough):,} values of {labels.field} have {min_rows} rows or more, for {clients:,} clients",
                      f"--clients {max(1, len(enough))}")  # fmt: skip
    groups = grouped(labels, rng)
    return [groups[place] for place in sorted(rng.permutation(enough)[:clients].tolist())]


def by_rank(field: str, values: NDArray[np.float64]) -> Labels:
    """Return labels that cut rows into eight equal parts, from the smallest value to the largest."""
    codes = np.empty(len(values), dtype=np.int64)
    for code, part in enumerate(np.array_split(np.argsort(values, kind="stable"), BINS)):
        codes[part] = code
    return Labels(field, tuple(f"{field} {code + 1}/{BINS}" for code in range(BINS)), codes)
