"""Which rows are for tests: held out before rows are dealt, taken from the clients' lists later, or one list a client.

One random order of all rows decides, so ten a category are the first ten of twenty-five, and every way to deal the
rest is tested on the same rows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedit_client.partition.corpus import CATEGORY, Corpus, Indices, Labels
from fedit_client.partition.draws import draws
from fedit_client.partition.refusals import too_few
from fedit_client.partition.result import Partition
from fedit_protocol.words import counted


def hold_out(corpus: Corpus, labels: Labels, per_category: int, seed: int, together: str | None = None) -> Indices:
    """Return `per_category` rows of each category, sorted. Raises DataError D041 where one has too few.

    Rows with the same value in the column `together`, such as translations of one question, are all held out or none.
    """
    return _first_of_each(corpus, labels, np.arange(len(corpus)), per_category, ("test rows", seed), together)


def hold_out_more(corpus: Corpus, partition: Partition, per_category: int, seed: int) -> Partition:
    """Return the partition with more test rows, `per_category` of each taken from the clients' lists by seed.

    Raises DataError D041 where a category has too few, or a client would be left with nothing.
    """
    held = np.concatenate([client.rows for client in partition.clients])
    field = partition.test_field if corpus.has_field(partition.test_field) else CATEGORY
    more = _first_of_each(corpus, corpus.labels(field), np.sort(held), per_category, ("more test rows", seed), None)
    clients = tuple(replace(client, rows=_without(client.rows, more)) for client in partition.clients)
    check_nobody_is_empty([client.rows for client in clients])
    parameters = {**partition.parameters, "more_test_rows": per_category, "more_test_seed": seed}
    return replace(partition, clients=clients, test=np.union1d(partition.test, more), parameters=parameters)


def split_off_local_test(corpus: Corpus, partition: Partition, share: float, seed: int) -> Partition:
    """Return the partition with a test list for each client, a share of its own rows, at least one of two or more."""
    clients = []
    for client in partition.clients:
        rng = draws("local test rows", seed, corpus.digest, client.name)
        count = min(max(1, round(share * len(client.rows))), len(client.rows) - 1) if share else 0
        tested = np.sort(rng.permutation(client.rows)[:count]).astype(np.int64)
        clients.append(replace(client, rows=_without(client.rows, tested), local_test=tested))
    parameters = {**partition.parameters, "local_test_share": share, "local_test_seed": seed}
    return replace(partition, clients=tuple(clients), parameters=parameters)


def check_nobody_is_empty(dealt: Sequence[Indices]) -> None:
    """Raise DataError D041 where a client has no row."""
    empty = sum(len(rows) == 0 for rows in dealt)
    if empty:
        raise too_few(f"{empty:,} of {len(dealt):,} clients would have no row at all")


def _first_of_each(
    corpus: Corpus, labels: Labels, candidates: Indices, count: int, purpose: tuple[str, int], together: str | None
) -> Indices:
    if not count:
        return np.zeros(0, dtype=np.int64)
    units = np.arange(len(corpus)) if together is None else corpus.labels(together).codes
    rank = draws(purpose[0], purpose[1], corpus.digest).permutation(units.max() + 1)[units]
    chosen: list[Indices] = []
    for code, name in enumerate(labels.names):
        rows = candidates[labels.codes[candidates] == code]
        found = np.unique(rank[rows])[:count]
        if len(found) < count or len(rows) <= count:
            raise too_few(
                f"{labels.field} {name!r} has {counted(len(rows), 'row')}, too few to hold {count} out and keep others",
                f"--test-rows {max(0, len(rows) - 1)}",
            )
        chosen.append(found)
    taken = np.isin(rank[candidates], np.concatenate(chosen))
    return np.sort(candidates[taken])


def _without(rows: Indices, gone: Indices) -> Indices:
    return rows[~np.isin(rows, gone)]
