"""How unlike the clients of a partition are, in numbers, and how much of the categories a round of some covers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedit_client.partition.corpus import Corpus, Labels
from fedit_client.partition.dealing import LENGTH, labels_of
from fedit_client.partition.draws import draws
from fedit_client.partition.result import Partition

SHARE: Final = 0.05
_LENGTH_BINS: Final = 10
_DRAWS: Final = 400
_PORTIONS: Final = (0.1, 0.4)

Table = NDArray[np.int64]
"""Rows of each client in each category, (clients, categories)."""


@dataclass(frozen=True)
class Meters:
    """What makes the clients unlike each other; means over clients, each counted once.

    `mean_tv` is half the sum of |share at the client − share overall|, 0 to 1; `mean_js` the Jensen–Shannon divergence
    in bits, 0 to 1; `size_cv` the standard deviation of sizes over their mean, `size_gini` 0 to 1; `length_kl` the
    divergence of answer lengths in tenths of all answers, in nats. `coverage` tells for some numbers of clients which
    share of the categories a round with so many of them sees, at random.
    """

    field: str
    clients: int
    rows: int
    smallest: int
    largest: int
    mean_tv: float
    max_tv: float
    mean_js: float
    size_cv: float
    size_gini: float
    length_kl: float
    coverage: dict[str, float]

    def as_data(self) -> dict[str, Any]:
        """Return plain values, rounded where more digits would say nothing."""
        return {
            name: round(value, 6) if isinstance(value, float) else value
            for name, value in {**vars(self), "coverage": {k: round(v, 4) for k, v in self.coverage.items()}}.items()
        }


def meters(corpus: Corpus, partition: Partition) -> Meters:
    """Measure a partition by the column that it was made by, else by category."""
    table = client_table(measured_labels(corpus, partition), partition)
    sizes = table.sum(axis=1)
    overall, shares = table.sum(axis=0) / table.sum(), table / sizes[:, None]
    distances = np.abs(shares - overall).sum(axis=1) / 2
    middle = (shares + overall) / 2
    return Meters(
        field=partition.field,
        clients=len(sizes),
        rows=int(sizes.sum()),
        smallest=int(sizes.min()),
        largest=int(sizes.max()),
        mean_tv=float(distances.mean()),
        max_tv=float(distances.max()),
        mean_js=float((_divergence(shares, middle) + _divergence(overall[None], middle)).mean() / 2 / np.log(2)),
        size_cv=float(sizes.std() / sizes.mean()),
        size_gini=_gini(sizes),
        length_kl=_length_divergence(corpus, partition),
        coverage={str(count): random_coverage(table, count, partition.digest) for count in _some(len(sizes))},
    )


def measured_labels(corpus: Corpus, partition: Partition) -> Labels:
    """Return the labels that a partition is measured by; raises DataError D042."""
    from fedit_client.partition.forms import Form

    if partition.field == LENGTH:
        return labels_of(corpus, Form("length"))
    if partition.form.startswith("quality:"):
        return labels_of(corpus, Form("quality", field=partition.field))
    return corpus.labels(partition.field)


def client_table(labels: Labels, partition: Partition) -> Table:
    """Return how many training rows of each category each client has."""
    return np.array([labels.counts(client.rows) for client in partition.clients], dtype=np.int64)


def holds(table: Table, share: float | None = None) -> NDArray[np.bool_]:
    """Say which client has enough of which category: more than 5 % of its rows, or than half of the category's share
    of all rows where that is less, so that a rare category can be covered at all; `share` takes the place of both.
    """
    overall = table.sum(axis=0) / table.sum()
    least = np.minimum(SHARE, overall / 2) if share is None else share
    return np.asarray(table > least * table.sum(axis=1, keepdims=True))


def coverage(table: Table, selected: Sequence[int], share: float | None = None) -> float:
    """Return the share of categories of which one of the selected clients has enough rows (`holds`)."""
    there = table.sum(axis=0) > 0
    return float(holds(table, share)[list(selected)][:, there].any(axis=0).mean())


def random_coverage(table: Table, count: int, digest: str, share: float | None = None) -> float:
    """Return the mean coverage over 400 random selections of so many clients."""
    held = holds(table, share)[:, table.sum(axis=0) > 0]
    rng = draws("coverage", 0, digest, count)
    order = np.argsort(rng.random_sample((_DRAWS, len(table))), axis=1)[:, :count]
    return float(held[order].any(axis=1).mean())


def _some(clients: int) -> list[int]:
    return sorted({max(1, round(clients * portion)) for portion in _PORTIONS} | {clients})


def _divergence(of: NDArray[np.float64], from_: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kullback–Leibler in nats along the last axis; shares of 0 add nothing."""
    safe = np.where(of > 0, of, 1.0)
    terms = np.where(of > 0, of * np.log(safe / np.where(from_ > 0, from_, 1.0)), 0.0)
    total: NDArray[np.float64] = terms.sum(axis=-1)
    return total


def _gini(sizes: NDArray[np.int64]) -> float:
    ordered = np.sort(sizes)
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def _length_divergence(corpus: Corpus, partition: Partition) -> float:
    rows = np.concatenate([client.rows for client in partition.clients])
    edges = np.unique(np.quantile(corpus.lengths[rows], np.linspace(0, 1, _LENGTH_BINS + 1)[1:-1]))
    bins = Labels("", tuple(map(str, range(len(edges) + 1))), np.searchsorted(edges, corpus.lengths, side="left"))
    table = client_table(bins, partition)
    return float(_divergence(table / table.sum(axis=1, keepdims=True), (table.sum(axis=0) / table.sum())[None]).mean())
